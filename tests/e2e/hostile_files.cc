#include "tests/e2e/hostile_files.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "tests/engine/adapters/adapter_bytes.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4})";
constexpr char kConfigName[] = "adapter_config.json";
constexpr char kTensorsName[] = "adapter_model.safetensors";
constexpr char kModule[] = "base_model.model.model.layers.0.self_attn.q_proj";
constexpr int64_t kHidden = 64;
constexpr int64_t kRank = 2;

TestTensor A(const std::string& module = kModule) {
  return FloatTensor(module + ".lora_A.weight", kRank, kHidden, 0.1f, 0.01f);
}
TestTensor B(const std::string& module = kModule) {
  return FloatTensor(module + ".lora_B.weight", kHidden, kRank, 0.1f, 0.01f);
}

void Write(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string LittleEndian(uint64_t value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

// A safetensors file of this header, whatever it says.
std::string Framed(const std::string& header, size_t data_bytes = 1024) {
  return LittleEndian(header.size()) + header + std::string(data_bytes, '\1');
}

std::string Repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

class Table {
 public:
  explicit Table(fs::path outside) : outside_(std::move(outside)) {}

  std::vector<HostileFile> Make() {
    AddFrames();
    AddHeaders();
    AddEntries();
    AddOffsets();
    AddValues();
    AddTensors();
    AddConfigTexts();
    AddConfigFields();
    AddDirectories();
    return std::move(files_);
  }

 private:
  void Add(const std::string& what, const std::string& says,
           std::function<void(const fs::path&)> write) {
    files_.push_back({what, says, std::move(write)});
  }
  void AddBytes(const std::string& what, const std::string& says, const std::string& bytes) {
    Add(what, says, [bytes](const fs::path& folder) {
      Write(folder / kConfigName, kConfig);
      Write(folder / kTensorsName, bytes);
    });
  }
  void AddTensorList(const std::string& what, const std::string& says,
                     const std::vector<TestTensor>& tensors) {
    AddBytes(what, says, SafetensorsBytes(tensors));
  }
  void AddConfig(const std::string& what, const std::string& says, const std::string& config) {
    Add(what, says, [config](const fs::path& folder) {
      WriteGoodAdapter(folder);
      Write(folder / kConfigName, config);
    });
  }
  // A member of the good configuration as it is here.
  void AddField(const std::string& what, const std::string& says, const std::string& member) {
    std::string config = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4})";
    const std::string name = member.substr(0, member.find(':'));
    for (const char* known : {R"("r": 2, )", R"("lora_alpha": 4)", R"("peft_type": "LORA", )"}) {
      const std::string text = known;
      if (text.substr(0, text.find(':')) == name) config.erase(config.find(text), text.size());
    }
    const std::string body = config.substr(1, config.size() - 2);
    AddConfig(what, says,
              "{" + member + (body.empty() ? "" : ", ") +
                  (body.ends_with(", ") ? body.substr(0, body.size() - 2) : body) + "}");
  }
  // A header of one entry.
  void AddEntry(const std::string& what, const std::string& says, const std::string& entry) {
    AddBytes(what, says,
             Framed("{\"" + std::string(kModule) + ".lora_A.weight\":" + entry + "}", 512));
  }

  void AddFrames();
  void AddHeaders();
  void AddEntries();
  void AddOffsets();
  void AddValues();
  void AddTensors();
  void AddConfigTexts();
  void AddConfigFields();
  void AddDirectories();

  const fs::path outside_;
  std::vector<HostileFile> files_;
};

void Table::AddFrames() {
  const std::string good = SafetensorsBytes({A(), B()});
  AddBytes("no bytes", "", "");
  AddBytes("one byte", "", "x");
  AddBytes("seven bytes", "", std::string(7, '\0'));
  AddBytes("a header of no bytes", "", LittleEndian(0));
  AddBytes("a header of no bytes before data", "", LittleEndian(0) + std::string(64, '\0'));
  AddBytes("a header longer than the file by one", "",
           LittleEndian(good.size() - 7) + good.substr(8));
  AddBytes("a header of 16 MiB and one", "", LittleEndian((16 << 20) + 1) + good.substr(8));
  AddBytes("a header of 100 MB", "", LittleEndian(100'000'001) + good.substr(8));
  AddBytes("a header of 2^32", "", LittleEndian(uint64_t{1} << 32) + good.substr(8));
  AddBytes("a header of 2^63", "", LittleEndian(uint64_t{1} << 63) + good.substr(8));
  AddBytes("a header of 2^64 - 1", "", LittleEndian(UINT64_MAX) + good.substr(8));
  AddBytes("a header of 2^64 - 8", "", LittleEndian(UINT64_MAX - 7) + good.substr(8));
  AddBytes("cut in the header", "", good.substr(0, 40));
  AddBytes("cut in the middle", "", good.substr(0, good.size() / 2));
  AddBytes("cut by a byte", "", good.substr(0, good.size() - 1));
  AddBytes("a byte too many", "", good + "x");
  AddBytes("twice the file", "", good + good);
  AddBytes("a mebibyte of zeros", "", std::string(1 << 20, '\0'));
  AddBytes("a mebibyte of ones", "", std::string(1 << 20, '\xff'));
  AddBytes("gzip", "", std::string("\x1f\x8b\x08\0\0\0\0\0\0\3", 10) + good);
  AddBytes("a zip archive", "", "PK\3\4" + good);
  AddBytes("a pickle", "", std::string("\x80\x02}q\0X\6\0\0\0os.sysq\1.", 24));
  AddBytes("a GGUF file", "", "GGUF" + std::string(60, '\0'));
  AddBytes("an ELF file", "",
           "\x7f"
           "ELF\2\1\1" +
               std::string(4096, '\0'));
  AddBytes("HTML", "", "<!DOCTYPE html><html><body>404 Not Found</body></html>");
  AddBytes("a pointer of git LFS", "",
           "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n");
}

void Table::AddHeaders() {
  const std::string entry = R"({"dtype":"F32","shape":[2,64],"data_offsets":[0,512]})";
  const std::string name = std::string("\"") + kModule + ".lora_A.weight\":";
  AddBytes("a space before the header", "", Framed(" {" + name + entry + "}", 512));
  AddBytes("a byte order mark before it", "", Framed("\xef\xbb\xbf{" + name + entry + "}", 512));
  AddBytes("text behind it", "", Framed("{" + name + entry + "}x", 512));
  AddBytes("NULs behind it", "", Framed("{" + name + entry + "}" + std::string(4, '\0'), 512));
  AddBytes("another object behind it", "", Framed("{" + name + entry + "}{}", 512));
  AddBytes("an array", "", Framed("[" + entry + "]", 512));
  AddBytes("null", "", Framed("null", 512));
  AddBytes("a number", "", Framed("1234567", 512));
  AddBytes("a string", "", Framed("\"text\"", 512));
  AddBytes("not closed", "", Framed("{" + name + entry, 512));
  AddBytes("closed twice", "", Framed("{" + name + entry + "}}", 512));
  AddBytes("a comma too many", "", Framed("{" + name + entry + ",}", 512));
  AddBytes("single quotes", "", Framed("{'a':{}}", 512));
  AddBytes("bytes that are no UTF-8", "", Framed("{\"\xff\xfe\":" + entry + "}", 512));
  AddBytes("half a surrogate", "", Framed("{\"\\ud800\":" + entry + "}", 512));
  AddBytes("only spaces", "", Framed(std::string(4096, ' '), 512));
  AddBytes("a tensor twice", "", Framed("{" + name + entry + "," + name + entry + "}", 512));
  AddBytes("a hundred thousand brackets", "", Framed(Repeat("[", 100'000)));
  AddBytes("a hundred thousand objects", "", Framed(Repeat("{\"a\":", 100'000)));
  AddBytes("a name of a mebibyte", "",
           Framed("{\"" + std::string(1 << 20, 'a') + "\":" + entry + "}", 512));
  AddBytes("metadata that is no object", "", Framed(R"({"__metadata__":[1]})", 0));
  AddBytes("metadata of numbers", "", Framed(R"({"__metadata__":{"a":1}})", 0));
  AddBytes("metadata of objects", "", Framed(R"({"__metadata__":{"a":{"b":"c"}}})", 0));
  std::string many = "{";
  for (int i = 0; i < 200'000; ++i) {
    many += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
            R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  }
  AddBytes("two hundred thousand tensors", "more than 65537 members", Framed(many + "}", 0));
}

void Table::AddEntries() {
  AddEntry("an entry that is null", "", "null");
  AddEntry("an entry that is a list", "", "[]");
  AddEntry("an empty entry", "", "{}");
  AddEntry("no type", "", R"({"shape":[2,64],"data_offsets":[0,512]})");
  AddEntry("no shape", "", R"({"dtype":"F32","data_offsets":[0,512]})");
  AddEntry("no offsets", "", R"({"dtype":"F32","shape":[2,64]})");
  AddEntry("a member twice", "",
           R"({"dtype":"F32","dtype":"F16","shape":[2,64],"data_offsets":[0,512]})");
  for (const char* dtype :
       {"\"F33\"", "\"f32\"", "\"\"", "\"F32\\u0000\"", "32", "null", "[\"F32\"]", "\"OBJECT\""}) {
    AddEntry(std::string("the type ") + dtype, "",
             std::string(R"({"dtype":)") + dtype + R"(,"shape":[2,64],"data_offsets":[0,512]})");
  }
  for (const char* shape :
       {"null", "128", "\"2x64\"", "{}", "[2,64.0]", "[2,-64]", "[-2,-64]", "[\"2\",64]",
        "[2,64,1,1,1,1,1,1,1]", "[4294967296,4294967296]", "[18446744073709551615,1]",
        "[9223372036854775807,2]", "[2,63]", "[2,65]", "[2]", "[[2,64]]"}) {
    AddEntry(std::string("the shape ") + shape, "",
             std::string(R"({"dtype":"F32","shape":)") + shape + R"(,"data_offsets":[0,512]})");
  }
}

void Table::AddOffsets() {
  for (const char* offsets : {"null",
                              "512",
                              "[]",
                              "[0]",
                              "[0,512,1024]",
                              "[0,\"512\"]",
                              "[0.0,512.0]",
                              "[-512,0]",
                              "[512,0]",
                              "[0,511]",
                              "[0,513]",
                              "[0,516]",
                              "[1,513]",
                              "[512,1024]",
                              "[4096,4608]",
                              "[0,18446744073709551615]",
                              "[18446744073709551104,18446744073709551615]",
                              "[18446744073709551616,18446744073709552128]",
                              "[0,1e3]",
                              "{\"0\":512}"}) {
    AddEntry(std::string("the offsets ") + offsets, "",
             std::string(R"({"dtype":"F32","shape":[2,64],"data_offsets":)") + offsets + "}");
  }
  const auto two = [this](const std::string& what, const char* first, const char* second,
                          size_t bytes) {
    AddBytes(what, "",
             Framed(std::string(R"({"a":{"dtype":"F32","shape":[64],"data_offsets":)") + first +
                        R"(},"b":{"dtype":"F32","shape":[64],"data_offsets":)" + second + "}}",
                    bytes));
  };
  two("two tensors in one place", "[0,256]", "[0,256]", 512);
  two("tensors that overlap", "[0,256]", "[128,384]", 384);
  two("a hole between tensors", "[0,256]", "[260,516]", 516);
  two("a hole before the first", "[4,260]", "[260,516]", 516);
  two("data that nobody has", "[0,256]", "[256,512]", 516);
}

void Table::AddValues() {
  const auto with = [this](const std::string& what, bool in_a, size_t at, float value) {
    TestTensor a = A();
    TestTensor b = B();
    std::string& bytes = in_a ? a.bytes : b.bytes;
    std::memcpy(bytes.data() + at * sizeof(float), &value, sizeof(value));
    AddTensorList(what, in_a ? "lora_A" : "lora_B", {a, b});
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  with("a NaN first", true, 0, nan);
  with("a NaN last", true, 127, nan);
  with("a NaN in B", false, 64, nan);
  with("an infinity", true, 5, inf);
  with("an infinity last", false, 127, inf);
  with("a negative infinity", false, 5, -inf);
  TestTensor zeros = B();
  zeros.bytes.assign(zeros.bytes.size(), '\0');
  AddTensorList("a change of nothing", "", {A(), zeros});
}

void Table::AddTensors() {
  const std::string module = kModule;
  AddTensorList("no tensor", "", {});
  AddTensorList("only A", "lora_B", {A()});
  AddTensorList("only B", "lora_A", {B()});
  AddTensorList("A turned over", "lora_A",
                {FloatTensor(module + ".lora_A.weight", kHidden, kRank, 0.1f, 0), B()});
  AddTensorList("B turned over", "lora_B",
                {A(), FloatTensor(module + ".lora_B.weight", kRank, kHidden, 0.1f, 0)});
  AddTensorList("A of another model", "lora_A",
                {FloatTensor(module + ".lora_A.weight", kRank, 576, 0.1f, 0), B()});
  AddTensorList("B of another model", "lora_B",
                {A(), FloatTensor(module + ".lora_B.weight", 576, kRank, 0.1f, 0)});
  AddTensorList("ranks that differ", "lora_B",
                {A(), FloatTensor(module + ".lora_B.weight", kHidden, 3, 0.1f, 0)});
  AddTensorList("a rank other than the configuration's", "lora_",
                {FloatTensor(module + ".lora_A.weight", 3, kHidden, 0.1f, 0),
                 FloatTensor(module + ".lora_B.weight", kHidden, 3, 0.1f, 0)});
  AddTensorList("no rank at all", "",
                {FloatTensor(module + ".lora_A.weight", 0, kHidden, 0, 0),
                 FloatTensor(module + ".lora_B.weight", kHidden, 0, 0, 0)});
  TestTensor flat = A();
  flat.shape = {kRank * kHidden};
  AddTensorList("A of one dimension", "lora_A", {flat, B()});
  TestTensor deep = A();
  deep.shape = {kRank, kHidden, 1};
  AddTensorList("A of three dimensions", "lora_A", {deep, B()});
  for (const char* dtype : {"I32", "U32"}) {
    TestTensor typed = A();
    typed.dtype = dtype;
    AddTensorList(std::string("A of ") + dtype, "lora_A", {typed, B()});
  }
  const std::string head = "base_model.model.model.layers.";
  for (const char* at : {"2.self_attn.q_proj", "1000000000.self_attn.q_proj", "-1.self_attn.q_proj",
                         "99999999999999999999.self_attn.q_proj", "x.self_attn.q_proj",
                         "0.self_attn.zz_proj", "0.q_proj", "0"}) {
    AddTensorList(std::string("a module ") + at, "", {A(), B(), A(head + at), B(head + at)});
  }
  for (const char* stranger :
       {"stranger", "", "base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight",
        "../../../etc/passwd", "base_model.model.model.norm.weight\\u0000", "lora_A.weight"}) {
    AddTensorList(std::string("a tensor named '") + stranger + "'", "",
                  {A(), B(), FloatTensor(stranger, 1, 1, 1, 0)});
  }
  TestTensor bias = FloatTensor(module + ".bias", 1, kHidden, 0.1f, 0);
  bias.shape = {kHidden};
  TestTensor length = FloatTensor(module + ".lora_magnitude_vector", 1, kHidden, 0.1f, 0);
  length.shape = {kHidden};
  AddTensorList("a bias that nobody announced", "q_proj.bias", {A(), B(), bias});
  AddTensorList("lengths without DoRA", "lora_magnitude_vector", {A(), B(), length});
}

void Table::AddConfigTexts() {
  const std::string good = kConfig;
  AddConfig("an empty configuration", "", "");
  AddConfig("an array", "", "[]");
  AddConfig("null", "", "null");
  AddConfig("a number", "", "7");
  AddConfig("a string", "", "\"LORA\"");
  AddConfig("an empty object", "", "{}");
  AddConfig("cut", "", good.substr(0, good.size() - 1));
  AddConfig("text behind it", "", good + " x");
  AddConfig("a NUL in it", "", good + std::string(1, '\0'));
  AddConfig("UTF-16", "", std::string("\xff\xfe{\0}\0", 6));
  AddConfig("no UTF-8", "", "{\"peft_type\": \"LORA\", \"x\": \"\xc0\xaf\"}");
  AddConfig("a hundred thousand brackets", "", Repeat("[", 100'000));
  AddConfig("two mebibytes of spaces", "", good + std::string(2 << 20, ' '));
  AddConfig("a comment", "", "{/* r */\"r\": 2}");
  AddConfig("YAML", "", "peft_type: LORA\nr: 2\n");
  AddConfig("Python", "", "{'peft_type': 'LORA', 'r': 2}");
}

void Table::AddConfigFields() {
  AddField("no type", "peft_type", R"("peft_type": null)");
  AddField("a type that is a number", "peft_type", R"("peft_type": 1)");
  AddField("a type of nobody's", "", R"("peft_type": "EVIL")");
  AddField("a type with a path", "", R"("peft_type": "../../LORA")");
  for (const char* rank : {"0", "-1", "2.5", "\"2\"", "true", "[2]", "{}", "9223372036854775808",
                           "1e400", "NaN", "1000000"}) {
    AddField(std::string("the rank ") + rank, "", std::string(R"("r": )") + rank);
  }
  AddField("another rank than the tensors'", "lora_", R"("r": 3)");
  for (const char* alpha : {"0", "\"4\"", "NaN", "Infinity", "1e400", "[4]"}) {
    AddField(std::string("the alpha ") + alpha, "", std::string(R"("lora_alpha": )") + alpha);
  }
  AddField("DoRA without lengths", "", R"("use_dora": true)");
  AddField("DoRA of a string", "use_dora", R"("use_dora": "yes")");
  AddField("patterns that are a list", "rank_pattern", R"("rank_pattern": [2])");
  AddField("a pattern of a string", "rank_pattern", R"("rank_pattern": {"q_proj": "2"})");
  AddField("a pattern of another rank", "lora_", R"("rank_pattern": {"q_proj": 4})");
  AddField("a pattern that does not compile", "", R"("rank_pattern": {"q_(proj": 4})");
  AddField("a kind of bias of nobody's", "bias = 'some'", R"("bias": "some")");
  AddField("a bias of another type", "bias", R"("bias": true)");
  AddField("saved modules that are not there", "lm_head.weight",
           R"("modules_to_save": ["lm_head"])");
  AddField("saved modules of another type", "modules_to_save", R"("modules_to_save": "lm_head")");
  AddField("layers replicated", "", R"("layer_replication": [[0, 2]])");
}

void Table::AddDirectories() {
  const auto spoiled = [this](const std::string& what, const std::string& says,
                              const std::function<void(const fs::path&)>& spoil) {
    Add(what, says, [spoil](const fs::path& folder) {
      WriteGoodAdapter(folder);
      spoil(folder);
    });
  };
  const auto replaced = [&](const std::string& what, const char* name,
                            const std::function<void(const fs::path&)>& make) {
    spoiled(what + std::string(" for ") + name, "", [name, make](const fs::path& folder) {
      fs::remove(folder / name);
      make(folder / name);
    });
  };
  Add("an empty directory", "", [](const fs::path&) {});
  spoiled("no configuration", "", [](const fs::path& folder) { fs::remove(folder / kConfigName); });
  spoiled("no tensors", "", [](const fs::path& folder) { fs::remove(folder / kTensorsName); });
  spoiled("a pickle alone", "", [](const fs::path& folder) {
    fs::rename(folder / kTensorsName, folder / "adapter_model.bin");
  });
  for (const char* name : {kConfigName, kTensorsName}) {
    replaced("a directory", name, [](const fs::path& path) { fs::create_directory(path); });
    replaced("a pipe", name, [](const fs::path& path) { ::mkfifo(path.c_str(), 0600); });
    replaced("a link to a device", name,
             [](const fs::path& path) { fs::create_symlink("/dev/zero", path); });
    replaced("a link to itself", name,
             [](const fs::path& path) { fs::create_symlink(path.filename(), path); });
    replaced("a link to nowhere", name,
             [](const fs::path& path) { fs::create_symlink("absent", path); });
    replaced("a link outside", name, [outside = outside_, name](const fs::path& path) {
      fs::create_symlink(outside / name, path);
    });
    replaced("a socket", name, [](const fs::path& path) {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      const std::string text = fs::relative(path).string();
      std::strncpy(address.sun_path, text.c_str(), sizeof(address.sun_path) - 1);
      const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
      ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
      ::close(fd);
    });
    for (const auto& [what, bytes] : {std::pair("a sparse terabyte", uintmax_t{1} << 40),
                                      std::pair("a sparse gibibyte", uintmax_t{1} << 30)}) {
      replaced(what, name, [bytes = bytes](const fs::path& path) {
        Write(path, "");
        fs::resize_file(path, bytes);
      });
    }
  }
}

}  // namespace

void WriteGoodAdapter(const fs::path& folder) {
  WriteAdapter(folder.string(), kConfig, SafetensorsBytes({A(), B()}));
}

std::vector<HostileFile> HostileFiles(const fs::path& outside) { return Table(outside).Make(); }

}  // namespace polyad
