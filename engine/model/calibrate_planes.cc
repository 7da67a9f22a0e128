#include "engine/model/calibrate_planes.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/adapters/adapter_loader.h"
#include "engine/adapters/file_base_weights.h"
#include "engine/adapters/program_packing.h"
#include "engine/base/check.h"
#include "engine/model/distil_scales.h"
#include "engine/model/input_grams.h"

namespace polyad {
namespace {

StatusOr<ModelOptions> OptionsFor(const ModelSpec& spec, const Backend& backend) {
  ModelOptions options;
  options.max_step_tokens = kWindowTokens;
  options.max_context = std::min(kWindowTokens, spec.max_position);
  const int64_t blocks = kWindowTokens / kBlockTokens + 1;
  POLYAD_ASSIGN_OR_RETURN(
      const int64_t block_bytes,
      backend.KvBlockBytes({spec.num_layers, spec.num_kv_heads, spec.head_dim}));
  options.kv_bytes = blocks * block_bytes;
  return options;
}

StatusOr<Matrix> ReadChange(const ModelDelta& models, SiteRef site) {
  POLYAD_ASSIGN_OR_RETURN(const WeightPair pair,
                          models.Read(site.layer, WeightsOf(site.site).matrix));
  Matrix change(pair.rows(), pair.cols());
  for (int64_t row = 0; row < pair.rows(); ++row) pair.Change(row, change.Row(row));
  return change;
}

// W'W of the fine-tune's head, a block of rows at a time.
StatusOr<Matrix> HeadGram(const ModelDelta& models, Backend& backend) {
  constexpr int64_t kBlockRows = 2048;
  POLYAD_ASSIGN_OR_RETURN(const WeightPair pair, models.Read(-1, WeightKind::kHead));
  InputGrams gram(backend, 0, 1);
  for (int64_t begin = 0; begin < pair.rows(); begin += kBlockRows) {
    Matrix block(std::min(kBlockRows, pair.rows() - begin), pair.cols());
    for (int64_t row = 0; row < block.rows; ++row) pair.FineTuned(begin + row, block.Row(row));
    gram.OnInput(0, SiteGroup::kHead,
                 {block.values.data(), DType::kF32, block.rows, block.cols, block.cols});
  }
  POLYAD_RETURN_IF_ERROR(gram.status());
  return gram.Mean(0, SiteGroup::kHead);
}

double Relative(double squared_error, double squares) {
  return squares > 0 ? std::sqrt(squared_error / squares) : 0.0;
}

}  // namespace

StatusOr<CalibrateReport> PlaneCalibrator::Run(const std::string& directory) {
  if (windows_.empty()) return InvalidArgument("calibrate: expected a text, got none");
  const ModelSpec& spec = models_->base().spec();
  POLYAD_ASSIGN_OR_RETURN(std::vector<SitePlanes> sites, ReadPlanes(directory, spec));
  int64_t num_planes = 0;
  for (const SitePlanes& site : sites)
    num_planes += static_cast<int64_t>(site.planes.planes.size());
  const auto num_sites = static_cast<int64_t>(sites.size());
  const bool distils = options_.distil_tokens > 0 && num_planes > 0;
  const int64_t total = num_sites + (distils ? num_planes * options_.distil_steps : 0);
  int64_t done = 0;
  const auto show = [&] {
    if (options_.progress) options_.progress(++done, total);
  };
  DistilTarget target;
  {
    POLYAD_ASSIGN_OR_RETURN(const ModelOptions options,
                            OptionsFor(models_->fine_tuned().spec(), backend_));
    POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<Model> fine_tuned,
                            Model::Load(models_->fine_tuned(), backend_, options));
    POLYAD_RETURN_IF_ERROR(Refine(*fine_tuned, sites, show));
    POLYAD_RETURN_IF_ERROR(WritePlanes(directory, sites));
    if (!distils) return report_;
    target.tokens = windows_.front();
    target.tokens.resize(
        std::min(target.tokens.size(), static_cast<size_t>(options_.distil_tokens)));
    POLYAD_ASSIGN_OR_RETURN(target.head_inputs, HeadInputs(*fine_tuned, target.tokens, nullptr));
  }
  POLYAD_ASSIGN_OR_RETURN(target.head_gram, HeadGram(*models_, backend_));
  POLYAD_RETURN_IF_ERROR(Distil(directory, target, sites, show));
  POLYAD_RETURN_IF_ERROR(WritePlanes(directory, sites));
  return report_;
}

// Layers in runs whose Gram matrices fit the budget; each run sees the text once.
Status PlaneCalibrator::Refine(Model& fine_tuned, std::vector<SitePlanes>& sites,
                               const std::function<void()>& show) {
  const ModelSpec& spec = models_->base().spec();
  int64_t floats = 0;
  for (const int64_t width :
       {spec.hidden_size, spec.QueryWidth(), spec.hidden_size, spec.intermediate_size}) {
    floats += width * width;
  }
  const int64_t at_once =
      std::max<int64_t>(1, options_.gram_bytes / (floats * int64_t{sizeof(float)}));
  for (int64_t begin = 0; begin < spec.num_layers; begin += at_once) {
    InputGrams grams(backend_, begin, std::min(begin + at_once, spec.num_layers));
    fine_tuned.Observe(&grams);
    Status status;
    for (size_t i = 0; i < windows_.size() && status.ok(); ++i) {
      status = RunWindow(fine_tuned, windows_[i], nullptr).status();
    }
    fine_tuned.Observe(nullptr);
    POLYAD_RETURN_IF_ERROR(status);
    POLYAD_RETURN_IF_ERROR(grams.status());
    for (SitePlanes& site : sites) {
      if (site.site.layer < begin || site.site.layer >= begin + at_once) continue;
      POLYAD_RETURN_IF_ERROR(
          RefineSite(grams.Mean(site.site.layer, GroupOf(site.site.site)), site));
      show();
    }
  }
  report_.output_error_before = Relative(before_.squared_error, before_.squares);
  report_.output_error = Relative(after_.squared_error, after_.squares);
  return absl::OkStatus();
}

Status PlaneCalibrator::RefineSite(const Matrix& gram, SitePlanes& site) {
  POLYAD_ASSIGN_OR_RETURN(const Matrix change, ReadChange(*models_, site.site));
  const auto add = [&](OutputError& to) -> Status {
    POLYAD_ASSIGN_OR_RETURN(const OutputError error,
                            OutputErrorOf(change, gram, backend_, site.planes));
    // Each site counts alike, whatever the size of its outputs.
    to.squared_error += error.squares > 0 ? error.squared_error / error.squares : 0.0;
    to.squares += 1;
    return absl::OkStatus();
  };
  POLYAD_RETURN_IF_ERROR(add(before_));
  POLYAD_RETURN_IF_ERROR(RefinePlanes(change, gram, options_.refine, backend_, site.planes));
  return add(after_);
}

Status PlaneCalibrator::Distil(const std::string& directory, const DistilTarget& target,
                               std::vector<SitePlanes>& sites, const std::function<void()>& show) {
  const std::shared_ptr<const ModelFiles> files(models_, &models_->base());
  POLYAD_ASSIGN_OR_RETURN(const ModelOptions options, OptionsFor(files->spec(), backend_));
  POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<Model> base,
                          Model::Load(*files, backend_, options));
  const FileBaseWeights weights(files);
  POLYAD_ASSIGN_OR_RETURN(
      const LoadedAdapter loaded,
      LoadAdapter({{files->spec(), &weights, {}, {}}, backend_}, {"", directory}, {}, nullptr));
  ScaleDistiller distiller(*base, backend_, *loaded.version, sites, target);
  POLYAD_ASSIGN_OR_RETURN(const double of_base, distiller.BaseLoss());
  POLYAD_ASSIGN_OR_RETURN(const double before, distiller.Loss());
  POLYAD_RETURN_IF_ERROR(distiller.Run(options_.distil_steps, show));
  POLYAD_ASSIGN_OR_RETURN(const double after, distiller.Loss());
  report_.logit_error_before = Relative(before, of_base);
  report_.logit_error = Relative(after, of_base);
  size_t next = 0;
  for (SitePlanes& site : sites) {
    for (SignPlane& plane : site.planes.planes) {
      const double factor = distiller.factors()[next++];
      for (float& scale : plane.scale) scale = static_cast<float>(scale * factor);
    }
  }
  return absl::OkStatus();
}

}  // namespace polyad
