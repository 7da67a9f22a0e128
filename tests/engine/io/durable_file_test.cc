#include "engine/io/durable_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "engine/io/file.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

class DurableFileTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / ("durable-" + std::to_string(::getpid()));
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string Path(const std::string& name) const { return (root_ / name).string(); }
  std::string Content(const std::string& name) const {
    return *ReadFileLimited(Path(name), 1 << 20);
  }
  fs::path root_;
};

TEST_F(DurableFileTest, AppendsGoOnWhereTheFileEnded) {
  {
    auto file = AppendFile::Open(Path("log"));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(file->Append("one").ok());
    EXPECT_TRUE(file->Append("two").ok());
    EXPECT_EQ(file->size(), 6);
  }
  auto file = AppendFile::Open(Path("log"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->size(), 6);
  EXPECT_TRUE(file->Cut(3).ok());
  EXPECT_TRUE(file->Append("three").ok());
  EXPECT_EQ(Content("log"), "onethree");
}

TEST_F(DurableFileTest, AFileIsOpenOnce) {
  const auto file = AppendFile::Open(Path("log"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(AppendFile::Open(Path("log")).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(DurableFileTest, AFullDiskTakesAllOrNothing) {
  // The kernel's own full disk: opening succeeds, every write fails.
  auto file = AppendFile::Open("/dev/full");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Append("bytes").code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(DurableFileTest, ACopyIsTheSameBytesAndZerosTakeNoRoom) {
  constexpr size_t kMiB = size_t{1} << 20;
  std::string mixed(5 * kMiB + 17, '\0');  // zeros first, amid and last
  for (size_t i = kMiB; i < 2 * kMiB; ++i) mixed[i] = static_cast<char>(i * 31);
  mixed[3 * kMiB + 5] = 'x';
  for (const std::string& bytes :
       {std::string(), std::string("short"), std::string(3, '\0'), mixed, mixed + "end"}) {
    ASSERT_TRUE(CopyToNewFile(RandomAccessFile::FromBytes(bytes, "from"), Path("to")).ok());
    const auto copied = ReadFileLimited(Path("to"), 16 << 20);
    ASSERT_TRUE(copied.ok()) << copied.status();
    EXPECT_TRUE(*copied == bytes) << bytes.size();
    EXPECT_FALSE(CopyToNewFile(RandomAccessFile::FromBytes(bytes, "from"), Path("to")).ok());
    fs::remove(Path("to"));
  }
  ASSERT_TRUE(
      CopyToNewFile(RandomAccessFile::FromBytes(std::string(64 * kMiB, '\0'), "from"), Path("to"))
          .ok());
  struct stat info = {};
  ASSERT_EQ(stat(Path("to").c_str(), &info), 0);
  EXPECT_EQ(info.st_size, static_cast<off_t>(64 * kMiB));
  EXPECT_LT(info.st_blocks * 512, static_cast<off_t>(kMiB));
}

TEST_F(DurableFileTest, ReplacingLeavesNothingElse) {
  ASSERT_TRUE(ReplaceFile(Path("state"), "old").ok());
  ASSERT_TRUE(WriteNewFile(Path("state.new"), "what a crash left").ok());
  ASSERT_TRUE(ReplaceFile(Path("state"), "new").ok());
  EXPECT_EQ(Content("state"), "new");
  EXPECT_FALSE(FileExists(Path("state.new")));
}

TEST_F(DurableFileTest, ANewFileTakesNobodysPlace) {
  ASSERT_TRUE(WriteNewFile(Path("file"), "first").ok());
  EXPECT_FALSE(WriteNewFile(Path("file"), "second").ok());
  EXPECT_EQ(Content("file"), "first");
  EXPECT_FALSE(WriteNewFile(Path("absent/file"), "x").ok());
  EXPECT_FALSE(SyncDirectory(Path("absent")).ok());
}

}  // namespace
}  // namespace polyad
