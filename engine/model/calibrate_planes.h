#pragma once

// Fits the planes of a compressed fine-tune to a text (docs/decisions/0006 says how and why). First
// matrix by matrix: signs and scales that least disturb what the fine-tune's own products give for
// the inputs they see on the text (refine_planes.h). Then together: a factor for each plane such
// that the compressed model's logits come nearest to the fine-tune's, as BitDelta distils its
// scales (Liu et al. 2024, section 3.1), by Gauss-Newton steps whose derivatives are differences of
// forward passes. Everything in the exact mode. One thread; loads both models.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/adapters/model_delta.h"
#include "engine/adapters/plane_file.h"
#include "engine/base/status.h"
#include "engine/model/distil_scales.h"
#include "engine/model/refine_planes.h"
#include "engine/model/text_window.h"
#include "kernels/api/backend.h"

namespace polyad {

using CalibrateProgress = std::function<void(int64_t done, int64_t total)>;

struct CalibrateOptions {
  RefineOptions refine;
  int64_t gram_bytes = int64_t{1} << 30;  // of Gram matrices held at once; more layers, more passes
  int64_t distil_tokens = 256;            // 0: no distillation
  int distil_steps = 1;
  CalibrateProgress progress;  // of matrices, then of forward passes; may be empty
};

struct CalibrateReport {
  double output_error_before = 0;  // relative, root of squares, over all matrices' outputs
  double output_error = 0;
  double logit_error_before = 0;  // relative to the fine-tune's distance from its base
  double logit_error = 0;
};

class PlaneCalibrator {
 public:
  PlaneCalibrator(std::shared_ptr<const ModelDelta> models, Backend& backend,
                  std::vector<std::vector<int32_t>> windows, CalibrateOptions options)
      : models_(std::move(models)),
        backend_(backend),
        windows_(std::move(windows)),
        options_(std::move(options)) {}

  // Rewrites the planes of the container in `directory`.
  StatusOr<CalibrateReport> Run(const std::string& directory);

 private:
  Status Refine(Model& fine_tuned, std::vector<SitePlanes>& sites,
                const std::function<void()>& show);
  Status RefineSite(const Matrix& gram, SitePlanes& site);
  Status Distil(const std::string& directory, const DistilTarget& target,
                std::vector<SitePlanes>& sites, const std::function<void()>& show);

  std::shared_ptr<const ModelDelta> models_;
  Backend& backend_;
  const std::vector<std::vector<int32_t>> windows_;
  const CalibrateOptions options_;
  CalibrateReport report_;
  OutputError before_;
  OutputError after_;
};

}  // namespace polyad
