// Paths and names that would lead a load out of its adapter root, through the admin port and over
// HTTP while clients stream: each is refused, nothing beyond the root is read, and no answer says
// where the root is. covers: server/adapter_registry.cc engine/io/file.cc

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "polyad/v1/adapter_admin.grpc.pb.h"
#include "tests/e2e/hostile_files.h"
#include "tests/e2e/server_process.h"
#include "tests/e2e/streams_beside.h"
#include "tests/server/raw_client.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLeastTricks = 200;
constexpr int kSwaps = 300;

std::string Repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

// The root holds "good", the directory beside it "outside", an adapter as good.
class PathTricksTest : public testing::Test {
 protected:
  PathTricksTest()
      : folder_(fs::path(testing::TempDir()) / ("tricks-" + std::to_string(::getpid()))),
        root_(folder_ / "store") {
    WriteGoodAdapter(root_ / "good");
    WriteGoodAdapter(root_ / "served");
    WriteGoodAdapter(folder_ / "outside");
    WriteGoodAdapter(folder_ / "root-of-another");
    fs::create_directory_symlink(folder_ / "outside", root_ / "link");
    fs::create_directory_symlink("../outside", root_ / "relative-link");
    fs::create_directory_symlink("/", root_ / "slash");
    fs::create_directory_symlink("/proc/self/root", root_ / "proc-root");
    fs::create_directory_symlink("good", root_ / "inner-link");
    fs::create_directory_symlink("loop", root_ / "loop");
    fs::create_directory_symlink("pong", root_ / "ping");
    fs::create_directory_symlink("ping", root_ / "pong");
    fs::create_symlink("/dev/zero", root_ / "device");
    fs::create_directory(root_ / "parts");
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
      fs::create_symlink(folder_ / "outside" / name, root_ / "parts" / name);
    }
    ::mkfifo((root_ / "pipe").c_str(), 0600);
    server_ = std::make_unique<ServerProcess>(std::vector<std::string>{
        "--model", std::string(POLYAD_SOURCE_DIR) + "/tests/golden/models/llama", "--dtype=f32",
        "--kv-mib=8", "--log-level=error", "--adapter-root", root_.string(), "--adapter",
        "served=" + (root_ / "served").string()});
    EXPECT_FALSE(server_->ready_line().empty());
    admin_ = v1::AdapterAdminService::NewStub(
        grpc::CreateChannel(server_->Address("admin"), grpc::InsecureChannelCredentials()));
  }
  ~PathTricksTest() override {
    server_.reset();
    fs::remove_all(folder_);
  }

  grpc::Status Load(const std::string& name, const std::string& uri,
                    std::string* digest = nullptr) {
    v1::LoadAdapterRequest request;
    request.set_name(name);
    request.set_uri(uri);
    request.set_replace(true);
    grpc::ClientContext context;
    const auto reader = admin_->LoadAdapter(&context, request);
    for (v1::LoadAdapterResponse response; reader->Read(&response);) {
      if (digest != nullptr) *digest = response.report().digest();
    }
    return reader->Finish();
  }
  void ExpectRefused(const grpc::Status& status, const std::string& what) {
    const grpc::StatusCode code = status.error_code();
    EXPECT_TRUE(code == grpc::StatusCode::INVALID_ARGUMENT || code == grpc::StatusCode::NOT_FOUND ||
                code == grpc::StatusCode::FAILED_PRECONDITION)
        << what << ": " << code << " " << status.error_message();
    // What the caller said is quoted; where the server's own folders are is not.
    if (what.find(folder_.string()) == std::string::npos) {
      EXPECT_EQ(status.error_message().find(folder_.string()), std::string::npos)
          << status.error_message();
    }
  }

  // Made of where to go and how to write it.
  std::set<std::string> Uris() const {
    std::set<std::string> uris;
    const auto add = [&uris](const std::string& uri) {
      uris.insert(uri);
      uris.insert("file://" + uri);
    };
    const std::string above = folder_.string();
    for (const char* target : {"outside", "root-of-another", "store/good"}) {
      for (const std::string up :
           {"..", "./..", "good/../..", ".././", "../store/..", "good/./../.."}) {
        add(up + "/" + target);
      }
      for (const char* link :
           {"link", "relative-link", "slash", "proc-root", "inner-link", "loop", "ping"}) {
        add(std::string(link) + "/../" + target);
      }
      add(above + "/" + target + "/../outside");
    }
    add(above + "/outside");
    add(above + "/root-of-another");
    add(above + "/store/../outside");
    add(above + "/store/link");
    add(above + "/storeX");
    for (int depth = 1; depth <= 12; ++depth) {
      add(Repeat("../", depth) + "etc/passwd");
      add("/" + Repeat("../", depth) + "etc");
    }
    for (const char* encoded : {"%2e%2e/",        "%2e%2e%2f",      "..%2f",
                                "%2e./",          "..%5c",          "%252e%252e%252f",
                                "..\\",           "..\\/",          "..;/",
                                ".. /",           "... /",          "....//",
                                "..\t/",          "..%00/",         "..%c0%af",
                                "..\xc0\xaf",     "..\xe2\x88\x95", "\xef\xbc\x8e\xef\xbc\x8e/",
                                "..\xef\xbc\x8f", "%uff0e%uff0e/"}) {
      add(std::string(encoded) + "outside");
      add(std::string("good/") + encoded + encoded + "outside");
    }
    for (const char* link : {"link", "relative-link", "slash", "proc-root", "inner-link", "loop",
                             "ping", "parts", "pipe", "device"}) {
      add(link);
      add(std::string(link) + "/");
    }
    add("slash" + above + "/outside");
    add("proc-root" + above + "/outside");
    for (const char* absolute :
         {"/", "//", "/etc", "//etc/passwd", "/etc/passwd", "/dev/zero", "/dev/stdin", "/dev/fd/0",
          "/proc/self/root", "/proc/self/cwd", "/proc/self/fd/0", "/proc/self/environ",
          "/proc/1/root", "/sys/kernel", "/tmp", "/home"}) {
      add(absolute);
    }
    for (const char* scheme : {"http://127.0.0.1/a",
                               "https://example.invalid/a",
                               "ftp://example.invalid/a",
                               "s3://bucket/a",
                               "gs://bucket/a",
                               "hf://owner/a",
                               "data://text/plain,a",
                               "ssh://host/a",
                               "FILE:///etc",
                               "File:///etc",
                               "file:/etc",
                               "file://localhost/etc",
                               "file:////etc",
                               "file://../outside",
                               "file://good",
                               "file://",
                               "unix:///run/socket",
                               "zip://a!b",
                               "jar:file:///a!/b",
                               "://good",
                               "a://"}) {
      uris.insert(scheme);
    }
    for (const char* shell :
         {"~",      "~/good", "~root", "$HOME", "${HOME}/good", "`id`",  "$(id)",
          "; id",   "| id",   "&& id", "*",     "g*",           "g?od",  "[g]ood",
          "{good}", "good;",  "good|", "%s%n",  "-rf",          "--help"}) {
      uris.insert(shell);
    }
    for (const std::string& odd : {std::string("good\0", 5),
                                   std::string("good\0/../../outside", 19),
                                   std::string("\0", 1),
                                   std::string("good\n"),
                                   std::string(" good"),
                                   std::string("good "),
                                   std::string("Good"),
                                   std::string("\xff\xfe"),
                                   std::string(1, '\x7f'),
                                   std::string("\x1b[31m"),
                                   std::string(300, 'a'),
                                   std::string(4096, 'a'),
                                   std::string(4097, 'a'),
                                   std::string(1 << 20, '/'),
                                   Repeat("a/", 2000),
                                   Repeat("./", 2040) + "../outside",
                                   std::string("good/adapter_model.safetensors"),
                                   std::string("good/adapter_config.json/.."),
                                   std::string("good/absent"),
                                   std::string("absent"),
                                   std::string("..."),
                                   std::string(".."),
                                   std::string("")}) {
      uris.insert(odd);
    }
    return uris;
  }

  const fs::path folder_;
  const fs::path root_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<v1::AdapterAdminService::Stub> admin_;
};

TEST_F(PathTricksTest, NoPathLeadsOutOfTheRoot) {
  StreamsBeside streams(*server_, "served");
  const std::set<std::string> uris = Uris();
  for (const std::string& uri : uris) ExpectRefused(Load("trick", uri), "uri " + uri);
  std::printf("%zu paths\n", uris.size());
  EXPECT_GE(uris.size(), kLeastTricks);
  EXPECT_TRUE(Load("trick", "good").ok()) << "and the plain one is served";
  EXPECT_TRUE(Load("trick", "file://" + (root_ / "good").string()).ok());
  streams.Stop();
}

TEST_F(PathTricksTest, NoNameIsAPath) {
  for (const std::string& name : {std::string(".."),       std::string("."),
                                  std::string("../a"),     std::string("a/b"),
                                  std::string("/a"),       std::string("a\\b"),
                                  std::string("a\0b", 3),  std::string("a\n"),
                                  std::string("a b"),      std::string(" a"),
                                  std::string("a,b"),      std::string("a@1"),
                                  std::string("a=b"),      std::string("-a"),
                                  std::string(".a"),       std::string("_a"),
                                  std::string("%2e%2e"),   std::string("\xc0\xae"),
                                  std::string("base:a"),   std::string("a:b"),
                                  std::string("\xd0\xb0"), std::string("a\xe2\x80\x8b"),
                                  std::string(129, 'a'),   std::string("")}) {
    EXPECT_EQ(Load(name, "good").error_code(), grpc::StatusCode::INVALID_ARGUMENT) << name;
  }
}

TEST_F(PathTricksTest, OverHttpItIsTheSame) {
  const std::string address = server_->Address("http");
  for (const std::string uri : {"../outside", "link", "/etc/passwd", "file:///etc", "slash/etc",
                                "..%2foutside", "good/../../outside", "parts", "pipe"}) {
    const std::string answer = Ask(
        address,
        Post("/v1/load_lora_adapter", R"({"lora_name": "trick", "lora_path": ")" + uri + "\"}"));
    EXPECT_GE(StatusOf(answer), 400) << uri << answer;
    EXPECT_LT(StatusOf(answer), 500) << uri << answer;
    EXPECT_EQ(answer.find(folder_.string()), std::string::npos) << answer;
  }
}

// A directory that is good when looked at and a link when opened.
TEST_F(PathTricksTest, ASwapForALinkIsNeverFollowed) {
  std::string good;
  ASSERT_TRUE(Load("swap", "good", &good).ok());
  fs::path away = folder_ / "outside" / "adapter_config.json";
  fs::resize_file(away, fs::file_size(away) - 1);  // which tells it from the good one
  std::ofstream(away, std::ios::app) << ", \"x\": 1}";
  WriteGoodAdapter(root_ / "kept");
  std::atomic<bool> done{false};
  std::thread swapper([&] {
    while (!done) {
      std::error_code ignored;
      fs::rename(root_ / "kept", root_ / "race", ignored);
      fs::rename(root_ / "race", root_ / "kept", ignored);
      fs::create_directory_symlink(folder_ / "outside", root_ / "race", ignored);
      fs::remove(root_ / "race", ignored);
    }
  });
  int loaded = 0;
  for (int i = 0; i < kSwaps; ++i) {
    std::string digest;
    const grpc::Status status = Load("swap", "race", &digest);
    if (status.ok()) {
      ++loaded;
      EXPECT_EQ(digest, good);
    } else {
      ExpectRefused(status, "swap");
    }
  }
  done = true;
  swapper.join();
  std::printf("%d of %d loads found the directory\n", loaded, kSwaps);
}

}  // namespace
}  // namespace polyad
