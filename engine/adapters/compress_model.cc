#include "engine/adapters/compress_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <span>
#include <utility>

#include "engine/adapters/zoo_container.h"
#include "engine/io/file.h"
#include "engine/io/float_bits.h"
#include "engine/io/part_directory.h"
#include "engine/io/quote.h"
#include "engine/io/safetensors_writer.h"
#include "engine/spec/sites.h"
#include "engine/spec/weights_digest.h"

namespace polyad {
namespace {

// One weight that changed, and what the file will hold of it.
struct Part {
  enum class Kind { kPlanes, kVector, kRows };
  Kind kind = Kind::kVector;
  int64_t layer = -1;
  WeightKind weight = WeightKind::kEmbed;
  std::string name;           // of the op, or of a vector's tensor, or of shared rows
  std::vector<int32_t> rows;  // kRows: those that changed
};

std::string Place(int64_t layer, std::string_view site) {
  return (layer < 0 ? "" : "L" + std::to_string(layer) + ".") + std::string(site);
}

std::string PlaceOf(int64_t layer, Site site) {
  for (const SiteSpelling& spelling : kSiteSpellings) {
    if (spelling.site == site) return Place(layer, spelling.name);
  }
  return "?";
}

std::span<const uint8_t> BytesOf(const auto& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(values[0])};
}

class Compressor {
 public:
  Compressor(const ModelDelta& models, const CompressOptions& options,
             const CompressProgress& progress)
      : models_(models),
        spec_(models.base().spec()),
        options_(options),
        progress_(progress),
        num_pairs_(static_cast<int64_t>(models.base().weights().size())) {}

  // Finds what changed, and plans the file.
  Status Compare() {
    POLYAD_RETURN_IF_ERROR(CompareRows(WeightKind::kEmbed));
    if (models_.Has(-1, WeightKind::kPositions)) {
      POLYAD_ASSIGN_OR_RETURN(const std::vector<int32_t> changed,
                              Changed(-1, WeightKind::kPositions));
      if (!changed.empty()) {
        return Unimplemented(
            "fine-tuned: the position table changed, and no adapter can carry that");
      }
    }
    for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
      POLYAD_RETURN_IF_ERROR(CompareNorm(layer, "norm1", WeightKind::kAttnNorm));
      POLYAD_RETURN_IF_ERROR(CompareNorm(layer, "qnorm", WeightKind::kQNorm));
      POLYAD_RETURN_IF_ERROR(CompareNorm(layer, "knorm", WeightKind::kKNorm));
      for (const Site site : LayerSites(spec_)) POLYAD_RETURN_IF_ERROR(CompareSite(layer, site));
      POLYAD_RETURN_IF_ERROR(CompareNorm(layer, "norm2", WeightKind::kMlpNorm));
    }
    POLYAD_RETURN_IF_ERROR(CompareNorm(-1, "normf", WeightKind::kFinalNorm));
    if (!Tied()) POLYAD_RETURN_IF_ERROR(CompareRows(WeightKind::kHead));
    if (parts_.empty()) {
      return FailedPrecondition("fine-tuned: every weight is the base's: nothing to write");
    }
    for (const Part& part : parts_) Plan(part);
    return absl::OkStatus();
  }

  Status Write(const std::string& directory) {
    POLYAD_ASSIGN_OR_RETURN(writer_,
                            SafetensorsWriter::Create(directory + "/zoo.safetensors", planned_));
    const int64_t before = done_;
    for (size_t i = 0; i < parts_.size(); ++i) {
      POLYAD_RETURN_IF_ERROR(WritePart(parts_[i]));
      const auto written = static_cast<int64_t>(i) + 1;
      Show(before + num_pairs_ * written / static_cast<int64_t>(parts_.size()));
    }
    POLYAD_RETURN_IF_ERROR(writer_->Finish());
    return WriteConfig(directory);
  }

  CompressReport Report() {
    for (const WeightEntry& entry : models_.base().weights()) {
      if (entry.layer < 0 && entry.kind != WeightKind::kFinalNorm) continue;
      report_.bf16_bytes += 2 * NumElements(entry.shape).value_or(0);
    }
    return std::move(report_);
  }

 private:
  // The rows of a pair in which anything changed.
  StatusOr<std::vector<int32_t>> Changed(int64_t layer, WeightKind kind) {
    POLYAD_ASSIGN_OR_RETURN(const WeightPair pair, models_.Read(layer, kind));
    std::vector<int32_t> rows;
    for (int64_t row = 0; row < pair.rows(); ++row) {
      if (pair.IsChanged(row)) rows.push_back(static_cast<int32_t>(row));
    }
    Show(++done_);
    return rows;
  }

  Status CompareSite(int64_t layer, Site site) {
    const SiteWeights weights = WeightsOf(site);
    POLYAD_ASSIGN_OR_RETURN(const std::vector<int32_t> rows, Changed(layer, weights.matrix));
    const std::string place = PlaceOf(layer, site);
    if (!rows.empty()) {
      parts_.push_back({Part::Kind::kPlanes, layer, weights.matrix, place + ".sg.", {}});
      ++report_.num_matrices;
    }
    return CompareVector(layer, weights.bias, place + ".bi.0.b");
  }

  // A norm is replaced whole where its weight or its bias changed.
  Status CompareNorm(int64_t layer, std::string_view site, WeightKind weight) {
    if (!models_.Has(layer, weight)) return absl::OkStatus();
    const auto bias = static_cast<WeightKind>(static_cast<int>(weight) + 1);
    const bool head = weight == WeightKind::kQNorm || weight == WeightKind::kKNorm;
    const bool has_bias = !head && spec_.norm == NormKind::kLayer;
    POLYAD_ASSIGN_OR_RETURN(const std::vector<int32_t> of_weight, Changed(layer, weight));
    std::vector<int32_t> of_bias;
    if (has_bias) {
      POLYAD_ASSIGN_OR_RETURN(of_bias, Changed(layer, bias));
    }
    if (of_weight.empty() && of_bias.empty()) return absl::OkStatus();
    const std::string op = Place(layer, site) + ".nw.0.";
    parts_.push_back({Part::Kind::kVector, layer, weight, op + "w", {}});
    if (has_bias) parts_.push_back({Part::Kind::kVector, layer, bias, op + "b", {}});
    return absl::OkStatus();
  }

  Status CompareVector(int64_t layer, WeightKind kind, std::string name) {
    if (!models_.Has(layer, kind)) return absl::OkStatus();
    POLYAD_ASSIGN_OR_RETURN(const std::vector<int32_t> rows, Changed(layer, kind));
    if (rows.empty()) return absl::OkStatus();
    parts_.push_back({Part::Kind::kVector, layer, kind, std::move(name), {}});
    return absl::OkStatus();
  }

  // A tied head shares the embedding's rows.
  Status CompareRows(WeightKind kind) {
    POLYAD_ASSIGN_OR_RETURN(std::vector<int32_t> rows, Changed(-1, kind));
    if (rows.empty()) return absl::OkStatus();
    const bool head = kind == WeightKind::kHead;
    const std::string name = head ? "shared.head" : "shared.tokens";
    if (!head) sites_["embed.er.0"] = {{"ids", name + "_rows"}, {"delta", name}};
    if (head || Tied()) sites_["head.rb.0"] = {{"rows", name + "_rows"}, {"val", name}};
    report_.num_token_rows += static_cast<int64_t>(rows.size());
    parts_.push_back({Part::Kind::kRows, -1, kind, name, std::move(rows)});
    return absl::OkStatus();
  }

  bool Tied() const { return spec_.tie_embeddings && models_.fine_tuned().spec().tie_embeddings; }

  void Announce(const Part& part, std::string name, const char* type, std::vector<int64_t> shape,
                int64_t item_bytes) {
    const int64_t bytes = NumElements(shape).value_or(0) * item_bytes;
    planned_.push_back({std::move(name), type, std::move(shape), bytes});
    report_.bytes += bytes;
    if (part.kind != Part::Kind::kRows) report_.bytes_of_layers += bytes;
    if (part.layer >= 0) LayerOf(part).bytes += bytes;
  }

  // Shapes are the base plan's: [out, in], or [n].
  void Plan(const Part& part) {
    if (part.kind == Part::Kind::kPlanes) return PlanPlanes(part);
    if (part.kind == Part::Kind::kVector) {
      return Announce(part, part.name, "F32", {ShapeOf(part).back()}, 4);
    }
    const auto count = static_cast<int64_t>(part.rows.size());
    const std::vector<int64_t> shape = {count, spec_.hidden_size};
    Announce(part, part.name + "_rows", "I32", {count}, 4);
    switch (options_.rest) {
      case RestFormat::kF32:
        return Announce(part, part.name, "F32", shape, 4);
      case RestFormat::kBF16:
        return Announce(part, part.name, "BF16", shape, 2);
      case RestFormat::kInt8:
        Announce(part, part.name, "I8", shape, 1);
        return Announce(part, part.name + ".scale", "F32", {count}, 4);
    }
  }

  void PlanPlanes(const Part& part) {
    const std::vector<int64_t> shape = ShapeOf(part);
    const int64_t words = (shape[1] + 31) / 32;
    std::vector<int64_t> scales;
    if (options_.planes.scale != PlaneScale::kTensor) scales.push_back(shape[0]);
    if (options_.planes.scale == PlaneScale::kGroup) {
      scales.push_back(shape[1] / GroupOf(shape[1], options_.planes.group));
    }
    for (int64_t plane = 0; plane < options_.planes.num_planes; ++plane) {
      const std::string op = part.name + std::to_string(plane);
      Announce(part, op + ".bits", "I32", {shape[0], words}, 4);
      Announce(part, op + ".coef", "F32", scales, 4);
    }
  }

  std::vector<int64_t> ShapeOf(const Part& part) const {
    for (const ModelFiles* files : {&models_.base(), &models_.fine_tuned()}) {
      for (const WeightEntry& entry : files->weights()) {
        if (entry.layer == part.layer && entry.kind == part.weight) return entry.shape;
      }
    }
    return {0, 0};
  }

  CompressReport::Layer& LayerOf(const Part& part) {
    const auto at = static_cast<size_t>(part.layer);
    while (report_.layers.size() <= at) {
      report_.layers.push_back({static_cast<int64_t>(report_.layers.size()), 0, 0, 0});
    }
    return report_.layers[at];
  }

  Status WritePart(const Part& part) {
    POLYAD_ASSIGN_OR_RETURN(const WeightPair pair, models_.Read(part.layer, part.weight));
    if (part.kind == Part::Kind::kPlanes) return WritePlanes(part, pair);
    if (part.kind == Part::Kind::kRows) return WriteRows(part, pair);
    std::vector<float> values(static_cast<size_t>(pair.cols()));
    pair.FineTuned(0, values.data());
    POLYAD_RETURN_IF_ERROR(CheckFinite(part, values));
    return writer_->Write(BytesOf(values));
  }

  Status WritePlanes(const Part& part, const WeightPair& pair) {
    const SignPlanes made = FitSignPlanes(pair.rows(), pair.cols(), options_.planes,
                                          [&](int64_t row, float* out) { pair.Change(row, out); });
    CompressReport::Layer& layer = LayerOf(part);
    layer.squared_error += made.squared_error;
    layer.squares += made.squares;
    for (const SignPlane& plane : made.planes) {
      POLYAD_RETURN_IF_ERROR(CheckFinite(part, plane.scale));
      POLYAD_RETURN_IF_ERROR(writer_->Write(BytesOf(plane.bits)));
      POLYAD_RETURN_IF_ERROR(writer_->Write(BytesOf(plane.scale)));
    }
    return absl::OkStatus();
  }

  Status WriteRows(const Part& part, const WeightPair& pair) {
    const auto cols = static_cast<size_t>(pair.cols());
    std::vector<float> row(cols);
    std::vector<float> scales;
    POLYAD_RETURN_IF_ERROR(writer_->Write(BytesOf(part.rows)));
    for (const int32_t at : part.rows) {
      pair.Change(at, row.data());
      POLYAD_RETURN_IF_ERROR(CheckFinite(part, row));
      POLYAD_RETURN_IF_ERROR(WriteRow(row, scales));
    }
    if (options_.rest != RestFormat::kInt8) return absl::OkStatus();
    return writer_->Write(BytesOf(scales));
  }

  Status WriteRow(const std::vector<float>& row, std::vector<float>& scales) {
    switch (options_.rest) {
      case RestFormat::kF32:
        return writer_->WritePiece(BytesOf(row));
      case RestFormat::kBF16: {
        std::vector<uint16_t> rounded;
        for (const float value : row) rounded.push_back(FloatToBFloat16(value));
        return writer_->WritePiece(BytesOf(rounded));
      }
      case RestFormat::kInt8: {
        float largest = 0;
        for (const float value : row) largest = std::max(largest, std::fabs(value));
        scales.push_back(largest / 127.0f);
        std::vector<int8_t> codes;
        for (const float value : row) {
          const float steps = largest > 0 ? std::nearbyint(value / scales.back()) : 0.0f;
          codes.push_back(static_cast<int8_t>(std::clamp(steps, -127.0f, 127.0f)));
        }
        return writer_->WritePiece(BytesOf(codes));
      }
    }
    return absl::OkStatus();
  }

  static Status CheckFinite(const Part& part, const std::vector<float>& values) {
    const bool finite =
        std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
    if (finite) return absl::OkStatus();
    return InvalidArgument("%s: the change holds a NaN or an infinity", Quote(part.name));
  }

  Status WriteConfig(const std::string& directory) const {
    POLYAD_ASSIGN_OR_RETURN(const Digest digest, WeightsDigest(models_.base()));
    OrderedJson config;
    config["zoo_version"] = 1;
    config["family"] = "bitdelta";
    config["base"] = {{"name", models_.base().spec().name}, {"weights_sha256", ToHex(digest)}};
    config["dtype"] = "f32";
    config["sites"] = sites_;
    std::ofstream file(directory + "/zoo.json", std::ios::binary);
    constexpr auto kReplace = OrderedJson::error_handler_t::replace;
    file << config.dump(2, ' ', true, kReplace) << "\n";
    file.close();
    if (file.fail()) return Internal("compress: zoo.json cannot be written");
    return absl::OkStatus();
  }

  // Comparing and writing are half of the work each.
  void Show(int64_t done) const {
    if (progress_) progress_(std::min(done, 2 * num_pairs_), 2 * num_pairs_);
  }

  const ModelDelta& models_;
  const ModelSpec& spec_;
  const CompressOptions& options_;
  const CompressProgress& progress_;
  const int64_t num_pairs_;
  int64_t done_ = 0;
  std::vector<Part> parts_;
  OrderedJson sites_ = OrderedJson::object();
  std::vector<TensorToWrite> planned_;
  std::unique_ptr<SafetensorsWriter> writer_;
  CompressReport report_;
};

Status CheckOptions(const CompressOptions& options) {
  if (options.planes.num_planes < 1 || options.planes.num_planes > kMaxPlanes) {
    return InvalidArgument("compress: bits: expected 1 to %d, got %d", kMaxPlanes,
                           options.planes.num_planes);
  }
  if (options.planes.group < 32) {
    return InvalidArgument("compress: group: expected at least 32, got %d", options.planes.group);
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<CompressReport> CompressModel(const ModelDelta& models, const CompressOptions& options,
                                       const CompressProgress& progress,
                                       const CompressStep& finish) {
  POLYAD_RETURN_IF_ERROR(CheckOptions(options));
  PartDirectory directory(options.out);
  POLYAD_RETURN_IF_ERROR(directory.CheckFree());
  Compressor compressor(models, options, progress);
  POLYAD_RETURN_IF_ERROR(compressor.Compare());
  POLYAD_RETURN_IF_ERROR(directory.Make());
  POLYAD_RETURN_IF_ERROR(compressor.Write(directory.path()));
  if (finish) POLYAD_RETURN_IF_ERROR(finish(directory.path()));
  POLYAD_RETURN_IF_ERROR(directory.Finish());
  return compressor.Report();
}

}  // namespace polyad
