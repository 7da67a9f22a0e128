#include "engine/inspect_base.h"

#include "engine/model/weights.h"
#include "engine/spec/model_files.h"
#include "engine/spec/weights_digest.h"

namespace polyad {

StatusOr<BaseReport> InspectBase(const std::string& path, Backend& backend) {
  POLYAD_ASSIGN_OR_RETURN(const ModelFiles files, OpenModel(path));
  BaseReport report;
  report.spec = files.spec();
  POLYAD_ASSIGN_OR_RETURN(report.weights_sha256, WeightsDigest(files));
  POLYAD_ASSIGN_OR_RETURN(report.bytes, MeasureWeights(files, backend));
  return report;
}

}  // namespace polyad
