#include "engine/adapters/composition.h"

#include <bit>
#include <string_view>

#include "engine/base/digest.h"

namespace polyad {
namespace {

Status Refuse(const AdapterVersion& part, std::string_view why) {
  return InvalidArgument("adapters: '%s' cannot be composed: %s", part.identity().name, why);
}

// What a scale means nothing for.
bool HasTransforms(const AdapterVersion& part, int64_t num_layers) {
  if (part.replaces_norms() || !part.embedding_ops().empty() || part.soft_prompt() != nullptr ||
      !part.couplings().empty() || part.rope() != nullptr) {
    return true;
  }
  for (int64_t layer = 0; layer <= num_layers; ++layer) {
    for (int64_t group = 0; group < kNumSiteGroups; ++group) {
      const GroupOps& ops = part.At(layer, static_cast<SiteGroup>(group));
      if (!ops.inputs.empty() || !ops.outputs.empty() || !ops.routers.empty()) return true;
    }
  }
  return false;
}

void AddInputs(const GroupOps& from, GroupOps& to) {
  for (const InputOps& inputs : from.inputs) {
    InputOps* same = nullptr;
    for (InputOps& have : to.inputs) {
      if (have.column_begin == inputs.column_begin) same = &have;
    }
    if (same == nullptr) {
      to.inputs.push_back(inputs);
    } else {
      same->ops.insert(same->ops.end(), inputs.ops.begin(), inputs.ops.end());
    }
  }
}

void AddGroup(const GroupOps& from, float scale, GroupOps& to) {
  AddInputs(from, to);
  to.outputs.insert(to.outputs.end(), from.outputs.begin(), from.outputs.end());
  for (SiteDelta delta : from.deltas) {
    delta.scale *= scale;
    to.deltas.push_back(std::move(delta));
  }
  for (PackedMixture mixture : from.mixtures) {
    for (PackedMixture::Expert& expert : mixture.experts) expert.term.scale *= scale;
    to.mixtures.push_back(std::move(mixture));
  }
  for (SiteDelta delta : from.after) {
    delta.scale *= scale;
    to.after.push_back(std::move(delta));
  }
  to.routers.insert(to.routers.end(), from.routers.begin(), from.routers.end());
  for (PackedHook hook : from.hooks) {
    hook.scale *= scale;
    to.hooks.push_back(std::move(hook));
  }
}

Status AddNorms(const AdapterVersion& part, int64_t num_layers, AdapterVersion& to) {
  if (!part.replaces_norms()) return absl::OkStatus();
  for (int64_t layer = -1; layer < num_layers; ++layer) {
    for (const NormSite site : {NormSite::kAttention, NormSite::kMlp, NormSite::kFinal,
                                NormSite::kQueryHead, NormSite::kKeyHead}) {
      const NormVectors* norm = part.Norm(layer, site);
      if (norm == nullptr) continue;
      if (to.Norm(layer, site) != nullptr) {
        return Refuse(part, "an earlier part replaces the same norm");
      }
      to.ReplaceNorm(layer, site, *norm);
    }
  }
  return absl::OkStatus();
}

Status AddPart(const CompositionPart& part, int64_t num_layers, AdapterVersion& to) {
  const AdapterVersion& adapter = *part.adapter;
  if (!adapter.invocation_tokens().empty()) {
    return Refuse(adapter, "it acts from its invocation on");
  }
  if (adapter.scaling_pass() != nullptr) {
    return Refuse(adapter, "it weighs its own terms token by token");
  }
  if (part.scale != 1.0f && HasTransforms(adapter, num_layers)) {
    return Refuse(adapter, "its change is no sum, so its scale can only be 1");
  }
  for (int64_t layer = 0; layer <= num_layers; ++layer) {
    for (int64_t group = 0; group < kNumSiteGroups; ++group) {
      const auto at = static_cast<SiteGroup>(group);
      AddGroup(adapter.At(layer, at), part.scale, to.MutableAt(layer, at));
    }
  }
  for (const auto& op : adapter.embedding_ops()) to.AddEmbeddingOp(op);
  for (SiteDelta op : adapter.stream_ops()) {
    op.scale *= part.scale;
    to.AddStreamOp(std::move(op));
  }
  for (GatedPrefix prefix : adapter.gated_prefixes()) {
    for (float& gate : prefix.gate) gate *= part.scale;
    to.AddGatedPrefix(std::move(prefix));
  }
  if (adapter.reads_whole_prompt()) to.SetReadsWholePrompt();
  if (adapter.wants_own_segments()) to.SetReadsPositions();
  for (const PackedCoupling& coupling : adapter.couplings()) to.AddCoupling(coupling);
  POLYAD_RETURN_IF_ERROR(AddNorms(adapter, num_layers, to));
  if (adapter.shared_soft_prompt() != nullptr) {
    if (to.soft_prompt() != nullptr) return Refuse(adapter, "an earlier part has a soft prompt");
    to.SetSoftPrompt(adapter.shared_soft_prompt());
  }
  if (adapter.rope() != nullptr) {
    if (to.rope() != nullptr && !(to.rope()->spec() == adapter.rope()->spec() &&
                                  to.max_context() == adapter.max_context())) {
      return Refuse(adapter, "an earlier part has another rotary scaling of its own");
    }
    to.SetRope(adapter.shared_rope(), adapter.max_context());
  }
  to.AddCost({{}, adapter.cost().flops_per_token});  // its bytes stay its own
  to.AddPart(part.adapter);
  return absl::OkStatus();
}

}  // namespace

StatusOr<std::shared_ptr<const AdapterVersion>> Compose(const std::vector<CompositionPart>& parts,
                                                        AdapterVersion::Identity identity,
                                                        int64_t num_layers) {
  Sha256 sha;
  for (const CompositionPart& part : parts) {
    const AdapterVersion::Identity& of_part = part.adapter->identity();
    identity.name += (identity.name.empty() ? "" : "+") + of_part.name;
    sha.Update(of_part.digest.data(), of_part.digest.size());
    sha.UpdateInt(part.adapter->id().value());
    sha.UpdateInt(std::bit_cast<uint32_t>(part.scale));
  }
  identity.digest = sha.Finish();
  auto composed = std::make_shared<AdapterVersion>(std::move(identity), num_layers);
  for (const CompositionPart& part : parts) {
    POLYAD_RETURN_IF_ERROR(AddPart(part, num_layers, *composed));
  }
  return std::shared_ptr<const AdapterVersion>(std::move(composed));
}

StatusOr<CompositionCache::Lease> CompositionCache::Get(const std::vector<CompositionPart>& parts) {
  Key key;
  for (const CompositionPart& part : parts) {
    key.emplace_back(part.adapter->id().value(), std::bit_cast<uint32_t>(part.scale));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(in_use_, [](const auto& entry) { return entry.second.expired(); });
  if (const auto found = in_use_.find(key); found != in_use_.end()) {
    if (Lease lease = found->second.lock()) return lease;
  }
  POLYAD_ASSIGN_OR_RETURN(Lease lease,
                          Compose(parts, {AdapterVersionId(next_id_), "", 1, {}}, num_layers_));
  ++next_id_;
  in_use_[key] = lease;
  return lease;
}

}  // namespace polyad
