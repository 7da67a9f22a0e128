#include "server/adapter_reconciler.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/log.h"
#include "engine/io/durable_file.h"
#include "engine/io/file.h"
#include "engine/io/json.h"
#include "server/adapter_codec.h"
#include "server/field_error.h"
#include "server/serving.h"

namespace polyad {
namespace {

// Of the loaders' queue: admin calls come in between.
constexpr int64_t kMostLoading = 2;
constexpr int64_t kQueueFullMs = 50;
constexpr int64_t kMaxOwnedBytes = 16 << 20;

StatusOr<LoadAdapterSpec> SpecOf(const DeclaredAdapter& adapter) {
  POLYAD_ASSIGN_OR_RETURN(LoadAdapterSpec spec, DecodeLoadAdapter(adapter.request));
  spec.replace = true;
  return spec;
}

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

StatusOr<AdaptersFile> LoadAdaptersFile(const std::string& path) {
  POLYAD_ASSIGN_OR_RETURN(const std::string text, ReadFileLimited(path, kMaxAdaptersFileBytes));
  POLYAD_ASSIGN_OR_RETURN(AdaptersFile file, ParseAdaptersFile(text));
  for (const DeclaredAdapter& adapter : file.adapters) {
    const Status valid = DecodeLoadAdapter(adapter.request).status();
    if (!valid.ok()) return Annotate(valid, "adapter '" + adapter.request.name() + "'");
  }
  return file;
}

AdapterReconciler::AdapterReconciler(Serving& serving, Options options, AdaptersFile file)
    : serving_(serving), options_(std::move(options)) {
  ReadOwned();
  stamp_ = StampOf(options_.path);
  file_ = std::move(file);
  counts_.files_taken = 1;
  thread_ = std::thread([this] { Run(); });
}

AdapterReconciler::~AdapterReconciler() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool AdapterReconciler::has_tried_all() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return has_tried_all_;
}

ReconcileCounts AdapterReconciler::counts() const {
  std::lock_guard<std::mutex> lock(mutex_);
  ReconcileCounts counts = counts_;
  for (const auto& [name, owned] : owned_) {
    counts.in_place += owned.in_place ? 1 : 0;
    counts.failing += owned.tries > 0 ? 1 : 0;
  }
  return counts;
}

std::vector<ReconcileFailure> AdapterReconciler::failures() const {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t now_ms = serving_.clock.NowMillis();
  std::vector<ReconcileFailure> failures;
  for (const auto& [name, owned] : owned_) {
    if (owned.tries == 0) continue;
    if (failures.size() == kMaxShown) break;
    failures.push_back(
        {name, owned.error, owned.tries, std::max<int64_t>(owned.next_try_ms - now_ms, 0)});
  }
  return failures;
}

void AdapterReconciler::Run() {
  bool has_new_file = true;
  int64_t last_pass_ms = 0;
  for (;;) {
    const int64_t change = serving_.registry.WaitForChange(-1, 0);
    const int64_t now_ms = serving_.clock.NowMillis();
    if (has_new_file || AnyDue() ||
        (change != seen_change_ && now_ms - last_pass_ms >= options_.min_pass_ms)) {
      seen_change_ = change;  // before it is compared: what changes meanwhile is compared again
      last_pass_ms = now_ms;
      Pass();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(options_.poll_ms), [this] { return stop_; });
    if (stop_) return;
    lock.unlock();
    const FileStamp before = stamp_;
    ReadFileIfChanged();
    has_new_file = stamp_ != before;
  }
}

void AdapterReconciler::ReadFileIfChanged() {
  const FileStamp now = StampOf(options_.path);
  if (now == stamp_) return;
  stamp_ = now;
  StatusOr<AdaptersFile> file = LoadAdaptersFile(options_.path);
  std::lock_guard<std::mutex> lock(mutex_);
  counts_.is_stale = !file.ok();
  counts_.file_error = file.ok() ? std::string() : std::string(file.status().message());
  if (!file.ok()) {
    ++counts_.files_refused;
    Log(LogLevel::kError, "adapters_file_refused",
        {{"why", counts_.file_error}, {"effect", "what was declared before stays"}});
    return;
  }
  ++counts_.files_taken;
  file_ = *std::move(file);
  for (auto& [name, owned] : owned_) owned.next_try_ms = 0;
  Log(LogLevel::kInfo, "adapters_file_read",
      {{"adapters", static_cast<int64_t>(file_.adapters.size())},
       {"absent", static_cast<int64_t>(file_.absent.size())}});
}

AdapterReconciler::Present AdapterReconciler::Now() const {
  Present present;
  for (AdapterInfo& info : serving_.registry.List()) {
    if (info.retired || info.kept) continue;
    std::string name = info.report.name;
    present.emplace(std::move(name), std::move(info));
  }
  return present;
}

// One comparison of what is with what is to be, and what follows from it.
void AdapterReconciler::Pass() {
  declared_.clear();
  for (size_t i = 0; i < file_.adapters.size(); ++i) {
    declared_[file_.adapters[i].request.name()] = i;
  }
  const Present present = Now();
  Adopt(present);
  WriteOwned();  // before anything is loaded: what is ours is known to be after a crash
  RemoveAliases(present);
  RemoveUndeclared(present);
  const int64_t loads = LoadMissing(present);
  const Present after = loads > 0 ? Now() : present;
  for (const DeclaredAdapter& adapter : file_.adapters) Settle(adapter, after);
  WriteOwned();
  const bool is_whole = StampOf(options_.path) == stamp_;
  std::lock_guard<std::mutex> lock(mutex_);
  if (is_whole) has_tried_all_ = true;
}

void AdapterReconciler::Adopt(const Present& present) {
  std::lock_guard<std::mutex> lock(mutex_);
  counts_.declared = static_cast<int64_t>(file_.adapters.size());
  for (const auto& [name, index] : declared_) owned_.try_emplace(name);
  for (const std::string& name : file_.absent) {
    if (present.contains(name)) owned_.try_emplace(name);
  }
  for (auto& [name, owned] : owned_) owned.in_place = owned.in_place && declared_.contains(name);
}

// First of all, for an alias may be another's from now on, or an adapter's name.
void AdapterReconciler::RemoveAliases(const Present& present) {
  std::vector<std::pair<std::string, std::string>> gone;  // alias, name
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [name, owned] : owned_) {
      const auto declared = declared_.find(name);
      if (declared == declared_.end() || owned.next_try_ms > serving_.clock.NowMillis()) continue;
      for (const std::string& alias : owned.aliases) {
        if (!Contains(file_.adapters[declared->second].aliases, alias)) {
          gone.emplace_back(alias, name);
        }
      }
    }
  }
  for (const auto& [alias, name] : gone) {
    const auto info = present.find(name);
    Status removed = absl::OkStatus();
    if (info != present.end() && Contains(info->second.aliases, alias)) {
      removed = serving_.registry.SetAlias(alias, "");
    }
    if (!removed.ok()) {
      Note(name, Annotate(removed, "alias '" + alias + "'"));
      continue;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    std::erase(owned_[name].aliases, alias);
  }
}

void AdapterReconciler::RemoveUndeclared(const Present& present) {
  std::vector<std::string> gone;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [name, owned] : owned_) {
      if (!declared_.contains(name)) gone.push_back(name);
    }
  }
  for (const std::string& name : gone) {
    Status removed = absl::OkStatus();
    if (present.contains(name)) {
      if (!IsDue(name)) continue;
      removed = serving_.registry.Unload(name, /*force=*/false, /*wait_ms=*/0);
      // The name is gone; its requests end when they do.
      if (absl::IsDeadlineExceeded(removed) || absl::IsNotFound(removed)) {
        removed = absl::OkStatus();
      }
      if (!removed.ok()) {
        Note(name, removed);
        continue;
      }
      Log(LogLevel::kInfo, "adapter_undeclared", {{"name", name}});
    }
    std::lock_guard<std::mutex> lock(mutex_);
    counts_.unloads += present.contains(name) ? 1 : 0;
    owned_.erase(name);
  }
}

// -> how many it tried
int64_t AdapterReconciler::LoadMissing(const Present& present) {
  int64_t num_tried = 0;
  for (const DeclaredAdapter& adapter : file_.adapters) {
    const std::string& name = adapter.request.name();
    const auto info = present.find(name);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (stop_) break;
      Owned& owned = owned_[name];
      owned.in_place = info != present.end() && owned.digest == adapter.digest &&
                       owned.version == info->second.report.version;
      if (owned.in_place || owned.next_try_ms > serving_.clock.NowMillis()) continue;
    }
    if (StampOf(options_.path) != stamp_) break;  // what is declared is something else by now
    Submit(adapter);
    ++num_tried;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return num_loading_ == 0; });
  return num_tried;
}

void AdapterReconciler::Submit(const DeclaredAdapter& adapter) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return num_loading_ < kMostLoading || stop_; });
  const auto task = [this, &adapter] {
    LoadOne(adapter);
    std::lock_guard<std::mutex> done(mutex_);
    --num_loading_;
    changed_.notify_all();  // with the lock, for the last one ends the wait for this object's end
  };
  while (!stop_) {
    ++num_loading_;
    if (serving_.loaders.TryRun(task)) return;
    --num_loading_;
    changed_.wait_for(lock, std::chrono::milliseconds(kQueueFullMs), [this] { return stop_; });
  }
}

// On a loader's thread.
void AdapterReconciler::LoadOne(const DeclaredAdapter& adapter) {
  const std::string& name = adapter.request.name();
  StatusOr<LoadAdapterSpec> spec = SpecOf(adapter);
  if (spec.ok() && !adapter.base.empty() && adapter.base != serving_.limits.model_name) {
    spec = FieldError("base-model", serving_.limits.model_name, adapter.base);
  }
  const StatusOr<LoadReport> report = spec.ok() ? LoadWithMetrics(serving_, *spec, [](LoadState) {})
                                                : StatusOr<LoadReport>(spec.status());
  if (!report.ok()) {
    Note(name, report.status());
    return;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  ++counts_.loads;
  Owned& owned = owned_[name];
  owned.digest = adapter.digest;
  owned.version = report->version;
  owned.in_place = true;
  owned.tries = 0;
  owned.next_try_ms = 0;
  owned.error.clear();
}

// Its pin and its aliases, once it is there.
void AdapterReconciler::Settle(const DeclaredAdapter& adapter, const Present& present) {
  const std::string& name = adapter.request.name();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const Owned& owned = owned_[name];
    if (!owned.in_place || owned.next_try_ms > serving_.clock.NowMillis()) return;
  }
  const auto info = present.find(name);
  if (info == present.end()) return;  // gone again: the next pass sees it
  Note(name, SettleOne(adapter, info->second));
}

Status AdapterReconciler::SettleOne(const DeclaredAdapter& adapter, const AdapterInfo& info) {
  const std::string& name = adapter.request.name();
  if (info.pinned != adapter.request.pinned()) {
    POLYAD_RETURN_IF_ERROR(serving_.registry.Pin(name, adapter.request.pinned()));
  }
  for (const std::string& alias : adapter.aliases) {
    if (!Contains(info.aliases, alias)) {
      const Status set = serving_.registry.SetAlias(alias, name);
      if (!set.ok()) return Annotate(set, "alias '" + alias + "'");
    }
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string>& ours = owned_[name].aliases;
    if (!Contains(ours, alias)) ours.push_back(alias);
  }
  return absl::OkStatus();
}

bool AdapterReconciler::IsDue(const std::string& name) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto owned = owned_.find(name);
  return owned != owned_.end() && owned->second.next_try_ms <= serving_.clock.NowMillis();
}

bool AdapterReconciler::AnyDue() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!has_tried_all_) return true;
  const int64_t now_ms = serving_.clock.NowMillis();
  return std::any_of(owned_.begin(), owned_.end(), [now_ms](const auto& one) {
    return one.second.tries > 0 && one.second.next_try_ms <= now_ms;
  });
}

void AdapterReconciler::Note(const std::string& name, const Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  Owned& owned = owned_[name];
  if (status.ok()) {
    owned.tries = 0;
    owned.next_try_ms = 0;
    owned.error.clear();
    return;
  }
  ++counts_.failures;
  const int64_t doublings = std::min<int64_t>(owned.tries, 16);
  const int64_t wait_ms = std::min(options_.first_retry_ms << doublings, options_.last_retry_ms);
  ++owned.tries;
  owned.next_try_ms = serving_.clock.NowMillis() + wait_ms;
  owned.error = std::string(status.message());
  Log(LogLevel::kWarning, "reconcile_failed",
      {{"name", name}, {"why", owned.error}, {"tries", owned.tries}, {"retry_ms", wait_ms}});
}

void AdapterReconciler::ReadOwned() {
  if (options_.state_dir.empty()) return;
  const std::string path = options_.state_dir + "/declared.json";
  if (!FileExists(path)) return;
  const auto text = ReadFileLimited(path, kMaxOwnedBytes);
  const auto json = text.ok() ? ParseJson(*text, "declared.json", {.max_bytes = kMaxOwnedBytes})
                              : StatusOr<Json>(text.status());
  if (!json.ok() || !json->is_object()) {
    Log(LogLevel::kError, "declared_not_read",
        {{"why", std::string(json.status().message())},
         {"effect", "adapters that have left the file stay"}});
    return;
  }
  for (const auto& [name, value] : json->items()) {
    const auto fields = JsonFields::Of(value, "declared.json");
    if (!fields.ok()) continue;
    Owned owned;
    owned.digest = fields->StringOr("digest", "").value_or("");
    owned.version = fields->IntOr("version", 0, 0, INT64_MAX).value_or(0);
    owned.aliases = fields->StringsOr("aliases", {}).value_or(std::vector<std::string>{});
    owned_[name] = std::move(owned);
  }
}

void AdapterReconciler::WriteOwned() {
  if (options_.state_dir.empty()) return;
  Json json = Json::object();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [name, owned] : owned_) {
      json[name] = {
          {"digest", owned.digest}, {"version", owned.version}, {"aliases", owned.aliases}};
    }
  }
  std::string text = json.dump();
  if (text == written_) return;
  const Status written = ReplaceFile(options_.state_dir + "/declared.json", text);
  if (written.ok()) {
    written_ = std::move(text);
  } else {
    Log(LogLevel::kError, "declared_not_written", {{"why", std::string(written.message())}});
  }
}

}  // namespace polyad
