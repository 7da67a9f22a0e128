#pragma once

// What most families share on the way from tensor names to sites: "base_model.model.<module
// path>.<leaf>". A lowering asks for the modules that have one of its leaves, and takes each
// module's tensors with their shapes checked; the module knows its site in the base. Short-lived,
// one loader thread; borrows the AdapterSource. INVALID_ARGUMENT: a tensor missing or of another
// shape than the configuration says; FAILED_PRECONDITION: a module or a size that the base model
// does not have. Every message names the tensor, expected and got. Source: zoo section 4.1.

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/adapters/adapter_source.h"
#include "engine/adapters/dense_math.h"
#include "engine/base/status.h"
#include "engine/spec/sites.h"

namespace polyad {

inline constexpr std::string_view kPeftPrefix = "base_model.model.";
inline constexpr int64_t kMaxRank = 8192;
inline constexpr int64_t kAnySize = -1;

// A tensor with its elements widened to fp32.
struct FloatTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;

  int64_t Dim(size_t index) const { return shape[index]; }
  // Leading dimensions are rows; a vector is one row.
  Matrix AsMatrix() &&;
};

// FAILED_PRECONDITION naming the tensor, expected and got; kAnySize fits every size.
Status CheckShape(const std::string& name, std::span<const int64_t> expected,
                  const std::vector<int64_t>& got);

// A tensor by its full name, its shape checked where `expected` is not kAnySize.
StatusOr<FloatTensor> TakeFloats(AdapterSource& source, const std::string& name,
                                 std::span<const int64_t> expected);
StatusOr<FloatTensor> TakeFloats(AdapterSource& source, const std::string& name,
                                 std::initializer_list<int64_t> expected);
// Whole numbers of any integer type, with their shape; INVALID_ARGUMENT for one outside [0, limit).
struct IndexTensor {
  std::vector<int64_t> shape;
  std::vector<int64_t> values;
};
StatusOr<IndexTensor> TakeIndices(AdapterSource& source, const std::string& name, int64_t limit,
                                  std::initializer_list<int64_t> expected);

class ModuleTensors {
 public:
  ModuleTensors(AdapterSource& source, std::string path, SiteRef site, SiteShape shape)
      : source_(&source), path_(std::move(path)), site_(site), shape_(shape) {}

  const std::string& path() const { return path_; }  // "model.layers.0.self_attn.q_proj"
  SiteRef site() const { return site_; }
  int64_t in() const { return shape_.in; }
  int64_t out() const { return shape_.out; }

  std::string NameOf(std::string_view leaf) const;
  bool Has(std::string_view leaf) const { return source_->Has(NameOf(leaf)); }
  StatusOr<FloatTensor> Floats(std::string_view leaf,
                               std::initializer_list<int64_t> expected) const;
  StatusOr<Matrix> Take(std::string_view leaf, int64_t rows, int64_t cols) const;
  StatusOr<std::vector<float>> TakeVector(std::string_view leaf, int64_t size) const;
  // As stored, without a copy.
  StatusOr<TensorView> View(std::string_view leaf, int64_t rows, int64_t cols) const;

 private:
  AdapterSource* source_;
  std::string path_;
  SiteRef site_;
  SiteShape shape_;
};

// Every linear module of the base that has an untaken tensor with one of the leaves
// ("lora_A.weight"), each once, in the order of its first tensor in the file. Embeddings and heads
// are given out only to families that ask for them.
struct ModuleQuery {
  std::span<const std::string_view> leaves;
  bool with_embedding = false;
  bool with_head = true;
};
StatusOr<std::vector<ModuleTensors>> ModulesWith(AdapterSource& source, const ModelSpec& spec,
                                                 const ModuleQuery& query);
StatusOr<std::vector<ModuleTensors>> ModulesWith(AdapterSource& source, const ModelSpec& spec,
                                                 std::initializer_list<std::string_view> leaves);

// In the order the model runs its sites, whatever the file's order.
void SortByModelOrder(std::vector<ModuleTensors>& modules);

// "base_model.vera_A" as the file calls it: so, or with the adapter's name behind it as older files
// have it. INVALID_ARGUMENT where neither is there.
StatusOr<std::string> SharedTensorName(const AdapterSource& source, const std::string& name);

// Checks a rank that a configuration or a tensor claims: a whole number in [1, kMaxRank].
StatusOr<int64_t> CheckRank(const std::string& path, double rank);

}  // namespace polyad
