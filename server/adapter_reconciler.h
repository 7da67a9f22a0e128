#pragma once

// Makes the registry what the file of --adapters-from declares, at the start and whenever the file
// changes (a ConfigMap's `..data` link included) or somebody changes what it declares. One thread
// reads the file and compares; loads run on `serving.loaders`, as the admin port's do, through the
// same quotas. The file owns the names it declares: it loads, replaces, pins, aliases and, once
// they are gone from it, unloads them; others it leaves alone, but for those it says are absent.
// What fails is tried again after 1 s, then twice as long each time up to a minute, and at once
// when the file changes. A file that cannot be read or is not valid changes nothing.
// With a state directory it remembers what it owns (declared.json), so that what leaves the file
// while no server runs is unloaded by the next.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/adapters/adapter_store.h"
#include "engine/base/status.h"
#include "server/adapters_file.h"
#include "server/file_stamp.h"
#include "server/reconcile_status.h"

namespace polyad {

struct Serving;

// The file as ParseAdaptersFile takes it, with each request decoded once to check its ranges.
StatusOr<AdaptersFile> LoadAdaptersFile(const std::string& path);

class AdapterReconciler {
 public:
  struct Options {
    std::string path;
    std::string state_dir;  // empty: what it owns ends with the process
    int64_t poll_ms = 250;
    // Between two comparisons for the registry's sake, which changes all the time where adapters
    // are swapped in and out.
    int64_t min_pass_ms = 1000;
    int64_t first_retry_ms = 1000;
    int64_t last_retry_ms = 60'000;
  };
  // `file` has been read from the path. `serving` outlives this and does not close its loaders.
  AdapterReconciler(Serving& serving, Options options, AdaptersFile file);
  ~AdapterReconciler();  // waits for loads under way

  // Whether everything declared at the start has been tried.
  bool has_tried_all() const;
  ReconcileCounts counts() const;
  // At most kMaxShown, by name.
  static constexpr size_t kMaxShown = 64;
  std::vector<ReconcileFailure> failures() const;

 private:
  // A name that the file owns.
  struct Owned {
    std::string digest;                // of what was loaded
    int64_t version = 0;               // that came of it; 0: none yet
    std::vector<std::string> aliases;  // that were set
    bool in_place = false;
    int64_t tries = 0;  // since the last success
    int64_t next_try_ms = 0;
    std::string error;
  };
  using Present = std::map<std::string, AdapterInfo, std::less<>>;

  void Run();
  void ReadFileIfChanged();
  void Pass();
  void Adopt(const Present& present);
  void RemoveAliases(const Present& present);
  void RemoveUndeclared(const Present& present);
  int64_t LoadMissing(const Present& present);
  void Submit(const DeclaredAdapter& adapter);
  void LoadOne(const DeclaredAdapter& adapter);
  void Settle(const DeclaredAdapter& adapter, const Present& present);
  Status SettleOne(const DeclaredAdapter& adapter, const AdapterInfo& info);
  bool IsDue(const std::string& name) const;
  void Note(const std::string& name, const Status& status);
  bool AnyDue() const;
  Present Now() const;
  void ReadOwned();
  void WriteOwned();

  Serving& serving_;
  const Options options_;
  AdaptersFile file_;                                    // the thread's, as are these
  std::map<std::string, size_t, std::less<>> declared_;  // index in file_.adapters, by name
  FileStamp stamp_;
  int64_t seen_change_ = -1;
  std::string written_;  // of declared.json

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool stop_ = false;
  bool has_tried_all_ = false;
  int64_t num_loading_ = 0;
  std::map<std::string, Owned, std::less<>> owned_;
  ReconcileCounts counts_;
  std::thread thread_;
};

}  // namespace polyad
