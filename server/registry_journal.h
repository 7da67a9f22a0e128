#pragma once

// The registry of adapters on disk: STATE/registry.journal, one framed record for each change that
// was acknowledged, in order. Append returns once the record is on disk. Opening replays the file
// and writes it anew where it holds much that is out of date. What cannot be read is never
// forgotten in silence: a torn end, which was not acknowledged, is cut off and logged; damaged
// bytes with records behind them go to STATE/registry.damaged.N, are logged, and the rest is
// served.
//
// A frame: "PLRJ", the payload's length (4 bytes, little endian), the first 8 bytes of its SHA-256,
// and the payload, a state.v1.Record. One thread at a time.
// Errors: those of durable_file.h, and FAILED_PRECONDITION where the file is another model's or a
// later polyad's.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/adapters/adapter_traffic.h"
#include "engine/base/status.h"
#include "engine/io/durable_file.h"
#include "polyad/state/v1/registry.pb.h"

namespace polyad {

// What the records amount to.
struct RegistryState {
  std::map<std::string, state::v1::Loaded, std::less<>> adapters;  // that serve, by name
  std::map<std::string, state::v1::Loaded, std::less<>> kept;      // beside those, by KeptKey
  std::map<std::string, TrafficSplit, std::less<>> splits;         // by name
  std::map<std::string, std::string, std::less<>> aliases;         // to adapters' names
  std::map<std::string, int64_t, std::less<>> last_version;        // of names unloaded since
  std::map<std::string, int64_t, std::less<>> last_kept;           // of kept versions unloaded

  // Loads and unloads may be replayed in either order: versions say which came last.
  void Apply(const state::v1::Record& record);
  // Of the versions of `name`, in the vault.
  std::set<std::string> FoldersOf(std::string_view name) const;

 private:
  void ApplyLoaded(const state::v1::Loaded& loaded);
  void ApplyBeside(const state::v1::LoadedBeside& beside);
  void ApplyUnloaded(const state::v1::Unloaded& unloaded);
  void ApplyUnloadedVersion(const state::v1::UnloadedVersion& unloaded);
  void ApplyTraffic(const state::v1::Traffic& traffic);
  void KeepServing(const std::string& name);
};

// Frames of `bytes` that are whole, what lies between them, and where the last one ends.
struct FramedRecords {
  std::vector<state::v1::Record> records;
  std::vector<std::string> damaged;
  int64_t end = 0;
};
FramedRecords ReadFrames(std::string_view bytes);
std::string FrameOf(const state::v1::Record& record);

class RegistryJournal {
 public:
  static constexpr size_t kMaxRecordBytes = size_t{1} << 20;
  static constexpr int64_t kMaxBytes = int64_t{1} << 30;

  // `model` is the base model's name, `directory` there already.
  static StatusOr<RegistryJournal> Open(const std::string& directory, const std::string& model);

  const RegistryState& state() const { return state_; }
  // On an error the file is as it was, or is written anew by the next call.
  Status Append(const state::v1::Record& record);

 private:
  RegistryJournal(std::string directory, std::string model, AppendFile lock)
      : directory_(std::move(directory)), model_(std::move(model)), lock_(std::move(lock)) {}
  std::string path() const;
  Status Replay(std::string_view bytes);
  Status KeepDamaged(const std::vector<std::string>& damaged) const;
  Status WriteAnew();

  std::string directory_;
  std::string model_;
  AppendFile lock_;
  std::optional<AppendFile> file_;  // none after it could not be opened again
  RegistryState state_;
  int64_t compact_bytes_ = 0;  // of the file when it was written anew
};

}  // namespace polyad
