// Every family: known to the table, documented with a golden, and hard to fool. Each golden adapter
// is spoiled in every generic way (cut off, not finite, a tensor missing, one too many, a factor
// transposed, an unknown key, rank 0) and must be refused with a status that names the culprit, or
// lower to something else where the file stays meaningful.
#include <algorithm>
#include <cctype>
#include <numeric>
#include <set>
#include <sstream>

#include "engine/adapters/delta_norms.h"
#include "engine/adapters/family_table.h"
#include "engine/io/json.h"
#include "gtest/gtest.h"
#include "tests/engine/adapters/golden_adapter.h"

namespace polyad {
namespace {

// What a program amounts to, to tell two apart without comparing tensors.
struct Fingerprint {
  size_t ops = 0;
  size_t others = 0;
  std::vector<double> norms;

  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
};

StatusOr<Fingerprint> LowerBytes(const GoldenAdapter& golden, const std::string& tensors) {
  const GoldenBase& base = BaseOf(golden.model);
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source,
                          AdapterSource::FromBytes(golden.config, tensors, golden.format));
  const LoweringContext context{base.files->spec(), base.weights.get(), golden.options};
  POLYAD_ASSIGN_OR_RETURN(const AdapterProgram program, LowerAdapter(source, context));
  Fingerprint print;
  print.ops = program.ops.size();
  print.others = program.embedding_ops.size() + program.norms.size() + program.hooks.size() +
                 program.routers.size();
  POLYAD_ASSIGN_OR_RETURN(print.norms, LayerDeltaNorms(program, base.files->spec()));
  for (const DeltaOp& op : program.embedding_ops) print.norms.push_back(FrobeniusNorm(op));
  for (const SiteOp& op : program.ops) print.norms.push_back(FrobeniusNorm(op.op));
  const auto add = [&](const auto& part) {
    print.norms.push_back(std::accumulate(part.weight.begin(), part.weight.end(), 0.0));
    print.norms.push_back(std::accumulate(part.bias.begin(), part.bias.end(), 0.0));
  };
  for (const NormReplacement& norm : program.norms) add(norm);
  if (program.soft_prompt) {
    for (const KeyGateTensors& gates : program.soft_prompt->key_gates) add(gates);
  }
  return print;
}

StatusOr<Fingerprint> Lower(const GoldenAdapter& golden) {
  return LowerBytes(golden, SafetensorsBytes(golden.tensors));
}

// Refused, with a code of the contract and the culprit's name in the message.
void ExpectRefusal(const StatusOr<Fingerprint>& result, const std::string& culprit,
                   const std::string& what) {
  ASSERT_FALSE(result.ok()) << what;
  const absl::StatusCode code = result.status().code();
  EXPECT_TRUE(code == absl::StatusCode::kInvalidArgument ||
              code == absl::StatusCode::kFailedPrecondition ||
              code == absl::StatusCode::kUnimplemented ||
              code == absl::StatusCode::kResourceExhausted || code == absl::StatusCode::kDataLoss)
      << what << ": " << result.status();
  EXPECT_NE(std::string(result.status().message()).find(culprit), std::string::npos)
      << what << ": the message does not name '" << culprit << "': " << result.status();
}

// The first tensor of each kind: names that differ in digits alone are one kind.
std::vector<size_t> OneOfEachKind(const std::vector<TestTensor>& tensors) {
  std::set<std::string> seen;
  std::vector<size_t> chosen;
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::string kind = tensors[i].name;
    kind.erase(std::remove_if(kind.begin(), kind.end(),
                              [](unsigned char c) { return std::isdigit(c) != 0; }),
               kind.end());
    if (seen.insert(kind).second) chosen.push_back(i);
  }
  return chosen;
}

bool IsFloat(const TestTensor& tensor) {
  return tensor.dtype == "F32" || tensor.dtype == "F16" || tensor.dtype == "BF16";
}

// Copies of the base, or of another tensor of the file, say nothing of their own.
bool IsRedundant(const GoldenAdapter& golden, size_t index) {
  const TestTensor& tensor = golden.tensors[index];
  if (tensor.name.find(".base_layer.weight") != std::string::npos) return true;
  for (size_t i = 0; i < golden.tensors.size(); ++i) {
    if (i != index && golden.tensors[i].bytes == tensor.bytes &&
        golden.tensors[i].shape == tensor.shape)
      return true;
  }
  return false;
}

// GGUF files carry their configuration inside and are spoiled as bytes.
std::vector<std::string> GoldensWith(bool gguf) {
  std::vector<std::string> names;
  for (const std::string& name : GoldenAdapterNames()) {
    if ((ReadGoldenAdapter(name).format == AdapterFormat::kGguf) == gguf) names.push_back(name);
  }
  return names;
}

class FamilyConformance : public testing::TestWithParam<std::string> {};

TEST_P(FamilyConformance, TheGoldenItselfLowers) {
  const StatusOr<Fingerprint> print = Lower(ReadGoldenAdapter(GetParam()));
  EXPECT_TRUE(print.ok()) << print.status();
}

TEST_P(FamilyConformance, ACutOffFileIsRefused) {
  const GoldenAdapter golden = ReadGoldenAdapter(GetParam());
  const std::string bytes = SafetensorsBytes(golden.tensors);
  for (const size_t length :
       {size_t{0}, size_t{5}, size_t{40}, bytes.size() / 2, bytes.size() - 1}) {
    ExpectRefusal(LowerBytes(golden, bytes.substr(0, length)), "safetensors",
                  "cut to " + std::to_string(length));
  }
}

TEST_P(FamilyConformance, NumbersThatAreNoneAreRefused) {
  const GoldenAdapter golden = ReadGoldenAdapter(GetParam());
  for (const size_t index : OneOfEachKind(golden.tensors)) {
    if (!IsFloat(golden.tensors[index]) || golden.tensors[index].bytes.empty()) continue;
    GoldenAdapter spoiled = golden;
    std::string& bytes = spoiled.tensors[index].bytes;
    bytes[bytes.size() - 1] = '\x7f';  // every exponent bit of the last element
    bytes[bytes.size() - 2] = '\xff';
    ExpectRefusal(Lower(spoiled), golden.tensors[index].name,
                  "NaN in " + golden.tensors[index].name);
  }
}

TEST_P(FamilyConformance, AMissingTensorIsNoticed) {
  const GoldenAdapter golden = ReadGoldenAdapter(GetParam());
  const StatusOr<Fingerprint> whole = Lower(golden);
  ASSERT_TRUE(whole.ok()) << whole.status();
  for (const size_t index : OneOfEachKind(golden.tensors)) {
    if (IsRedundant(golden, index)) continue;
    GoldenAdapter spoiled = golden;
    spoiled.tensors.erase(spoiled.tensors.begin() + static_cast<std::ptrdiff_t>(index));
    const StatusOr<Fingerprint> rest = Lower(spoiled);
    const std::string what = "without " + golden.tensors[index].name;
    if (rest.ok()) {
      EXPECT_NE(*rest, *whole) << what;
    } else {
      ExpectRefusal(rest, "", what);
      EXPECT_FALSE(rest.status().message().empty()) << what;
    }
  }
}

TEST_P(FamilyConformance, ATensorTooManyIsRefused) {
  GoldenAdapter golden = ReadGoldenAdapter(GetParam());
  golden.tensors.push_back(FloatTensor("base_model.model.nobody.reads_this", 2, 2, 1, 1));
  ExpectRefusal(Lower(golden), "nobody.reads_this", "an extra tensor");
}

TEST_P(FamilyConformance, ATransposedFactorIsNoticed) {
  const GoldenAdapter golden = ReadGoldenAdapter(GetParam());
  const StatusOr<Fingerprint> whole = Lower(golden);
  ASSERT_TRUE(whole.ok()) << whole.status();
  for (const size_t index : OneOfEachKind(golden.tensors)) {
    const std::vector<int64_t>& shape = golden.tensors[index].shape;
    if (shape.size() < 2 || shape[0] == shape[1]) continue;
    GoldenAdapter spoiled = golden;
    std::swap(spoiled.tensors[index].shape[0], spoiled.tensors[index].shape[1]);
    const StatusOr<Fingerprint> other = Lower(spoiled);
    const std::string what = "transposed " + golden.tensors[index].name;
    if (other.ok()) {
      EXPECT_NE(*other, *whole) << what;
    } else {
      ExpectRefusal(other, "", what);
    }
  }
}

// A member put into the object that holds the family's own keys.
std::string WithKey(const GoldenAdapter& golden, const std::string& key, const OrderedJson& value) {
  OrderedJson config = OrderedJson::parse(golden.config);
  OrderedJson* own = &config;
  if (golden.format == AdapterFormat::kPeftXlora) own = &config["xlora"];
  if (golden.format == AdapterFormat::kAdapterHub) own = &config["config"];
  if (golden.format == AdapterFormat::kAdapterHubSetup) own = &config["parts"]["part0"]["config"];
  (*own)[key] = value;
  return config.dump();
}

TEST_P(FamilyConformance, AnUnknownKeyThatSaysSomethingIsRefused) {
  GoldenAdapter golden = ReadGoldenAdapter(GetParam());
  golden.config = WithKey(golden, "use_magic", 3);
  ExpectRefusal(Lower(golden), "use_magic", "an unknown key");
}

TEST_P(FamilyConformance, RankZeroIsRefused) {
  GoldenAdapter golden = ReadGoldenAdapter(GetParam());
  const OrderedJson config = OrderedJson::parse(golden.config);
  for (const char* key : {"r", "init_r"}) {
    // AdaLoRA has init_r in its place; OFT's 0 means that the block size counts.
    if (!config.contains(key) || !config[key].is_number_integer() ||
        config[key].get<int64_t>() == 0)
      continue;
    if (std::string(key) == "r" && config.contains("init_r")) continue;
    GoldenAdapter spoiled = golden;
    spoiled.config = WithKey(golden, "rank_pattern", OrderedJson::object());
    spoiled.config = WithKey(spoiled, key, 0);
    ExpectRefusal(Lower(spoiled), "", std::string(key) + " = 0");
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, FamilyConformance, testing::ValuesIn(GoldensWith(false)),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

TEST(GgufConformance, GoldensLowerAndEveryCutIsRefused) {
  for (const std::string& name : GoldensWith(true)) {
    const GoldenAdapter golden = ReadGoldenAdapter(name);
    const StatusOr<Fingerprint> whole = LowerBytes(golden, golden.gguf);
    EXPECT_TRUE(whole.ok()) << name << ": " << whole.status();
    for (size_t length = 0; length < golden.gguf.size(); length += 97) {
      ExpectRefusal(LowerBytes(golden, golden.gguf.substr(0, length)), "",
                    name + " cut to " + std::to_string(length));
    }
  }
}

TEST(GgufConformance, AnotherArchitectureIsRefused) {
  GoldenAdapter golden = ReadGoldenAdapter("llama/gguf_lora");
  golden.model = "qwen2";
  golden.config.clear();
  ExpectRefusal(LowerBytes(golden, golden.gguf), "general.architecture", "llama's on qwen2");
}

// --- the table, the documentation and the goldens know of each other ---

std::vector<std::string> DocumentedRows() {
  std::vector<std::string> rows;
  std::istringstream text(ReadFileText(SourcePath("docs/adapters.md")));
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("| ")) rows.push_back(line);
  }
  return rows;
}

// Backticked words of a line.
std::vector<std::string> Quoted(const std::string& line) {
  std::vector<std::string> words;
  for (size_t at = line.find('`'); at != std::string::npos;) {
    const size_t end = line.find('`', at + 1);
    if (end == std::string::npos) break;
    words.push_back(line.substr(at + 1, end - at - 1));
    at = line.find('`', end + 1);
  }
  return words;
}

bool Contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

TEST(FamilyTable, EveryFamilyHasARowWithAGolden) {
  const std::vector<std::string> goldens = GoldenAdapterNames();
  for (const Family& family : FamilyTable()) {
    bool shown = false;
    for (const std::string& row : DocumentedRows()) {
      const std::vector<std::string> words = Quoted(row);
      if (!Contains(words, std::string(family.type))) continue;
      for (const std::string& word : words) shown |= Contains(goldens, word);
    }
    EXPECT_TRUE(shown) << "docs/adapters.md: no row with a golden for " << family.type;
  }
}

TEST(FamilyTable, EveryGoldenStandsInARow) {
  std::set<std::string> named;
  for (const std::string& row : DocumentedRows()) {
    for (const std::string& word : Quoted(row)) named.insert(word);
  }
  for (const std::string& golden : GoldenAdapterNames()) {
    EXPECT_EQ(named.count(golden), 1u) << "docs/adapters.md: no row names " << golden;
  }
}

TEST(FamilyTable, EveryGoldenThatARowNamesExists) {
  const std::vector<std::string> goldens = GoldenAdapterNames();
  for (const std::string& row : DocumentedRows()) {
    for (const std::string& word : Quoted(row)) {
      const size_t slash = word.find('/');
      if (slash == std::string::npos || word.find('.') != std::string::npos) continue;
      EXPECT_TRUE(Contains(goldens, word)) << row;
    }
  }
}

}  // namespace
}  // namespace polyad
