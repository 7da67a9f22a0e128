// Bottlenecks of a saved setup. With u and res as a single bottleneck reads them (zoo section 5.5):
//   Stack: one after another, an average or a fusion being one of them;
//   Average: h = (1/K) sum of w_k (f_k(u) + res), u and res from the first; one alone at a place is
//   taken 1/K times;
//   Fuse: h = res + sum over k of softmax_k((Wq q + bq) . (Wk v_k + bk)) Wv v_k, v_k = f_k(u)
//   before any norm, q, u and res from the last.
// Sources: zoo sections 5.6 and 10.2; adapters 1.3.0, methods/bottleneck.py, modeling.py.

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <string>
#include <utility>

#include "engine/adapters/dense_math.h"
#include "engine/adapters/families/adapterhub_parts.h"

namespace polyad {
namespace {

constexpr char kWhere[] = "adapter_setup.json";

// What the setup's adapters have at one place.
struct Present {
  size_t child = 0;
  SubLayerHook hook;
  bool parallel() const { return hook.input == Tap::kResidual; }
};

Status Refuse(const std::string& why) { return Unimplemented("%s: %s is not served", kWhere, why); }

class Composer {
 public:
  Composer(std::map<std::string, HubFusion>& fusions, const LoweringContext& context,
           AdapterProgram& program)
      : fusions_(fusions), hidden_(context.spec.hidden_size), program_(program) {}

  // `present` are the bottlenecks of the node's adapters at one place.
  Status Compose(const HubNode& node, std::vector<Present> present) {
    if (present.empty()) return absl::OkStatus();
    for (const Present& one : present) {
      program_.reads_whole_prompt |= !one.hook.gate.weight.empty();
    }
    switch (node.composition) {
      case HubComposition::kSingle:
        program_.hooks.push_back(std::move(present[0].hook));
        return absl::OkStatus();
      case HubComposition::kStack:
        return Stack(node, present);
      case HubComposition::kAverage:
        return Average(node, std::move(present));
      case HubComposition::kFuse:
        return Fuse(node, std::move(present));
      case HubComposition::kMultiTask:
        return Refuse("a choice by task among bottlenecks");
    }
    return absl::OkStatus();
  }

 private:
  static Status CheckOneKind(const std::vector<Present>& present) {
    const bool same = std::all_of(present.begin(), present.end(), [&](const Present& one) {
      return one.parallel() == present[0].parallel();
    });
    return same ? absl::OkStatus() : Refuse("a mix of sequential and parallel bottlenecks");
  }

  static std::vector<Present> Of(const HubNode& node, const std::vector<Present>& present) {
    std::vector<Present> own;
    std::copy_if(present.begin(), present.end(), std::back_inserter(own),
                 [&node](const Present& one) { return node.Names(one.child); });
    return own;
  }

  // What each child makes of the output is what the next one reads.
  Status Stack(const HubNode& node, const std::vector<Present>& present) {
    for (const HubNode& child : node.children) {
      std::vector<Present> own = Of(child, present);
      const bool among_others = own.size() < present.size();
      if (own.empty() && child.composition != HubComposition::kSingle) {
        return Refuse("a composition without a bottleneck where the rest of its stack has one");
      }
      for (const Present& one : own) {
        if (one.parallel() && among_others) return Refuse("a stack of parallel bottlenecks");
      }
      POLYAD_RETURN_IF_ERROR(Compose(child, std::move(own)));
    }
    return absl::OkStatus();
  }

  // The library reads what a stack within them takes for its input twice; nothing here does.
  static Status CheckSingles(const HubNode& node) {
    const bool singles = std::all_of(
        node.children.begin(), node.children.end(),
        [](const HubNode& child) { return child.composition == HubComposition::kSingle; });
    return singles ? absl::OkStatus()
                   : Refuse("a stack of bottlenecks within an average or a fusion");
  }

  // Which of the node's children, all single, the adapter is.
  static size_t ChildOf(const HubNode& node, size_t adapter) {
    size_t child = 0;
    while (node.children[child].adapter != adapter) ++child;
    return child;
  }

  Status Average(const HubNode& node, std::vector<Present> present) {
    POLYAD_RETURN_IF_ERROR(CheckSingles(node));
    POLYAD_RETURN_IF_ERROR(CheckOneKind(present));
    if (present[0].child != node.children.front().adapter) {
      return Refuse("an average whose first adapter lacks a bottleneck");
    }
    const Tap input = present[0].hook.input;
    const Tap skip = present[0].parallel() ? Tap::kNone : present[0].hook.skip;
    const bool adds_residual = present.back().hook.adds_residual;
    for (size_t i = 0; i < present.size(); ++i) {
      SubLayerHook& hook = present[i].hook;
      hook.input = input;
      hook.skip = skip;
      POLYAD_ASSIGN_OR_RETURN(const double weight,
                              node.AverageWeight(ChildOf(node, present[i].child), present.size()));
      hook.weight = static_cast<float>(weight);
      hook.joins = i > 0;
      hook.adds_residual = adds_residual;
      if (present[i].parallel() && i + 1 == present.size()) hook.outside = Tap::kOutput;
      program_.hooks.push_back(std::move(hook));
    }
    return absl::OkStatus();
  }

  Status Fuse(const HubNode& node, std::vector<Present> present) {
    POLYAD_RETURN_IF_ERROR(CheckSingles(node));
    fusion_ = &fusions_.at(node.fusion);
    Present& last = present.back();
    if (last.child != node.children.back().adapter) {
      return Refuse("a fusion whose last adapter lacks a bottleneck");
    }
    for (const Present& one : present) {
      if (!one.hook.gate.weight.empty()) return Refuse("use_gating within a fusion");
    }
    SubLayerHook hook;
    hook.layer = last.hook.layer;
    hook.sub_layer = last.hook.sub_layer;
    hook.input = last.hook.input;
    hook.skip = last.parallel() ? Tap::kResidual : last.hook.skip;
    hook.outside = last.parallel() ? Tap::kOutput : Tap::kNone;
    hook.adds_residual = last.hook.adds_residual;
    HookFusion fused;
    const bool before_sum = fusion_->query_before_sum && !last.parallel();
    fused.query = before_sum ? Tap::kOutput : hook.input;
    POLYAD_RETURN_IF_ERROR(CheckUnused(hook));
    POLYAD_RETURN_IF_ERROR(ReadQuery(hook, fused));
    POLYAD_ASSIGN_OR_RETURN(const Linear key, ReadLinear(hook, "key", fusion_->key, true));
    POLYAD_ASSIGN_OR_RETURN(const Linear value, ReadLinear(hook, "value", fusion_->value, false));
    for (size_t i = 0; i < present.size(); ++i) {
      const Bottleneck& op = std::get<Bottleneck>(present[i].hook.op);
      fused.keys.push_back(Through(key, op));
      Bottleneck mixed = Through(value, op);
      if (i == 0) {
        hook.op = mixed;
      } else {
        hook.more.push_back(mixed);
      }
    }
    hook.fusion = std::move(fused);
    program_.hooks.push_back(std::move(hook));
    return absl::OkStatus();
  }

  struct Linear {
    Matrix weight;  // no rows: the identity
    std::vector<float> bias;
  };

  HubPlace PlaceOf(const SubLayerHook& hook, const std::string& leaf) const {
    const bool mlp = hook.sub_layer == SubLayer::kMlp;
    return {hook.layer, mlp ? "output_adapters" : "attention_adapters", "adapter_fusion_layer",
            leaf};
  }

  StatusOr<Linear> ReadLinear(const SubLayerHook& hook, const std::string& name, bool used,
                              bool has_bias) {
    Linear linear;
    if (!used) return linear;
    HubTensors& tensors = fusion_->tensors;
    POLYAD_ASSIGN_OR_RETURN(std::vector<float> weight,
                            tensors.Take(PlaceOf(hook, name + ".weight"), {hidden_, hidden_}));
    linear.weight = Matrix(hidden_, hidden_, std::move(weight));
    if (has_bias) {
      POLYAD_ASSIGN_OR_RETURN(linear.bias, tensors.Take(PlaceOf(hook, name + ".bias"), {hidden_}));
    }
    return linear;
  }

  // A fusion without maps has a layer in the file that the library never runs.
  Status CheckUnused(const SubLayerHook& hook) {
    if (fusion_->query || fusion_->key || fusion_->value) return absl::OkStatus();
    HubTensors& tensors = fusion_->tensors;
    POLYAD_RETURN_IF_ERROR(tensors.Take(PlaceOf(hook, "dense.weight"), {1, hidden_}).status());
    return tensors.Take(PlaceOf(hook, "dense.bias"), {1}).status();
  }

  Status ReadQuery(const SubLayerHook& hook, HookFusion& fused) {
    POLYAD_ASSIGN_OR_RETURN(Linear query, ReadLinear(hook, "query", fusion_->query, true));
    if (query.weight.rows == 0) return absl::OkStatus();
    fused.query_map.delta =
        program_.arena.KeepMatrix(std::move(query.weight.values), hidden_, hidden_);
    fused.query_bias.values = program_.arena.Keep(std::move(query.bias));
    return absl::OkStatus();
  }

  // The bottleneck followed by a linear map: another up-projection.
  Bottleneck Through(const Linear& linear, const Bottleneck& op) {
    if (linear.weight.rows == 0) return op;
    Bottleneck mapped = op;
    Matrix up(op.up.rows, op.up.cols);
    std::memcpy(up.values.data(), op.up.data, up.values.size() * sizeof(float));
    Matrix bias(hidden_, 1, {op.up_bias.begin(), op.up_bias.end()});
    std::vector<float> sum = Multiply(linear.weight, bias).values;
    for (size_t i = 0; i < linear.bias.size(); ++i) sum[i] += linear.bias[i];
    mapped.up =
        program_.arena.KeepMatrix(Multiply(linear.weight, up).values, op.up.rows, op.up.cols);
    mapped.up_bias = program_.arena.Keep(std::move(sum));
    return mapped;
  }

  std::map<std::string, HubFusion>& fusions_;
  HubFusion* fusion_ = nullptr;  // the one being composed
  const int64_t hidden_;
  AdapterProgram& program_;
};

}  // namespace

Status LowerSetupBottlenecks(const HubSetup& setup, std::vector<HubChild>& children,
                             std::map<std::string, HubFusion>& fusions,
                             const LoweringContext& context, AdapterProgram& program) {
  Composer composer(fusions, context, program);
  for (int64_t layer = 0; layer < context.spec.num_layers; ++layer) {
    for (const HubLocation& location : HubLocations()) {
      std::vector<Present> present;
      for (size_t i = 0; i < children.size(); ++i) {
        for (const HubPart& part : children[i].config.parts) {
          if (part.method != HubMethod::kBottleneck) continue;
          POLYAD_ASSIGN_OR_RETURN(
              std::optional<SubLayerHook> hook,
              ReadHubHook(children[i].tensors, part, location, layer, context, program.arena));
          if (!hook) continue;
          if (!present.empty() && present.back().child == i) {
            return Refuse("two bottlenecks of one adapter at one place");
          }
          present.push_back({i, *std::move(hook)});
        }
      }
      POLYAD_RETURN_IF_ERROR(composer.Compose(setup.root, std::move(present)));
    }
  }
  return absl::OkStatus();
}

}  // namespace polyad
