#pragma once

// Our own adapter directory (docs/container.md): zoo.json and zoo.safetensors, which carry any op
// of the algebra directly. This reads what the two files say, op by op, without lowering anything:
// a tensor is "<place>.<op>.<i>.<tensor>", or named by an option that refers to a shared one.
// Short-lived, one loader thread; borrows the AdapterSource. INVALID_ARGUMENT: malformed.
// FAILED_PRECONDITION: a place or a size the base model does not have. UNIMPLEMENTED: an op or an
// option we do not know.

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/adapters/adapter_source.h"
#include "engine/adapters/base_weights.h"
#include "engine/adapters/module_tensors.h"
#include "engine/base/status.h"
#include "engine/io/json.h"
#include "engine/spec/sites.h"

namespace polyad {

// How the container spells the base's places.
struct SiteSpelling {
  std::string_view name;
  Site site;
};
inline constexpr SiteSpelling kSiteSpellings[] = {
    {"q", Site::kQ},      {"k", Site::kK},       {"v", Site::kV},      {"qkv", Site::kQkv},
    {"o", Site::kO},      {"gate", Site::kGate}, {"up", Site::kUp},    {"down", Site::kDown},
    {"fc1", Site::kFcIn}, {"fc2", Site::kFcOut}, {"head", Site::kHead}};

struct NormSpelling {
  std::string_view name;
  NormSite site;
};
inline constexpr NormSpelling kNormSpellings[] = {{"norm1", NormSite::kAttention},
                                                  {"norm2", NormSite::kMlp},
                                                  {"normf", NormSite::kFinal},
                                                  {"qnorm", NormSite::kQueryHead},
                                                  {"knorm", NormSite::kKeyHead}};

// Where an op acts, by name: {3, "q"}, {-1, "normf"}.
struct ContainerPlace {
  int64_t layer = -1;
  std::string site;

  friend auto operator<=>(const ContainerPlace&, const ContainerPlace&) = default;
};

class ContainerOp {
 public:
  ContainerOp(AdapterSource& source, ContainerPlace place, std::string kind, std::string name)
      : source_(&source),
        place_(std::move(place)),
        kind_(std::move(kind)),
        name_(std::move(name)) {}

  const ContainerPlace& place() const { return place_; }
  const std::string& kind() const { return kind_; }  // "lr"
  const std::string& name() const { return name_; }  // "L0.q.lr.0"

  bool Has(const std::string& tensor) const;
  // Floats, or i8 with a factor for each of the first dimension, "<tensor>.scale". Shapes as
  // TakeFloats checks them; the messages carry the tensor's whole name.
  StatusOr<FloatTensor> Floats(const std::string& tensor,
                               std::initializer_list<int64_t> expected) const;
  StatusOr<FloatTensor> AnyFloats(const std::string& tensor) const;  // of any shape
  StatusOr<std::vector<float>> Vector(const std::string& tensor, int64_t size) const;
  StatusOr<Matrix> Take(const std::string& tensor, int64_t rows, int64_t cols) const;
  StatusOr<IndexTensor> Indices(const std::string& tensor, int64_t limit,
                                std::initializer_list<int64_t> expected) const;
  StatusOr<const OwnedTensor*> Integers(const std::string& tensor) const;
  // Numbers among the options; `absent` where there is no such option.
  StatusOr<double> Number(const std::string& key, double absent) const;
  StatusOr<int64_t> Int(const std::string& key, int64_t absent, int64_t min, int64_t max) const;
  // Nothing where there is no such option: no number that a file may state means that.
  StatusOr<std::optional<int64_t>> IntIfAny(const std::string& key, int64_t min, int64_t max) const;
  // A word among the options; `absent` where there is no such option.
  std::string Word(const std::string& key, const std::string& absent) const;
  // UNIMPLEMENTED naming an option that nobody asked for.
  Status CheckOptionsTaken() const;

 private:
  friend class ZooContainer;
  std::string NameOf(const std::string& tensor) const;
  StatusOr<FloatTensor> Scaled(const std::string& name) const;

  AdapterSource* source_;
  ContainerPlace place_;
  std::string kind_;
  std::string name_;
  std::vector<std::pair<std::string, std::string>> references_;  // tensor -> shared name
  std::vector<std::pair<std::string, double>> numbers_;
  std::vector<std::pair<std::string, std::string>> words_;
  mutable std::set<std::string> asked_;  // tensors and options
};

class ZooContainer {
 public:
  static StatusOr<ZooContainer> Parse(AdapterSource& source);

  const std::string& family() const { return family_; }
  // Hex WeightsDigest of the base it was made from; empty where it does not say.
  const std::string& base_digest() const { return base_digest_; }
  // By layer, site, kind and index.
  const std::vector<ContainerOp>& ops() const { return ops_; }
  const OrderedJson& hooks() const { return hooks_; }

 private:
  Status ReadConfig(const OrderedJson& json);
  Status ReadBase(const OrderedJsonFields& config);
  Status CollectOps(AdapterSource& source);
  Status ReadOptions(const OrderedJson& json);

  std::string family_;
  std::string base_digest_;
  std::vector<ContainerOp> ops_;
  OrderedJson hooks_ = OrderedJson::array();
};

}  // namespace polyad
