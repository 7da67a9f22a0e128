#include "engine/io/file.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/api/give_way.h"
#include "tests/engine/io/file_builders.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(FileTest, ReadsRanges) {
  const TemporaryDirectory directory;
  const auto file = RandomAccessFile::Open(directory.Write("a", "0123456789"));
  ASSERT_TRUE(file.ok()) << file.status();
  char bytes[4] = {};
  ASSERT_TRUE(file->ReadAt(3, bytes, 4).ok());
  EXPECT_EQ(std::string(bytes, 4), "3456");
  EXPECT_TRUE(file->ReadAt(10, bytes, 0).ok());
}

TEST(FileTest, RefusesRangesOutsideTheFile) {
  const TemporaryDirectory directory;
  const std::string path = directory.Write("a", "0123456789");
  const auto on_disk = RandomAccessFile::Open(path);
  ASSERT_TRUE(on_disk.ok());
  const RandomAccessFile in_memory = RandomAccessFile::FromBytes("0123456789", "a");
  char bytes[16];
  for (const RandomAccessFile* file : {&*on_disk, &in_memory}) {
    EXPECT_FALSE(file->ReadAt(8, bytes, 3).ok());
    EXPECT_FALSE(file->ReadAt(11, bytes, 0).ok());
    EXPECT_FALSE(file->ReadAt(-1, bytes, 1).ok());
    EXPECT_FALSE(file->ReadAt(0, bytes, -1).ok());
    EXPECT_FALSE(file->ReadAt(INT64_MAX, bytes, 2).ok());
  }
}

TEST(FileTest, RefusesWhatIsNoRegularFile) {
  const TemporaryDirectory directory;
  const std::string fifo = directory.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  for (const std::string& path : {fifo, directory.path(), std::string("/dev/null")}) {
    const auto file = RandomAccessFile::Open(path);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << path;
  }
  EXPECT_EQ(RandomAccessFile::Open(directory.path() + "/absent").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(RandomAccessFile::Open(std::string("a\0b", 3)).ok());
}

TEST(FileTest, MessagesHoldNoDirectories) {
  const TemporaryDirectory directory;
  const auto file = RandomAccessFile::Open(directory.path() + "/absent");
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("'absent'"));
  EXPECT_THAT(std::string(file.status().message()), Not(HasSubstr(directory.path())));
}

TEST(FileTest, ReadFileLimitedHoldsItsLimit) {
  const TemporaryDirectory directory;
  const std::string path = directory.Write("a", "0123456789");
  EXPECT_EQ(*ReadFileLimited(path, 10), "0123456789");
  EXPECT_EQ(ReadFileLimited(path, 9).status().code(), absl::StatusCode::kResourceExhausted);
  std::filesystem::resize_file(path, uintmax_t{1} << 40);
  EXPECT_EQ(ReadFileLimited(path, 1 << 20).status().code(), absl::StatusCode::kResourceExhausted);
}

// A worker that runs and lends nothing keeps whoever gives way waiting: each wait is a switch to
// another thread, and a read alone makes none.
TEST(FileTest, ALongReadGivesWayBetweenItsPieces) {
  const std::string path = ::testing::TempDir() + "/pieces-" + std::to_string(::getpid());
  { std::ofstream made(path); }
  ASSERT_EQ(::truncate(path.c_str(), 16 << 20), 0);
  const auto file = RandomAccessFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  rusage before = {};
  rusage after = {};
  BeginRuns();
  getrusage(RUSAGE_THREAD, &before);
  const auto bytes = file->ReadBytes(5, (16 << 20) - 5);
  getrusage(RUSAGE_THREAD, &after);
  EndRuns();
  ::unlink(path.c_str());
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(bytes->size(), (16 << 20) - 5);
  EXPECT_GE(after.ru_nvcsw - before.ru_nvcsw, 4);
}

TEST(OwnedBytesTest, AreAlignedAndAsManyAsAsked) {
  const auto bytes = OwnedBytes::Allocate(100);
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes->data()) % 64, 0u);
  EXPECT_EQ(bytes->size(), 100);
  EXPECT_TRUE(OwnedBytes::Allocate(0).ok());
  EXPECT_FALSE(OwnedBytes::Allocate(-1).ok());
  EXPECT_FALSE(OwnedBytes::Allocate(INT64_MAX).ok());
}

class BeneathTest : public ::testing::Test {
 protected:
  void SetUp() override {
    outside_.Write("secret/config.json", "secret");
    root_.Write("tenant/one/config.json", "{}");
    std::filesystem::create_directory_symlink(outside_.path(), root_.path() + "/link");
    std::filesystem::create_directory_symlink(root_.path() + "/tenant", root_.path() + "/inner");
    std::filesystem::create_symlink(outside_.path() + "/secret/config.json",
                                    root_.path() + "/tenant/one/stolen.json");
    std::filesystem::create_symlink("loop", root_.path() + "/loop");
  }
  TemporaryDirectory outside_;
  TemporaryDirectory root_;
};

TEST_F(BeneathTest, OpensWhatLiesBeneath) {
  for (const std::string& path :
       {std::string("tenant/one"), std::string("tenant/one/"), root_.path() + "/tenant/one"}) {
    const auto directory = Directory::OpenBeneath(root_.path(), path);
    ASSERT_TRUE(directory.ok()) << path << directory.status();
    EXPECT_TRUE(directory->Contains("config.json"));
    EXPECT_FALSE(directory->Contains("absent.json"));
    const auto file = directory->OpenFile("config.json");
    ASSERT_TRUE(file.ok());
    EXPECT_EQ(*file->ReadAll(100), "{}");
  }
  EXPECT_EQ(*ResolveBeneath(root_.path(), "tenant/one"), root_.path() + "/tenant/one");
}

TEST_F(BeneathTest, RefusesToLeaveTheRoot) {
  const std::vector<std::string> paths = {
      "",
      "/",
      ".",
      "..",
      "../",
      "tenant/../..",
      "tenant/../tenant/one",
      "./tenant",
      "tenant//one",
      "tenant/./one",
      "/etc",
      "/proc/self/root",
      outside_.path() + "/secret",
      root_.path(),
      root_.path() + "/",
      root_.path() + "/../x",
      root_.path() + "x/tenant",
      "link",
      "link/secret",
      "inner/one",
      "loop",
      "tenant/one/stolen.json",
      std::string("tenant\0/one", 11),
      std::string("tenant/one\0", 11),
      std::string(5000, 'a'),
      std::string(300, 'a'),
      "absent",
      "tenant/one/config.json",
  };
  for (const std::string& path : paths) {
    EXPECT_FALSE(Directory::OpenBeneath(root_.path(), path).ok()) << path;
    EXPECT_FALSE(ResolveBeneath(root_.path(), path).ok()) << path;
  }
}

TEST_F(BeneathTest, FilesInItAreNotLinksOrPaths) {
  const auto directory = Directory::OpenBeneath(root_.path(), "tenant/one");
  ASSERT_TRUE(directory.ok());
  for (const std::string name : {"stolen.json", "../one/config.json", "..", ".", "", "a/b", "/x"}) {
    EXPECT_FALSE(directory->OpenFile(name).ok()) << name;
  }
  ASSERT_EQ(mkfifo((root_.path() + "/tenant/one/fifo").c_str(), 0600), 0);
  EXPECT_FALSE(directory->OpenFile("fifo").ok());
}

TEST_F(BeneathTest, AnOpenDirectorySurvivesASwapForALink) {
  const auto directory = Directory::OpenBeneath(root_.path(), "tenant/one");
  ASSERT_TRUE(directory.ok());
  std::filesystem::rename(root_.path() + "/tenant/one", root_.path() + "/tenant/two");
  std::filesystem::create_directory_symlink(outside_.path() + "/secret",
                                            root_.path() + "/tenant/one");
  const auto file = directory->OpenFile("config.json");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(*file->ReadAll(100), "{}");
}

}  // namespace
}  // namespace polyad
