// OpenSafetensorsDirectory: one file, or the shards an index maps tensor names to.

#include <memory>
#include <set>
#include <utility>

#include "engine/io/json.h"
#include "engine/io/quote.h"
#include "engine/io/safetensors.h"

namespace polyad {

namespace {

constexpr char kSingleName[] = "model.safetensors";
constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = int64_t{32} << 20;
constexpr size_t kMaxShards = 1000;

class ShardedSource final : public TensorSource {
 public:
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }

  const TensorInfo* Find(const std::string& name) const override {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : it->second->Find(name);
  }

  StatusOr<OwnedTensor> Read(const std::string& name) const override {
    const auto it = index_.find(name);
    if (it == index_.end()) return NotFound("%s: no tensor %s", kIndexName, Quote(name));
    return it->second->Read(name);
  }

  // Opens a shard once; `shard_name` came from the index and is checked here.
  StatusOr<const SafetensorsFile*> Shard(const std::string& directory,
                                         const std::string& shard_name,
                                         const SafetensorsLimits& limits) {
    const auto it = shards_.find(shard_name);
    if (it != shards_.end()) return it->second.get();
    if (!IsPlainFileName(shard_name) || !shard_name.ends_with(".safetensors")) {
      return InvalidArgument("%s: shard %s: expected a plain name ending in .safetensors",
                             kIndexName, Quote(shard_name));
    }
    if (shards_.size() >= kMaxShards) {
      return ResourceExhausted("%s: more than %d shards", kIndexName, kMaxShards);
    }
    POLYAD_ASSIGN_OR_RETURN(SafetensorsFile file,
                            SafetensorsFile::Open(directory + "/" + shard_name, limits));
    auto owned = std::make_unique<SafetensorsFile>(std::move(file));
    return shards_.emplace(shard_name, std::move(owned)).first->second.get();
  }

  Status Map(const std::string& name, const std::string& shard_name, const SafetensorsFile* shard) {
    const TensorInfo* info = shard->Find(name);
    if (info == nullptr) {
      return InvalidArgument("%s: tensor %s is not in %s", kIndexName, Quote(name),
                             Quote(shard_name));
    }
    tensors_.push_back(*info);
    index_.emplace(name, shard);
    return absl::OkStatus();
  }

 private:
  std::map<std::string, std::unique_ptr<SafetensorsFile>> shards_;
  std::unordered_map<std::string, const SafetensorsFile*> index_;
  std::vector<TensorInfo> tensors_;
};

StatusOr<std::unique_ptr<TensorSource>> OpenSharded(const std::string& directory,
                                                    const SafetensorsLimits& limits) {
  POLYAD_ASSIGN_OR_RETURN(const std::string text,
                          ReadFileLimited(directory + "/" + kIndexName, kMaxIndexBytes));
  JsonLimits json_limits;
  json_limits.max_bytes = kMaxIndexBytes;
  json_limits.max_depth = 4;
  json_limits.max_members = limits.max_tensors;
  POLYAD_ASSIGN_OR_RETURN(const Json index, ParseJson(text, kIndexName, json_limits));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(index, kIndexName));
  POLYAD_ASSIGN_OR_RETURN(const auto weight_map, fields.Object("weight_map"));
  if (!weight_map.has_value()) return fields.WrongType("weight_map", "an object");
  auto source = std::make_unique<ShardedSource>();
  for (const auto& [name, value] : weight_map->object().items()) {
    POLYAD_ASSIGN_OR_RETURN(const std::string shard_name, weight_map->String(name));
    POLYAD_ASSIGN_OR_RETURN(const SafetensorsFile* shard,
                            source->Shard(directory, shard_name, limits));
    POLYAD_RETURN_IF_ERROR(source->Map(name, shard_name, shard));
  }
  return std::unique_ptr<TensorSource>(std::move(source));
}

}  // namespace

StatusOr<std::unique_ptr<TensorSource>> OpenSafetensorsDirectory(const std::string& directory,
                                                                 const SafetensorsLimits& limits) {
  if (FileExists(directory + "/" + kSingleName)) {
    POLYAD_ASSIGN_OR_RETURN(SafetensorsFile file,
                            SafetensorsFile::Open(directory + "/" + kSingleName, limits));
    return std::unique_ptr<TensorSource>(std::make_unique<SafetensorsFile>(std::move(file)));
  }
  if (!FileExists(directory + "/" + kIndexName)) {
    return NotFound("model directory: expected %s or %s (only safetensors weights are read)",
                    kSingleName, kIndexName);
  }
  return OpenSharded(directory, limits);
}

}  // namespace polyad
