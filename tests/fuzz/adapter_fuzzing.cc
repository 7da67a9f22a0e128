#include "tests/fuzz/adapter_fuzzing.h"

#include <charconv>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/adapters/adapter_version.h"
#include "engine/adapters/family_table.h"
#include "engine/adapters/load_report.h"
#include "engine/adapters/program_packing.h"
#include "engine/base/check.h"
#include "kernels/reference/reference_backend.h"

namespace polyad {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 20;
constexpr size_t kMaxDimensions = 8;

// The tiny llama of the goldens.
ModelSpec Spec() {
  ModelSpec spec;
  spec.architecture = Architecture::kLlama;
  spec.hidden_size = 64;
  spec.num_layers = 2;
  spec.num_heads = 4;
  spec.num_kv_heads = 4;
  spec.head_dim = 16;
  spec.intermediate_size = 96;
  spec.vocab_size = 320;
  spec.max_position = 128;
  spec.sliding_window = {0, 0};
  return spec;
}

// Small numbers of both signs, no two alike for long.
float Number(size_t index) { return static_cast<float>(index * 37 % 101) / 50.0f - 1.0f; }

class SomeBase final : public BaseWeights {
 public:
  explicit SomeBase(const ModelSpec& spec) : spec_(spec) {}
  StatusOr<std::vector<float>> Matrix(SiteRef site) const override {
    const SiteShape shape = ShapeOf(spec_, site.site);
    return Numbers(shape.out * shape.in);
  }
  StatusOr<std::vector<float>> Bias(SiteRef) const override { return std::vector<float>(); }
  StatusOr<NormVectors> Norm(int64_t, NormSite site) const override {
    const bool of_heads = site == NormSite::kQueryHead || site == NormSite::kKeyHead;
    return NormVectors{of_heads ? std::vector<float>() : Numbers(spec_.hidden_size), {}};
  }

 private:
  static std::vector<float> Numbers(int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) values[i] = Number(i);
    return values;
  }

  const ModelSpec& spec_;
};

struct Kind {
  std::string_view name;
  size_t bytes;
};
constexpr Kind kKinds[] = {{"F32", 4}, {"BF16", 2}, {"F16", 2}, {"F64", 8}, {"I64", 8},
                           {"I32", 4}, {"I16", 2},  {"I8", 1},  {"U8", 1},  {"BOOL", 1}};

void AppendNumber(const Kind& kind, size_t index, std::string& bytes) {
  const float number = Number(index);
  uint32_t bits = 0;
  std::memcpy(&bits, &number, sizeof(bits));
  char element[8] = {};
  if (kind.name == "F32") {
    std::memcpy(element, &bits, 4);
  } else if (kind.name == "F64") {
    const double wide = number;
    std::memcpy(element, &wide, 8);
  } else if (kind.name == "BF16" || kind.name == "F16") {
    const auto half =
        static_cast<uint16_t>(kind.name == "BF16" ? bits >> 16 : 0x3000 + index % 997);
    std::memcpy(element, &half, 2);
  } else {
    element[0] = static_cast<char>(index % 61);  // integers are mostly indices
  }
  bytes.append(element, kind.bytes);
}

std::vector<std::string_view> Words(std::string_view line) {
  std::vector<std::string_view> words;
  while (words.size() < kMaxDimensions + 2) {
    const size_t end = line.find(' ');
    words.push_back(line.substr(0, end));
    if (end == std::string_view::npos) break;
    line.remove_prefix(end + 1);
  }
  return words;
}

bool ReadInteger(std::string_view word, int64_t* value) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), *value);
  return error == std::errc() && end == word.data() + word.size();
}

// Tensors in the order of their lines.
class TensorFile {
 public:
  // False where it would grow too large.
  bool Add(const std::vector<std::string_view>& words) {
    const Kind* kind = nullptr;
    for (const Kind& known : kKinds) {
      if (words.size() > 1 && known.name == words[1]) kind = &known;
    }
    if (kind == nullptr) return true;
    int64_t count = 1;
    OrderedJson shape = OrderedJson::array();
    for (size_t i = 2; i < words.size(); ++i) {
      int64_t size = 0;
      if (!ReadInteger(words[i], &size) || size < 0) return true;
      if (size > kMaxBytes || count * size > kMaxBytes) return false;
      count *= size;
      shape.push_back(size);
    }
    const size_t begin = data_.size();
    for (int64_t i = 0; i < count; ++i) {
      AppendNumber(*kind, begin + static_cast<size_t>(i), data_);
    }
    header_[std::string(words[0])] = {
        {"dtype", kind->name}, {"shape", shape}, {"data_offsets", {begin, data_.size()}}};
    return static_cast<int64_t>(data_.size()) <= kMaxBytes;
  }

  std::string Finish() const {
    const std::string text = header_.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
    const uint64_t length = text.size();
    std::string file(sizeof(length), '\0');
    std::memcpy(file.data(), &length, sizeof(length));
    return file + text + data_;
  }

 private:
  OrderedJson header_ = OrderedJson::object();
  std::string data_;
};

}  // namespace

std::optional<AdapterText> BuildAdapter(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t split = text.find('\0');
  AdapterText adapter;
  adapter.config = text.substr(0, split);
  TensorFile file;
  std::string_view rest = split == std::string_view::npos ? "" : text.substr(split + 1);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::vector<std::string_view> words = Words(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    int64_t value = 0;
    if (words.size() == 3 && words[0] == "option" && ReadInteger(words[2], &value)) {
      adapter.options[std::string(words[1])] = value;
    } else if (!file.Add(words)) {
      return std::nullopt;
    }
  }
  adapter.tensors = file.Finish();
  return adapter;
}

void LoadAdapterBytes(std::string config, std::string tensors, AdapterFormat format,
                      const AdapterOptions& options) {
  static const ModelSpec spec = Spec();
  static const SomeBase base(spec);
  static ref::ReferenceBackend backend(ComputeMode::kF32);
  StatusOr<AdapterSource> source =
      AdapterSource::FromBytes(std::move(config), std::move(tensors), format);
  if (!source.ok()) return;
  const StatusOr<AdapterProgram> program = LowerAdapter(*source, {spec, &base, options});
  if (!program.ok()) return;
  AdapterVersion version({AdapterVersionId(1), "fuzzed", 1, {}}, spec.num_layers);
  const StatusOr<ProgramCosts> costs = PackProgram(*program, spec, backend, version);
  if (!costs.ok()) return;
  const StatusOr<LoadReport> report = ReportOf(*source, *program, spec, *costs);
  if (report.ok()) POLYAD_CHECK(!report->family.empty(), "a report names its family");
}

}  // namespace polyad
