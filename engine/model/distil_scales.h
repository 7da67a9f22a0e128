#pragma once

// One factor for each plane of a compressed fine-tune, such that its logits come nearest to the
// fine-tune's on a window of text: BitDelta's distillation of scales (Liu et al. 2024, section 3.1)
// by Gauss-Newton steps. |logits - logits'|^2 = (h - h') W'W (h - h')' with h the rows that the
// head W reads, so rows of the hidden size stand for logits. A derivative is the difference of two
// forward passes: there is no backward pass here. The exact mode; one thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/adapters/adapter_version.h"
#include "engine/adapters/dense_math.h"
#include "engine/adapters/plane_file.h"
#include "engine/base/status.h"
#include "engine/model/model.h"
#include "kernels/api/backend.h"

namespace polyad {

// The rows that the head reads when `model` runs the tokens: [tokens, hidden].
StatusOr<Matrix> HeadInputs(Model& model, std::span<const int32_t> tokens,
                            const AdapterVersion* adapter);

struct DistilTarget {
  std::vector<int32_t> tokens;
  Matrix head_inputs;  // the fine-tune's
  Matrix head_gram;    // W'W, [hidden, hidden]
};

class ScaleDistiller {
 public:
  // `version` is the compressed fine-tune on `base`, `sites` its planes.
  ScaleDistiller(Model& base, Backend& backend, const AdapterVersion& version,
                 const std::vector<SitePlanes>& sites, const DistilTarget& target);

  int64_t num_factors() const { return static_cast<int64_t>(factors_.size()); }
  // Takes `steps` steps; `ran` is called after each factor's forward pass.
  Status Run(int steps, const std::function<void()>& ran);
  // Plane by plane in the order of the sites.
  const std::vector<double>& factors() const { return factors_; }
  // The squared error of the logits now, and that of the base.
  StatusOr<double> Loss() { return LossAt(factors_); }
  StatusOr<double> BaseLoss();

 private:
  struct Place {
    int64_t layer = 0;
    SiteGroup group = SiteGroup::kQkv;
    size_t index = 0;  // among the group's deltas
  };
  StatusOr<Matrix> RunWith(const std::vector<double>& factors);
  StatusOr<double> LossAt(const std::vector<double>& factors);
  StatusOr<std::vector<double>> Step(const std::function<void()>& ran);
  double Square(const Matrix& error) const;
  Matrix TimesGram(const Matrix& rows) const;

  Model& base_;
  Backend& backend_;
  AdapterVersion version_;  // its planes' scales follow the factors
  const DistilTarget& target_;
  std::vector<Place> places_;
  std::vector<double> factors_;
  std::unique_ptr<PackedMatrix> gram_;
  Status status_;
};

}  // namespace polyad
