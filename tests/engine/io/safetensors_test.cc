#include "engine/io/safetensors.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/io/file_builders.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;

StatusOr<SafetensorsFile> Parse(const std::string& bytes) {
  return SafetensorsFile::FromFile(RandomAccessFile::FromBytes(bytes, "x.safetensors"));
}

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

struct Refusal {
  const char* name;
  std::string bytes;
  absl::StatusCode code;
  const char* message;
};

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kExhausted = absl::StatusCode::kResourceExhausted;

std::string Repeat(const std::string& piece, size_t times) {
  std::string text;
  for (size_t i = 0; i < times; ++i) text += piece;
  return text;
}

// One tensor "t" described by `body` over `data_bytes` of data.
std::string One(const std::string& body, size_t data_bytes) {
  return SafetensorsBytes("{\"t\":" + body + "}", data_bytes);
}

std::vector<Refusal> HeaderRefusals() {
  const std::string good = "{" + Tensor("t", "F32", "[2]", "[0,8]") + "}";
  std::vector<Refusal> cases = {
      {"empty file", "", kInvalid, "too few"},
      {"seven bytes", std::string(7, '\0'), kInvalid, "too few"},
      {"length zero", Raw(uint64_t{0}), kInvalid, "start with '{'"},
      {"length past the file", Raw(uint64_t{100}) + "{}", kInvalid, "longer than the file"},
      {"length one past the file", Raw(uint64_t{3}) + "{}", kInvalid, "longer than the file"},
      {"length 2^63", Raw(uint64_t{1} << 63) + "{}", kExhausted, "header"},
      {"length 2^64-1", Raw(~uint64_t{0}) + "{}", kExhausted, "header"},
      {"length past the cap", Raw(uint64_t{17} << 20) + "{}", kExhausted, "16777216"},
      {"leading space", SafetensorsBytes(" " + good, 8), kInvalid, "start with '{'"},
      {"byte order mark", SafetensorsBytes("\xef\xbb\xbf" + good, 8), kInvalid, "start with '{'"},
      {"an array", SafetensorsBytes("[]", 0), kInvalid, "start with '{'"},
      {"unclosed", SafetensorsBytes("{", 0), kInvalid, "not valid JSON"},
      {"trailing text", SafetensorsBytes(good + "x", 8), kInvalid, "not valid JSON"},
      {"trailing NUL", SafetensorsBytes(good + std::string(1, '\0'), 8), kInvalid, "NUL byte"},
      {"two objects", SafetensorsBytes(good + good, 8), kInvalid, "not valid JSON"},
      {"trailing comma", SafetensorsBytes("{" + Tensor("t", "F32", "[2]", "[0,8]") + ",}", 8),
       kInvalid, "not valid JSON"},
      {"invalid UTF-8", SafetensorsBytes("{\"\xff\xfe\":1}", 0), kInvalid, "not valid JSON"},
      {"overlong UTF-8", SafetensorsBytes("{\"\xc0\x80\":1}", 0), kInvalid, "not valid JSON"},
      {"lone surrogate", SafetensorsBytes("{\"\\ud800\":1}", 0), kInvalid, "not valid JSON"},
      {"raw newline in a name", SafetensorsBytes("{\"a\nb\":1}", 0), kInvalid, "not valid JSON"},
      {"deep arrays", SafetensorsBytes("{\"t\":" + std::string(1'000'000, '['), 0), kInvalid,
       "nested deeper than 4"},
      {"deep objects", SafetensorsBytes(Repeat("{\"t\":", 200'000), 0), kInvalid, "nested deeper"},
      {"duplicate tensor",
       SafetensorsBytes("{" + Tensor("t", "F32", "[2]", "[0,8]") + "," +
                            Tensor("t", "F32", "[2]", "[0,8]") + "}",
                        8),
       kInvalid, "duplicate key 't'"},
      {"duplicate key spelled with an escape",
       SafetensorsBytes("{" + Tensor("t", "F32", "[2]", "[0,8]") + "," +
                            Tensor("\\u0074", "F32", "[2]", "[0,8]") + "}",
                        8),
       kInvalid, "duplicate key 't'"},
      {"duplicate field",
       One("{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[2],"
           "\"data_offsets\":[0,8]}",
           8),
       kInvalid, "duplicate key 'dtype'"},
      {"metadata is a list", SafetensorsBytes("{\"__metadata__\":[]}", 0), kInvalid,
       "__metadata__: expected an object"},
      {"metadata holds a number", SafetensorsBytes("{\"__metadata__\":{\"a\":1}}", 0), kInvalid,
       "expected a string, got 1"},
      {"metadata nests", SafetensorsBytes("{\"__metadata__\":{\"a\":{}}}", 0), kInvalid,
       "expected a string, got an object"},
      {"data without tensors", SafetensorsBytes("{}", 8), kInvalid, "trailing bytes"},
  };
  return cases;
}

std::vector<Refusal> EntryRefusals() {
  const std::string offsets = ",\"data_offsets\":[0,8]}";
  return {
      {"not an object", One("[]", 0), kInvalid, "tensor 't': expected an object"},
      {"null", One("null", 0), kInvalid, "tensor 't': expected an object"},
      {"no dtype", One("{\"shape\":[2],\"x\":1,\"data_offsets\":[0,8]}", 8), kInvalid, "'dtype'"},
      {"no shape", One("{\"dtype\":\"F32\",\"x\":1" + offsets, 8), kInvalid, "'shape'"},
      {"no offsets", One("{\"dtype\":\"F32\",\"shape\":[2],\"x\":1}", 8), kInvalid,
       "'data_offsets'"},
      {"unknown key", One("{\"dtype\":\"F32\",\"shape\":[2],\"x\":1" + offsets, 8), kInvalid,
       "exactly dtype, shape and data_offsets"},
      {"dtype is a number", One("{\"dtype\":4,\"shape\":[2]" + offsets, 8), kInvalid, "a string"},
      {"dtype is empty", One("{\"dtype\":\"\",\"shape\":[2]" + offsets, 8), kInvalid, "type name"},
      {"dtype is long",
       One("{\"dtype\":\"" + std::string(17, 'F') + "\",\"shape\":[2]" + offsets, 8), kInvalid,
       "type name"},
      {"shape is a number", One("{\"dtype\":\"F32\",\"shape\":2" + offsets, 8), kInvalid,
       "'shape': expected an array"},
      {"negative dimension", SafetensorsBytes("{" + Tensor("t", "F32", "[-2]", "[0,8]") + "}", 8),
       kInvalid, "got -2"},
      {"float dimension", SafetensorsBytes("{" + Tensor("t", "F32", "[2.0]", "[0,8]") + "}", 8),
       kInvalid, "got 2.0"},
      {"string dimension", SafetensorsBytes("{" + Tensor("t", "F32", "[\"2\"]", "[0,8]") + "}", 8),
       kInvalid, "got the string '2'"},
      {"dimension 2^63",
       SafetensorsBytes("{" + Tensor("t", "F32", "[9223372036854775808]", "[0,8]") + "}", 8),
       kInvalid, "non-negative integer"},
      {"dimension 1e400", SafetensorsBytes("{" + Tensor("t", "F32", "[1e400]", "[0,8]") + "}", 8),
       kInvalid, "not valid JSON"},
      {"nine dimensions",
       SafetensorsBytes("{" + Tensor("t", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") + "}", 8),
       kInvalid, "at most 8 dimensions"},
      {"product overflows",
       SafetensorsBytes("{" + Tensor("t", "F32", "[4294967296,4294967296]", "[0,8]") + "}", 8),
       kInvalid, "too many elements"},
      {"product overflows behind a zero",
       SafetensorsBytes("{" + Tensor("t", "F32", "[0,4294967296,4294967296]", "[0,0]") + "}", 0),
       kInvalid, "too many elements"},
      {"bytes overflow",
       SafetensorsBytes("{" + Tensor("t", "F32", "[4611686018427387904]", "[0,0]") + "}", 0),
       kInvalid, "does not fit its 0 bytes"},
      {"one element short", SafetensorsBytes("{" + Tensor("t", "F32", "[3]", "[0,8]") + "}", 8),
       kInvalid, "F32 [3] does not fit its 8 bytes"},
      {"one byte long", SafetensorsBytes("{" + Tensor("t", "F32", "[2]", "[0,9]") + "}", 9),
       kInvalid, "does not fit its 9 bytes"},
      {"half a byte", SafetensorsBytes("{" + Tensor("t", "F4", "[3]", "[0,1]") + "}", 1), kInvalid,
       "F4 [3] does not fit"},
      {"a scalar of the wrong size",
       SafetensorsBytes("{" + Tensor("t", "F32", "[]", "[0,8]") + "}", 8), kInvalid,
       "F32 [] does not fit"},
      {"empty name", SafetensorsBytes("{" + Tensor("", "F32", "[2]", "[0,8]") + "}", 8), kInvalid,
       "a name of 1 to 1024 bytes"},
      {"long name",
       SafetensorsBytes("{" + Tensor(std::string(1025, 'a'), "F32", "[2]", "[0,8]") + "}", 8),
       kInvalid, "got 1025"},
  };
}

std::string Offsets(const std::string& offsets, size_t data_bytes) {
  return SafetensorsBytes("{" + Tensor("t", "F32", "[2]", offsets) + "}", data_bytes);
}

std::string Pair(const std::string& first, const std::string& second, size_t data_bytes) {
  return SafetensorsBytes(
      "{" + Tensor("a", "F32", "[2]", first) + "," + Tensor("b", "F32", "[2]", second) + "}",
      data_bytes);
}

std::vector<Refusal> OffsetRefusals() {
  return {
      {"begin past end", Offsets("[8,0]", 8), kInvalid, "begin <= end"},
      {"one offset", Offsets("[0]", 8), kInvalid, "[begin, end]"},
      {"three offsets", Offsets("[0,8,8]", 8), kInvalid, "[begin, end]"},
      {"negative begin", Offsets("[-8,0]", 8), kInvalid, "got [-8, 0]"},
      {"float end", Offsets("[0,8.0]", 8), kInvalid, "got [0, 8.0]"},
      {"string end", Offsets("[0,\"8\"]", 8), kInvalid, "begin <= end"},
      {"null end", Offsets("[0,null]", 8), kInvalid, "begin <= end"},
      {"2^64-1", Offsets("[0,18446744073709551615]", 8), kInvalid, "begin <= end"},
      {"2^64", Offsets("[0,18446744073709551616]", 8), kInvalid, "begin <= end"},
      {"wraps to the right size", Offsets("[18446744073709551608,18446744073709551616]", 8),
       kInvalid, "begin <= end"},
      {"past the end of the file", Offsets("[8,16]", 8), kInvalid, "hole"},
      {"truncated by a byte", Offsets("[0,8]", 7), kInvalid, "truncated"},
      {"truncated to nothing", Offsets("[0,8]", 0), kInvalid, "truncated"},
      {"trailing byte", Offsets("[0,8]", 9), kInvalid, "trailing bytes"},
      {"begins late", Offsets("[4,12]", 12), kInvalid, "begin at 0, got 4 (hole)"},
      {"hole between", Pair("[0,8]", "[12,20]", 20), kInvalid, "tensor 'b'"},
      {"overlap by a byte", Pair("[0,8]", "[7,15]", 15), kInvalid, "overlap"},
      {"the same bytes twice", Pair("[0,8]", "[0,8]", 8), kInvalid, "overlap"},
      {"inside another",
       SafetensorsBytes("{" + Tensor("a", "F32", "[4]", "[0,16]") + "," +
                            Tensor("b", "F32", "[1]", "[4,8]") + "}",
                        16),
       kInvalid, "overlap"},
  };
}

void ExpectRefused(const std::vector<Refusal>& cases) {
  for (const Refusal& refusal : cases) {
    SCOPED_TRACE(refusal.name);
    const auto file = Parse(refusal.bytes);
    ASSERT_FALSE(file.ok());
    EXPECT_EQ(file.status().code(), refusal.code) << file.status();
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(refusal.message));
    EXPECT_LT(file.status().message().size(), 600u);
  }
}

TEST(SafetensorsTest, RefusesHostileHeaders) { ExpectRefused(HeaderRefusals()); }
TEST(SafetensorsTest, RefusesHostileEntries) { ExpectRefused(EntryRefusals()); }
TEST(SafetensorsTest, RefusesHostileOffsets) { ExpectRefused(OffsetRefusals()); }

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const std::string bytes = Pair("[0,8]", "[8,16]", 16);
  ASSERT_TRUE(Parse(bytes).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(Parse(bytes.substr(0, size)).ok()) << size;
  }
}

TEST(SafetensorsTest, RefusesMoreTensorsThanTheLimit) {
  SafetensorsLimits limits;
  limits.max_tensors = 2;
  std::string header = "{";
  for (int i = 0; i < 4; ++i) {
    header += (i == 0 ? "" : ",") + Tensor("t" + std::to_string(i), "U8", "[0]", "[0,0]");
  }
  const auto file = SafetensorsFile::FromFile(
      RandomAccessFile::FromBytes(SafetensorsBytes(header + "}", 0), "x"), limits);
  EXPECT_EQ(file.status().code(), kExhausted) << file.status();
}

TEST(SafetensorsTest, AcceptsWhatTheFormatAllows) {
  const std::vector<std::pair<std::string, size_t>> headers = {
      {"{}", 0},
      {"{\"__metadata__\":{\"format\":\"pt\"}}    ", 0},
      {"{\"__metadata__\":{}," + Tensor("t", "F32", "[2]", "[0,8]") + "}", 8},
      {"{" + Tensor("t", "F32", "[]", "[0,4]") + "}", 4},
      {"{" + Tensor("t", "F32", "[0]", "[0,0]") + "}", 0},
      {"{" + Tensor("t", "F32", "[0,5]", "[0,0]") + "," + Tensor("u", "U8", "[3]", "[0,3]") + "}",
       3},
      {"{" + Tensor("b", "F16", "[2]", "[3,7]") + "," + Tensor("a", "U8", "[3]", "[0,3]") + "}", 7},
      {"{" + Tensor("t", "BOOL", "[1,1,1,1,1,1,1,2]", "[0,2]") + "}", 2},
      {"{" + Tensor("\\u00e9\\u4e2d", "I64", "[1]", "[0,8]") + "}", 8},
  };
  for (const auto& [header, data_bytes] : headers) {
    EXPECT_TRUE(Parse(SafetensorsBytes(header, data_bytes)).ok())
        << header << Parse(SafetensorsBytes(header, data_bytes)).status();
  }
}

TEST(SafetensorsTest, ReadsATensorsOwnBytes) {
  const auto file = Parse(SafetensorsBytes(
      "{" + Tensor("b", "U8", "[2,3]", "[4,10]") + "," + Tensor("a", "F32", "[1]", "[0,4]") + "}",
      10));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto tensor = file->Read("b");
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->dtype, DType::kU8);
  EXPECT_EQ(tensor->shape, (std::vector<int64_t>{2, 3}));
  ASSERT_EQ(tensor->bytes.size(), 6);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(tensor->bytes.data()[i], 4 + i);
  EXPECT_EQ(tensor->view().rows, 2);
  EXPECT_EQ(tensor->view().cols, 3);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->bytes.data()) % 64, 0u);
  EXPECT_EQ(file->tensors()[0].name, "a");
}

TEST(SafetensorsTest, ReadsEveryTypeOfOurs) {
  const std::vector<std::pair<std::string, DType>> types = {
      {"F64", DType::kF64}, {"F32", DType::kF32},  {"F16", DType::kF16}, {"BF16", DType::kBF16},
      {"I64", DType::kI64}, {"I32", DType::kI32},  {"I16", DType::kI16}, {"I8", DType::kI8},
      {"U8", DType::kU8},   {"BOOL", DType::kBool}};
  for (const auto& [name, dtype] : types) {
    const auto bytes = static_cast<size_t>(RowBytes(dtype, 3));
    const auto file = Parse(SafetensorsBytes(
        "{" + Tensor("t", name, "[3]", "[0," + std::to_string(bytes) + "]") + "}", bytes));
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(file->Read("t").ok()) << name;
    EXPECT_EQ(file->Read("t")->dtype, dtype);
  }
}

TEST(SafetensorsTest, RefusesAnUnreadTypeOnlyWhenItIsRead) {
  const auto file = Parse(SafetensorsBytes("{" + Tensor("w", "F8_E5M2", "[4]", "[0,4]") + "," +
                                               Tensor("v", "Q7", "[9]", "[4,8]") + "," +
                                               Tensor("x", "U8", "[1]", "[8,9]") + "}",
                                           9));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->Read("x").ok());
  for (const char* name : {"w", "v"}) {
    const auto tensor = file->Read(name);
    EXPECT_EQ(tensor.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(tensor.status().message()), HasSubstr("is not supported"));
  }
}

TEST(SafetensorsTest, NamesAnAbsentTensorSafely) {
  const auto file = Parse(SafetensorsBytes("{}", 0));
  ASSERT_TRUE(file.ok());
  const auto tensor = file->Read("a\n\xff");
  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(tensor.status().message()), HasSubstr("'a\\x0a\\xff'"));
}

TEST(SafetensorsTest, KeepsMetadata) {
  const auto file = Parse(SafetensorsBytes("{\"__metadata__\":{\"format\":\"pt\"}}", 0));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->metadata().at("format"), "pt");
}

TEST(SafetensorsTest, NoticesAFileThatShrinksWhileOpen) {
  const TemporaryDirectory directory;
  const std::string path = directory.Write("x.safetensors", Offsets("[0,8]", 8));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  std::filesystem::resize_file(path, 12);
  EXPECT_EQ(file->Read("t").status().code(), absl::StatusCode::kDataLoss);
}

TEST(SafetensorsTest, KeepsReadingAFileThatWasReplaced) {
  const TemporaryDirectory directory;
  const std::string path = directory.Write("x.safetensors", Offsets("[0,8]", 8));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok());
  std::filesystem::rename(directory.Write("y", "other"), path);
  EXPECT_TRUE(file->Read("t").ok());
}

TEST(SafetensorsTest, RefusesASparseGiantByItsHeader) {
  const TemporaryDirectory directory;
  const std::string path = directory.Write("x.safetensors", "");
  std::filesystem::resize_file(path, uintmax_t{1} << 40);
  EXPECT_FALSE(SafetensorsFile::Open(path).ok());
}

// --- directories ---

std::string IndexText(const std::string& weight_map) {
  return "{\"metadata\":{\"total_size\":16},\"weight_map\":" + weight_map + "}";
}

TEST(SafetensorsDirectoryTest, JoinsShards) {
  const TemporaryDirectory directory;
  const auto shard = [](const std::string& name) {
    return SafetensorsBytes("{" + Tensor(name, "F32", "[2]", "[0,8]") + "}", 8);
  };
  directory.Write("m-1.safetensors", shard("a"));
  directory.Write("m-2.safetensors", shard("b"));
  directory.Write("model.safetensors.index.json",
                  IndexText("{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}"));
  const auto source = OpenSafetensorsDirectory(directory.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->tensors().size(), 2u);
  EXPECT_TRUE((*source)->Read("a").ok());
  EXPECT_TRUE((*source)->Read("b").ok());
  EXPECT_EQ((*source)->Read("c").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*source)->Find("c"), nullptr);
}

TEST(SafetensorsDirectoryTest, RefusesHostileIndexes) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "is empty"},
      {"{}", "weight_map"},
      {"[]", "expected an object"},
      {IndexText("[]"), "weight_map"},
      {IndexText("{\"a\":1}"), "expected a string"},
      {IndexText("{\"a\":\"../m.safetensors\"}"), "plain name"},
      {IndexText("{\"a\":\"/etc/passwd\"}"), "plain name"},
      {IndexText("{\"a\":\"m.bin\"}"), "plain name"},
      {IndexText("{\"a\":\"x/m.safetensors\"}"), "plain name"},
      {IndexText("{\"a\":\"m\\u0000.safetensors\"}"), "plain name"},
      {IndexText("{\"a\":\"absent.safetensors\"}"), "does not exist"},
      {IndexText("{\"absent\":\"m.safetensors\"}"), "is not in 'm.safetensors'"},
      {IndexText("{\"a\":\"m.safetensors\",\"a\":\"m.safetensors\"}"), "duplicate key"},
      {IndexText("{\"a\":\"bad.safetensors\"}"), "bad.safetensors"},
  };
  for (const auto& [text, message] : cases) {
    const TemporaryDirectory directory;
    directory.Write("m.safetensors", Pair("[0,8]", "[8,16]", 16));
    directory.Write("bad.safetensors", "nonsense");
    directory.Write("model.safetensors.index.json", text);
    const auto source = OpenSafetensorsDirectory(directory.path());
    ASSERT_FALSE(source.ok()) << text;
    EXPECT_THAT(std::string(source.status().message()), HasSubstr(message)) << text;
  }
}

TEST(SafetensorsDirectoryTest, NamesTheFilesItLooksFor) {
  const TemporaryDirectory directory;
  directory.Write("pytorch_model.bin", "pickle");
  const auto source = OpenSafetensorsDirectory(directory.path());
  EXPECT_EQ(source.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(source.status().message()), HasSubstr("only safetensors"));
}

}  // namespace
}  // namespace polyad
