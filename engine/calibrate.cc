#include "engine/calibrate.h"

#include <algorithm>
#include <utility>

namespace polyad {

StatusOr<CalibrateReport> CalibrateContainer(const std::string& directory,
                                             std::shared_ptr<const ModelDelta> models,
                                             Backend& backend, const std::vector<int32_t>& tokens,
                                             const CalibrateOptions& options) {
  const int64_t window = std::min(kWindowTokens, models->base().spec().max_position);
  std::vector<std::vector<int32_t>> windows;
  for (auto at = tokens.begin(); at != tokens.end();) {
    const auto end = at + std::min<std::ptrdiff_t>(window, tokens.end() - at);
    windows.emplace_back(at, end);
    at = end;
  }
  return PlaneCalibrator(std::move(models), backend, std::move(windows), options).Run(directory);
}

}  // namespace polyad
