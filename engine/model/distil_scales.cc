#include "engine/model/distil_scales.h"

#include <algorithm>
#include <utility>

#include "engine/adapters/linear_solve.h"
#include "engine/adapters/program_packing.h"
#include "engine/base/check.h"
#include "engine/model/text_window.h"

namespace polyad {
namespace {

constexpr double kNudge = 0.05;    // of a factor, for its derivative
constexpr double kDamping = 1e-3;  // of the normal equations' diagonal

class HeadObserver final : public InputObserver {
 public:
  void OnInput(int64_t, SiteGroup group, const ActivationRows& x) override {
    if (group != SiteGroup::kHead) return;
    POLYAD_CHECK(x.dtype == DType::kF32, "calibration runs in the exact mode");
    rows_ = Matrix(x.rows, x.cols);
    const auto* data = static_cast<const float*>(x.data);
    for (int64_t row = 0; row < x.rows; ++row) {
      std::copy_n(data + row * x.stride, x.cols, rows_.Row(row));
    }
  }
  Matrix Take() { return std::move(rows_); }

 private:
  Matrix rows_;
};

Matrix Minus(Matrix a, const Matrix& b) {
  for (size_t i = 0; i < a.values.size(); ++i) a.values[i] -= b.values[i];
  return a;
}

double Dot(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (size_t i = 0; i < a.values.size(); ++i) {
    sum += static_cast<double>(a.values[i]) * b.values[i];
  }
  return sum;
}

}  // namespace

StatusOr<Matrix> HeadInputs(Model& model, std::span<const int32_t> tokens,
                            const AdapterVersion* adapter) {
  HeadObserver observer;
  model.Observe(&observer);
  const Status status = RunWindow(model, tokens, adapter).status();
  model.Observe(nullptr);
  POLYAD_RETURN_IF_ERROR(status);
  return observer.Take();
}

ScaleDistiller::ScaleDistiller(Model& base, Backend& backend, const AdapterVersion& version,
                               const std::vector<SitePlanes>& sites, const DistilTarget& target)
    : base_(base), backend_(backend), version_(version), target_(target) {
  for (const SitePlanes& site : sites) {
    const int64_t column = ShapeOf(base.spec(), site.site.site).column;
    const SiteGroup group = GroupOf(site.site.site);
    const std::vector<SiteDelta>& deltas = version.At(site.site.layer, group).deltas;
    std::vector<size_t> of_site;  // a container's planes run after the site's other deltas
    for (size_t i = 0; i < deltas.size(); ++i) {
      if (deltas[i].y_column == column) of_site.push_back(i);
    }
    const size_t num_planes = site.planes.planes.size();
    POLYAD_CHECK(of_site.size() >= num_planes, "the planes' own version");
    for (size_t k = of_site.size() - num_planes; k < of_site.size(); ++k) {
      places_.push_back({site.site.layer, group, of_site[k]});
    }
  }
  factors_.assign(places_.size(), 1.0);
  const TensorView view{target.head_gram.values.data(), DType::kF32, target.head_gram.rows,
                        target.head_gram.cols};
  auto packed = backend.PackMatrix(std::span(&view, 1));
  if (packed.ok()) gram_ = *std::move(packed);
  status_ = packed.status();
}

Matrix ScaleDistiller::TimesGram(const Matrix& rows) const {
  Matrix product(rows.rows, rows.cols);
  GemmArgs args;
  args.weight = gram_.get();
  backend_.Gemm(
      args, {const_cast<float*>(rows.values.data()), DType::kF32, rows.rows, rows.cols, rows.cols},
      {product.values.data(), rows.rows, rows.cols, rows.cols});
  return product;
}

double ScaleDistiller::Square(const Matrix& error) const { return Dot(error, TimesGram(error)); }

StatusOr<Matrix> ScaleDistiller::RunWith(const std::vector<double>& factors) {
  POLYAD_RETURN_IF_ERROR(status_);
  for (size_t i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    version_.MutableAt(place.layer, place.group).deltas[place.index].scale =
        static_cast<float>(factors[i]);
  }
  return HeadInputs(base_, target_.tokens, &version_);
}

StatusOr<double> ScaleDistiller::LossAt(const std::vector<double>& factors) {
  POLYAD_ASSIGN_OR_RETURN(const Matrix rows, RunWith(factors));
  return Square(Minus(rows, target_.head_inputs));
}

StatusOr<double> ScaleDistiller::BaseLoss() {
  POLYAD_RETURN_IF_ERROR(status_);
  POLYAD_ASSIGN_OR_RETURN(const Matrix rows, HeadInputs(base_, target_.tokens, nullptr));
  return Square(Minus(rows, target_.head_inputs));
}

// The change of the factors that is best where rows are linear in them.
StatusOr<std::vector<double>> ScaleDistiller::Step(const std::function<void()>& ran) {
  const size_t n = factors_.size();
  POLYAD_ASSIGN_OR_RETURN(const Matrix now, RunWith(factors_));
  const Matrix missing = TimesGram(Minus(target_.head_inputs, now));
  std::vector<Matrix> slopes;
  std::vector<double> normal(n * n);
  std::vector<double> wanted(n);
  for (size_t i = 0; i < n; ++i) {
    std::vector<double> nudged = factors_;
    nudged[i] += kNudge;
    POLYAD_ASSIGN_OR_RETURN(Matrix rows, RunWith(nudged));
    rows = Minus(std::move(rows), now);
    Scale(rows, 1 / kNudge);
    slopes.push_back(std::move(rows));
    wanted[i] = Dot(slopes[i], missing);
    const Matrix seen = TimesGram(slopes[i]);
    for (size_t j = 0; j <= i; ++j) normal[i * n + j] = normal[j * n + i] = Dot(seen, slopes[j]);
    ran();
  }
  for (size_t i = 0; i < n; ++i) normal[i * n + i] = normal[i * n + i] * (1 + kDamping) + 1e-30;
  if (!SolveInPlace(normal, wanted, static_cast<int64_t>(n), 1))
    std::fill(wanted.begin(), wanted.end(), 0.0);
  return wanted;
}

Status ScaleDistiller::Run(int steps, const std::function<void()>& ran) {
  POLYAD_ASSIGN_OR_RETURN(double loss, Loss());
  for (int step = 0; step < steps; ++step) {
    POLYAD_ASSIGN_OR_RETURN(const std::vector<double> change, Step(ran));
    for (double length = 1; length > 0.2; length /= 2) {  // rows are not quite linear
      std::vector<double> moved = factors_;
      for (size_t i = 0; i < moved.size(); ++i) moved[i] += length * change[i];
      POLYAD_ASSIGN_OR_RETURN(const double moved_loss, LossAt(moved));
      if (!(moved_loss < loss)) continue;
      loss = moved_loss;
      factors_ = std::move(moved);
      break;
    }
  }
  return absl::OkStatus();
}

}  // namespace polyad
