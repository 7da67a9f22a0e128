#include "server/registry_journal.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace polyad {
namespace {

namespace fs = std::filesystem;
using state::v1::Record;

Record Loaded(const std::string& name, int64_t version, bool pinned = false) {
  Record record;
  record.mutable_loaded()->mutable_report()->set_name(name);
  record.mutable_loaded()->mutable_report()->set_version(version);
  record.mutable_loaded()->set_folder(std::to_string(version));
  record.mutable_loaded()->set_pinned(pinned);
  return record;
}

Record Unloaded(const std::string& name, int64_t version) {
  Record record;
  record.mutable_unloaded()->set_name(name);
  record.mutable_unloaded()->set_version(version);
  return record;
}

Record Alias(const std::string& alias, const std::string& target) {
  Record record;
  record.mutable_alias()->set_alias(alias);
  record.mutable_alias()->set_target(target);
  return record;
}

Record Pinned(const std::string& name, bool pinned) {
  Record record;
  record.mutable_pinned()->set_name(name);
  record.mutable_pinned()->set_pinned(pinned);
  return record;
}

Record Beside(const std::string& name, int64_t version, bool serves, double share) {
  Record record;
  *record.mutable_beside()->mutable_loaded() = Loaded(name, version).loaded();
  record.mutable_beside()->set_serves(serves);
  record.mutable_beside()->set_share(share);
  return record;
}

Record Traffic(const std::string& name, int64_t version, double share) {
  Record record;
  record.mutable_traffic()->set_name(name);
  record.mutable_traffic()->set_version(version);
  record.mutable_traffic()->set_share(share);
  return record;
}

Record UnloadedVersion(const std::string& name, int64_t version) {
  Record record;
  record.mutable_unloaded_version()->set_name(name);
  record.mutable_unloaded_version()->set_version(version);
  return record;
}

// Every kind of record, and every kind of one that undoes another.
std::vector<Record> History() {
  return {Loaded("a", 1), Loaded("b", 1), Alias("x", "a"), Pinned("a", true), Loaded("a", 2, true),
          Alias("y", "b"), Unloaded("b", 1), Alias("x", ""), Alias("z", "a"), Loaded("b", 2),
          Unloaded("b", 2), Pinned("a", false),
          // Two versions and more, of which each serves in turn.
          Beside("a", 3, false, 0.25), Traffic("a", 3, 0.5), Traffic("a", 3, 1),
          Beside("a", 4, true, 0), Traffic("a", 2, 1), Traffic("a", 3, 0.125),
          UnloadedVersion("a", 4), Loaded("c", 1), Beside("c", 2, false, 0.5), Traffic("c", 1, 1),
          Traffic("c", 2, 0.5), UnloadedVersion("c", 2), Loaded("d", 1), Beside("d", 2, true, 0),
          Unloaded("d", 2)};
}

std::string TextOf(const RegistryState& state) {
  std::string text;
  for (const auto& [name, adapter] : state.adapters) {
    text += name + "@" + std::to_string(adapter.report().version()) + " in " + adapter.folder() +
            (adapter.pinned() ? " pinned; " : "; ");
  }
  for (const auto& [key, adapter] : state.kept) {
    text += key + " kept in " + adapter.folder() + "; ";
    EXPECT_EQ(key, adapter.report().name() + "@" + std::to_string(adapter.report().version()));
  }
  for (const auto& [name, split] : state.splits) {
    text +=
        name + ": " + std::to_string(split.share) + " to " + std::to_string(split.version) + "; ";
  }
  for (const auto& [alias, target] : state.aliases) text += alias + "->" + target + "; ";
  return text;
}

std::string TextAfter(const std::vector<Record>& history, size_t count) {
  RegistryState state;
  for (size_t i = 0; i < count; ++i) state.Apply(history[i]);
  return TextOf(state);
}

class RegistryJournalTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / ("journal-" + std::to_string(::getpid()));
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  StatusOr<RegistryJournal> Open(const std::string& model = "base") const {
    return RegistryJournal::Open(root_.string(), model);
  }
  std::string Read() const {
    std::ifstream file(root_ / "registry.journal", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Write(const std::string& bytes) const {
    std::ofstream(root_ / "registry.journal", std::ios::binary) << bytes;
  }
  int NumDamaged() const {
    int count = 0;
    for (const auto& entry : fs::directory_iterator(root_)) {
      count += entry.path().filename().string().starts_with("registry.damaged.") ? 1 : 0;
    }
    return count;
  }
  fs::path root_;
};

TEST_F(RegistryJournalTest, WhatWasAppendedIsThereAgain) {
  const std::vector<Record> history = History();
  {
    auto journal = Open();
    ASSERT_TRUE(journal.ok()) << journal.status();
    for (const Record& record : history) ASSERT_TRUE(journal->Append(record).ok());
  }
  for (int start = 0; start < 3; ++start) {  // and again after it was written anew
    const auto journal = Open();
    ASSERT_TRUE(journal.ok()) << journal.status();
    EXPECT_EQ(TextOf(journal->state()), TextAfter(history, history.size()));
    EXPECT_EQ(journal->state().last_version.at("b"), 2);
    EXPECT_EQ(journal->state().last_kept.at("a"), 4);
  }
}

// Power may fail at any byte: what was on disk counts record by record, the rest never was.
TEST_F(RegistryJournalTest, EveryCutGivesTheRecordsBeforeIt) {
  const std::vector<Record> history = History();
  Record base;
  base.mutable_base()->set_model("base");
  std::string bytes = FrameOf(base);
  std::vector<size_t> ends = {bytes.size()};
  for (const Record& record : history) {
    bytes += FrameOf(record);
    ends.push_back(bytes.size());
  }
  size_t whole = 0;
  for (size_t cut = ends[0]; cut <= bytes.size(); ++cut) {
    while (whole < history.size() && ends[whole + 1] <= cut) ++whole;
    Write(bytes.substr(0, cut));
    const auto journal = Open();
    ASSERT_TRUE(journal.ok()) << journal.status();
    ASSERT_EQ(TextOf(journal->state()), TextAfter(history, whole)) << "cut at " << cut;
  }
  EXPECT_EQ(NumDamaged(), 0);
}

TEST_F(RegistryJournalTest, ADamagedMiddleIsKeptAsideAndTheRestServes) {
  const std::vector<Record> history = History();
  Record base;
  base.mutable_base()->set_model("base");
  const std::string begin = FrameOf(base) + FrameOf(history[0]);
  const std::string damaged = FrameOf(history[1]);
  std::string rest;
  for (size_t i = 2; i < history.size(); ++i) rest += FrameOf(history[i]);
  std::vector<Record> left = history;
  left.erase(left.begin() + 1);
  int num_damaged = 0;
  for (size_t at = 0; at < damaged.size(); ++at) {
    std::string spoiled = damaged;
    spoiled[at] = static_cast<char>(spoiled[at] ^ 0x20);
    Write(begin + spoiled + rest);
    {
      const auto journal = Open();
      ASSERT_TRUE(journal.ok()) << journal.status();
      ASSERT_EQ(TextOf(journal->state()), TextAfter(left, left.size())) << "byte " << at;
    }
    ASSERT_EQ(NumDamaged(), ++num_damaged);
    ASSERT_TRUE(Open().ok());  // and it is mended by then
    ASSERT_EQ(NumDamaged(), num_damaged);
  }
}

TEST_F(RegistryJournalTest, LoadsAndUnloadsMayBeRecordedInEitherOrder) {
  RegistryState state;
  state.Apply(Loaded("a", 3));
  state.Apply(Loaded("a", 2));
  EXPECT_EQ(TextOf(state), "a@3 in 3; ");
  state.Apply(Unloaded("a", 2));
  EXPECT_EQ(TextOf(state), "a@3 in 3; ");
  state.Apply(Unloaded("a", 5));
  state.Apply(Loaded("a", 5));
  state.Apply(Loaded("a", 4));
  EXPECT_EQ(TextOf(state), "");
  state.Apply(Loaded("a", 6));
  EXPECT_EQ(TextOf(state), "a@6 in 6; ");
}

TEST_F(RegistryJournalTest, WhatItCannotBeIsRefused) {
  ASSERT_TRUE(Open().ok());
  const auto another = Open("another");
  EXPECT_EQ(another.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(another.status().message().find("another"), std::string::npos) << another.status();

  Record later;
  later.GetReflection()->MutableUnknownFields(&later)->AddVarint(77, 1);
  Write(Read() + FrameOf(later));
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kFailedPrecondition);

  Write("not a registry");
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Read(), "not a registry");
}

TEST_F(RegistryJournalTest, OneProcessHasIt) {
  const auto journal = Open();
  ASSERT_TRUE(journal.ok()) << journal.status();
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(RegistryJournalTest, ItIsWrittenAnewBeforeItGrowsWithoutEnd) {
  auto journal = Open();
  ASSERT_TRUE(journal.ok()) << journal.status();
  Record record = Loaded("a", 1);
  record.mutable_loaded()->set_folder(std::string(size_t{1} << 19, 'f'));
  for (int64_t version = 1; version <= 64; ++version) {  // 32 MiB of records, half a MiB of state
    record.mutable_loaded()->mutable_report()->set_version(version);
    ASSERT_TRUE(journal->Append(record).ok());
  }
  EXPECT_LT(fs::file_size(root_ / "registry.journal"), 9u << 20);
  EXPECT_EQ(journal->state().adapters.at("a").report().version(), 64);
  record.mutable_loaded()->set_folder(std::string(size_t{2} << 20, 'f'));
  EXPECT_EQ(journal->Append(record).code(), absl::StatusCode::kResourceExhausted);
}

// A version that the journal never had is one of the start-up's own, which loads it again.
TEST(RegistryStateTest, GoingBackToTheStartUpsOwnIsNotForgotten) {
  RegistryState state;
  state.Apply(Beside("a", 2, true, 0));  // version 1 is not in the journal
  EXPECT_EQ(TextOf(state), "a@2 in 2; ");
  state.Apply(Traffic("a", 1, 1));
  EXPECT_EQ(TextOf(state), "a@2 kept in 2; ");
  EXPECT_EQ(state.FoldersOf("a"), std::set<std::string>{"2"});
  state.Apply(Traffic("a", 2, 1));
  EXPECT_EQ(TextOf(state), "a@2 in 2; ");
}

TEST(RegistryStateTest, FoldersAreTheNamesOwn) {
  RegistryState state;
  for (const char* name : {"a", "a-b", "a.b", "aa"}) {
    state.Apply(Loaded(name, 1));
    state.Apply(Beside(name, 2, false, 0));
  }
  state.Apply(UnloadedVersion("a", 2));
  EXPECT_EQ(state.FoldersOf("a"), std::set<std::string>{"1"});
  state.Apply(Unloaded("a", 2));
  EXPECT_TRUE(state.FoldersOf("a").empty());
  for (const char* name : {"a-b", "a.b", "aa"}) EXPECT_EQ(state.FoldersOf(name).size(), 2u) << name;
}

}  // namespace
}  // namespace polyad
