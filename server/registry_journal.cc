#include "server/registry_journal.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/base/digest.h"
#include "engine/base/log.h"
#include "engine/io/file.h"
#include "engine/io/quote.h"

namespace polyad {
namespace {

using state::v1::Record;

constexpr std::string_view kMagic = "PLRJ";
constexpr size_t kLengthBytes = 4;
constexpr size_t kCheckBytes = 8;
constexpr size_t kHeadBytes = kMagic.size() + kLengthBytes + kCheckBytes;
// The file is written anew once it is this large and twice what it was then.
constexpr int64_t kCompactBytes = int64_t{8} << 20;

std::string CheckOf(std::string_view payload) {
  Sha256 sha;
  sha.Update(payload);
  const Digest digest = sha.Finish();
  return std::string(digest.begin(), digest.begin() + kCheckBytes);
}

// The frame at `at`, if there is a whole one; its bytes are added to *at.
std::optional<Record> FrameAt(std::string_view bytes, size_t* at) {
  std::string_view rest = bytes.substr(*at);
  if (!rest.starts_with(kMagic) || rest.size() < kHeadBytes) return std::nullopt;
  size_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<size_t>(static_cast<uint8_t>(rest[kMagic.size() + i])) << (8 * i);
  }
  if (length > RegistryJournal::kMaxRecordBytes || length > rest.size() - kHeadBytes) {
    return std::nullopt;
  }
  const std::string_view check = rest.substr(kMagic.size() + kLengthBytes, kCheckBytes);
  const std::string_view payload = rest.substr(kHeadBytes, length);
  Record record;
  if (CheckOf(payload) != check ||
      !record.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
    return std::nullopt;
  }
  *at += kHeadBytes + length;
  return record;
}

Record BaseRecord(const std::string& model) {
  Record record;
  record.mutable_base()->set_model(model);
  return record;
}

}  // namespace

void RegistryState::ApplyLoaded(const state::v1::Loaded& loaded) {
  const v1::LoadReport& report = loaded.report();
  const auto gone = last_version.find(report.name());
  if (gone != last_version.end() && gone->second >= report.version()) return;
  const auto found = adapters.find(report.name());
  if (found != adapters.end() && found->second.report().version() > report.version()) return;
  adapters.insert_or_assign(report.name(), loaded);
}

void RegistryState::KeepServing(const std::string& name) {
  const auto found = adapters.find(name);
  if (found == adapters.end()) return;
  kept.insert_or_assign(KeptKey(name, found->second.report().version()), found->second);
  adapters.erase(found);
}

void RegistryState::ApplyBeside(const state::v1::LoadedBeside& beside) {
  const v1::LoadReport& report = beside.loaded().report();
  if (beside.serves()) {
    KeepServing(report.name());
    adapters.insert_or_assign(report.name(), beside.loaded());
    return;
  }
  kept.insert_or_assign(KeptKey(report.name(), report.version()), beside.loaded());
  if (beside.share() > 0) {
    splits.insert_or_assign(report.name(), TrafficSplit{report.version(), beside.share()});
  }
}

void RegistryState::ApplyUnloaded(const state::v1::Unloaded& unloaded) {
  const std::string& name = unloaded.name();
  int64_t& last = last_version[name];
  last = std::max(last, unloaded.version());
  std::erase_if(kept, [&](const auto& one) {
    const v1::LoadReport& report = one.second.report();
    return report.name() == name && report.version() <= unloaded.version();
  });
  const auto found = adapters.find(name);
  if (found != adapters.end() && found->second.report().version() > unloaded.version()) return;
  if (found != adapters.end()) adapters.erase(found);
  splits.erase(name);
  std::erase_if(aliases, [&name](const auto& alias) { return alias.second == name; });
}

void RegistryState::ApplyUnloadedVersion(const state::v1::UnloadedVersion& unloaded) {
  const std::string& name = unloaded.name();
  int64_t& last = last_kept[name];
  last = std::max(last, unloaded.version());
  kept.erase(KeptKey(name, unloaded.version()));
  const auto split = splits.find(name);
  if (split != splits.end() && split->second.version == unloaded.version()) splits.erase(split);
}

// A version that is not here is the start-up's own: it will be there again, what is here is kept.
void RegistryState::ApplyTraffic(const state::v1::Traffic& traffic) {
  const std::string& name = traffic.name();
  const auto split = splits.find(name);
  if (traffic.share() > 0 && traffic.share() < 1) {
    splits.insert_or_assign(name, TrafficSplit{traffic.version(), traffic.share()});
    return;
  }
  if (split != splits.end() &&
      (traffic.share() > 0 || split->second.version == traffic.version())) {
    splits.erase(split);
  }
  const auto serving = adapters.find(name);
  const bool serves =
      serving != adapters.end() && serving->second.report().version() == traffic.version();
  if (!(traffic.share() > 0) || serves) return;
  KeepServing(name);
  const auto found = kept.find(KeptKey(name, traffic.version()));
  if (found == kept.end()) return;
  adapters.insert_or_assign(name, found->second);
  kept.erase(found);
}

std::set<std::string> RegistryState::FoldersOf(std::string_view name) const {
  std::set<std::string> folders;
  if (const auto found = adapters.find(name); found != adapters.end()) {
    folders.insert(found->second.folder());
  }
  const std::string prefix = std::string(name) + "@";
  for (auto one = kept.lower_bound(prefix); one != kept.end() && one->first.starts_with(prefix);
       ++one) {
    folders.insert(one->second.folder());
  }
  return folders;
}

void RegistryState::Apply(const Record& record) {
  switch (record.change_case()) {
    case Record::kLoaded:
      return ApplyLoaded(record.loaded());
    case Record::kBeside:
      return ApplyBeside(record.beside());
    case Record::kUnloaded:
      return ApplyUnloaded(record.unloaded());
    case Record::kUnloadedVersion:
      return ApplyUnloadedVersion(record.unloaded_version());
    case Record::kTraffic:
      return ApplyTraffic(record.traffic());
    case Record::kPinned: {
      const auto found = adapters.find(record.pinned().name());
      if (found != adapters.end()) found->second.set_pinned(record.pinned().pinned());
      return;
    }
    case Record::kAlias:
      if (record.alias().target().empty()) {
        aliases.erase(record.alias().alias());
      } else {
        aliases.insert_or_assign(record.alias().alias(), record.alias().target());
      }
      return;
    case Record::kBase:
    case Record::CHANGE_NOT_SET:
      return;
  }
}

FramedRecords ReadFrames(std::string_view bytes) {
  FramedRecords read;
  size_t at = 0;
  while (at < bytes.size()) {
    const size_t begin = at;
    std::optional<Record> record = FrameAt(bytes, &at);
    while (!record && at < bytes.size()) {  // the next one that is whole, if any
      at = std::min(bytes.find(kMagic, at + 1), bytes.size());
      const size_t candidate = at;
      record = FrameAt(bytes, &at);
      if (record) read.damaged.emplace_back(bytes.substr(begin, candidate - begin));
    }
    if (!record) break;
    read.records.push_back(*std::move(record));
    read.end = static_cast<int64_t>(at);
  }
  return read;
}

std::string FrameOf(const Record& record) {
  const std::string payload = record.SerializeAsString();
  std::string frame(kMagic);
  for (size_t i = 0; i < kLengthBytes; ++i) {
    frame.push_back(static_cast<char>(payload.size() >> (8 * i) & 0xff));
  }
  return frame + CheckOf(payload) + payload;
}

std::string RegistryJournal::path() const { return directory_ + "/registry.journal"; }

StatusOr<RegistryJournal> RegistryJournal::Open(const std::string& directory,
                                                const std::string& model) {
  POLYAD_ASSIGN_OR_RETURN(AppendFile lock, AppendFile::Open(directory + "/lock"));
  RegistryJournal journal(directory, model, std::move(lock));
  if (FileExists(journal.path())) {
    POLYAD_ASSIGN_OR_RETURN(const std::string bytes, ReadFileLimited(journal.path(), kMaxBytes));
    POLYAD_RETURN_IF_ERROR(journal.Replay(bytes));
  }
  POLYAD_RETURN_IF_ERROR(journal.WriteAnew());
  return journal;
}

Status RegistryJournal::Replay(std::string_view bytes) {
  const FramedRecords read = ReadFrames(bytes);
  const std::string where = Quote(path());
  if (read.records.empty() || !read.records[0].has_base()) {
    return FailedPrecondition("%s: expected a registry's beginning, got something else", where);
  }
  const std::string& model = read.records[0].base().model();
  if (model != model_) {
    return FailedPrecondition("%s: its adapters are of the model %s, this one is %s", where,
                              Quote(model), Quote(model_));
  }
  for (const Record& record : read.records) {
    if (record.change_case() == Record::CHANGE_NOT_SET) {
      return FailedPrecondition("%s: a later polyad wrote it", where);
    }
    state_.Apply(record);
  }
  if (const auto torn = static_cast<int64_t>(bytes.size()) - read.end; torn > 0) {
    Log(LogLevel::kWarning, "registry_tail_cut", {{"file", path()}, {"bytes", torn}});
  }
  return KeepDamaged(read.damaged);
}

Status RegistryJournal::KeepDamaged(const std::vector<std::string>& damaged) const {
  int64_t number = 0;
  for (const std::string& bytes : damaged) {
    std::string name;
    do {
      name = directory_ + "/registry.damaged." + std::to_string(++number);
    } while (FileExists(name));
    POLYAD_RETURN_IF_ERROR(WriteNewFile(name, bytes));
    Log(LogLevel::kError, "registry_damaged",
        {{"file", path()}, {"bytes", static_cast<int64_t>(bytes.size())}, {"kept_in", name}});
  }
  return damaged.empty() ? absl::OkStatus() : SyncDirectory(directory_);
}

// As few records as make the state.
Status RegistryJournal::WriteAnew() {
  std::string bytes = FrameOf(BaseRecord(model_));
  Record record;
  for (const auto& [name, version] : state_.last_version) {
    if (!state_.FoldersOf(name).empty()) continue;
    record.mutable_unloaded()->set_name(name);
    record.mutable_unloaded()->set_version(version);
    bytes += FrameOf(record);
  }
  for (const auto& [name, adapter] : state_.adapters) {
    *record.mutable_loaded() = adapter;
    bytes += FrameOf(record);
  }
  for (const auto& [key, adapter] : state_.kept) {
    *record.mutable_beside()->mutable_loaded() = adapter;
    bytes += FrameOf(record);
  }
  for (const auto& [name, version] : state_.last_kept) {
    record.mutable_unloaded_version()->set_name(name);
    record.mutable_unloaded_version()->set_version(version);
    bytes += FrameOf(record);
  }
  for (const auto& [name, split] : state_.splits) {
    record.mutable_traffic()->set_name(name);
    record.mutable_traffic()->set_version(split.version);
    record.mutable_traffic()->set_share(split.share);
    bytes += FrameOf(record);
  }
  for (const auto& [alias, target] : state_.aliases) {
    record.mutable_alias()->set_alias(alias);
    record.mutable_alias()->set_target(target);
    bytes += FrameOf(record);
  }
  const Status replaced = ReplaceFile(path(), bytes);
  if (!replaced.ok() && file_ && file_->torn()) return replaced;  // and nothing follows its end
  file_.reset();  // whichever of the two the name leads to now is the one to go on with
  POLYAD_ASSIGN_OR_RETURN(AppendFile file, AppendFile::Open(path()));
  file_ = std::move(file);
  compact_bytes_ = file_->size();
  return replaced;
}

Status RegistryJournal::Append(const Record& record) {
  const std::string frame = FrameOf(record);
  if (frame.size() > kHeadBytes + kMaxRecordBytes) {
    return ResourceExhausted("registry: expected a record of at most %d bytes, got %d",
                             kMaxRecordBytes, frame.size() - kHeadBytes);
  }
  if (!file_ || file_->torn()) POLYAD_RETURN_IF_ERROR(WriteAnew());
  POLYAD_RETURN_IF_ERROR(file_->Append(frame));
  state_.Apply(record);
  if (file_->size() < kCompactBytes || file_->size() < 2 * compact_bytes_) return absl::OkStatus();
  if (const Status anew = WriteAnew(); !anew.ok()) {  // the record is on disk all the same
    Log(LogLevel::kWarning, "registry_not_compacted", {{"error", anew.ToString()}});
  }
  return absl::OkStatus();
}

}  // namespace polyad
