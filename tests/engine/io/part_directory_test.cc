#include "engine/io/part_directory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace polyad {
namespace {

namespace fs = std::filesystem;

class PartDirectoryTest : public ::testing::Test {
 protected:
  PartDirectoryTest() : root_(fs::path(testing::TempDir()) / "polyad_part_directory") {
    fs::remove_all(root_);
  }
  ~PartDirectoryTest() override { fs::remove_all(root_); }
  std::string Name() const { return (root_ / "deep" / "out").string(); }

  const fs::path root_;
};

TEST_F(PartDirectoryTest, HasItsNameOnceItIsFinished) {
  {
    PartDirectory directory(Name() + "/");
    ASSERT_TRUE(directory.Make().ok());
    std::ofstream(directory.path() + "/file") << "content";
    EXPECT_FALSE(fs::exists(Name()));
    ASSERT_TRUE(directory.Finish().ok());
    EXPECT_EQ(directory.path(), Name());
  }
  EXPECT_TRUE(fs::exists(Name() + "/file"));
  EXPECT_FALSE(fs::exists(Name() + ".part"));
}

TEST_F(PartDirectoryTest, LeavesNothingWhereItIsNot) {
  {
    PartDirectory directory(Name());
    ASSERT_TRUE(directory.Make().ok());
    std::ofstream(directory.path() + "/file") << "content";
  }
  EXPECT_FALSE(fs::exists(Name()));
  EXPECT_FALSE(fs::exists(Name() + ".part"));
}

TEST_F(PartDirectoryTest, RefusesWhatIsThere) {
  fs::create_directories(Name());
  PartDirectory taken(Name());
  EXPECT_TRUE(absl::IsInvalidArgument(taken.Make()));
  fs::remove(Name());
  fs::create_directories(Name() + ".part");
  std::ofstream(Name() + ".part/of_a_crash") << "content";
  {
    PartDirectory left(Name());
    const Status status = left.Make();
    EXPECT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_NE(status.message().find("out.part"), std::string_view::npos);
  }
  EXPECT_TRUE(fs::exists(Name() + ".part/of_a_crash")) << "not ours to remove";
  EXPECT_TRUE(absl::IsInvalidArgument(PartDirectory("").CheckFree()));
}

}  // namespace
}  // namespace polyad
