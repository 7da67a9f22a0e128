#include "server/adapter_vault.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace polyad {
namespace {

namespace fs = std::filesystem;

class AdapterVaultTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / ("vault-" + std::to_string(::getpid()));
    fs::create_directories(root_ / "state");
    fs::create_directories(root_ / "tenant" / "a");
    Write("adapter_config.json", 10);
    Write("adapter_model.safetensors", 100);
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& name, size_t bytes) const {
    fs::create_directories((root_ / "tenant" / "a" / name).parent_path());
    std::ofstream(root_ / "tenant" / "a" / name) << std::string(bytes, 'x');
  }
  AdapterVault Vault() const {
    auto vault = AdapterVault::Open((root_ / "state").string());
    EXPECT_TRUE(vault.ok()) << vault.status();
    return *std::move(vault);
  }
  StatusOr<std::string> Take(AdapterVault& vault, int64_t max_bytes = 1000) const {
    POLYAD_ASSIGN_OR_RETURN(const Directory from,
                            Directory::OpenBeneath((root_ / "tenant").string(), "a"));
    return vault.Take(from, max_bytes);
  }
  fs::path Kept(const std::string& folder) const { return root_ / "state" / "adapters" / folder; }

  fs::path root_;
};

TEST_F(AdapterVaultTest, WhatAServerReadsIsCopiedAndNothingElse) {
  Write("expert/0/adapter_model.safetensors", 7);
  Write("optimizer.pt", 5000);
  Write("README.md", 5000);
  Write("tokenizer.json", 5000);
  AdapterVault vault = Vault();
  const auto folder = Take(vault);
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(fs::file_size(Kept(*folder) / "adapter_model.safetensors"), 100u);
  EXPECT_EQ(fs::file_size(Kept(*folder) / "expert/0/adapter_model.safetensors"), 7u);
  EXPECT_FALSE(fs::exists(Kept(*folder) / "optimizer.pt"));
  EXPECT_FALSE(fs::exists(Kept(*folder) / "README.md"));
  EXPECT_FALSE(fs::exists(Kept(*folder) / "tokenizer.json"));
}

TEST_F(AdapterVaultTest, LinksAndExcessAreRefusedAndLeaveNothing) {
  AdapterVault vault = Vault();
  EXPECT_EQ(Take(vault, 109).status().code(), absl::StatusCode::kResourceExhausted);
  Write("1/2/3/4/5/x.json", 1);
  EXPECT_EQ(Take(vault).status().code(), absl::StatusCode::kResourceExhausted);
  fs::remove_all(root_ / "tenant" / "a" / "1");
  fs::create_symlink("/etc/passwd", root_ / "tenant" / "a" / "config.json");
  EXPECT_FALSE(Take(vault).ok());
  EXPECT_TRUE(fs::is_empty(root_ / "state" / "adapters"));
}

TEST_F(AdapterVaultTest, WhatAHeaderRefusesIsNotCopied) {
  AdapterVault vault = Vault();
  constexpr int64_t kLimit = int64_t{1} << 40;
  Write("adapter_model.safetensors", 0);
  fs::resize_file(root_ / "tenant" / "a" / "adapter_model.safetensors", uintmax_t{1} << 38);
  const Status zeros = Take(vault, kLimit).status();
  EXPECT_EQ(zeros.code(), absl::StatusCode::kInvalidArgument) << zeros;
  fs::remove(root_ / "tenant" / "a" / "adapter_model.safetensors");
  fs::resize_file(root_ / "tenant" / "a" / "adapter_config.json", (1 << 20) + 1);
  const Status config = Take(vault, kLimit).status();
  EXPECT_EQ(config.code(), absl::StatusCode::kResourceExhausted) << config;
  EXPECT_NE(std::string(config.message()).find("adapter_config.json"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(root_ / "state" / "adapters"));
}

TEST_F(AdapterVaultTest, NumbersGoOnAndUnnamedFoldersGo) {
  {
    AdapterVault vault = Vault();
    EXPECT_EQ(*Take(vault), "1");
    EXPECT_EQ(*Take(vault), "2");
  }
  AdapterVault vault = Vault();
  EXPECT_EQ(*Take(vault), "3");
  EXPECT_EQ(vault.DropAllBut({"2"}), 2);
  EXPECT_TRUE(vault.Holds("2"));
  EXPECT_FALSE(vault.Holds("1"));
  EXPECT_FALSE(vault.Holds(".."));
  vault.Drop("..");
  EXPECT_TRUE(vault.Holds("2"));
}

}  // namespace
}  // namespace polyad
