#include "tests/engine/adapters/golden_adapter.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "engine/adapters/file_base_weights.h"
#include "engine/base/check.h"
#include "engine/io/json.h"

namespace polyad {
namespace {

namespace fs = std::filesystem;

std::vector<TestTensor> SplitTensors(const std::string& bytes) {
  uint64_t header_size = 0;
  POLYAD_CHECK(bytes.size() > sizeof(header_size), "a golden's tensors");
  std::memcpy(&header_size, bytes.data(), sizeof(header_size));
  const Json header = Json::parse(bytes.substr(sizeof(header_size), header_size));
  const size_t data = sizeof(header_size) + header_size;
  std::vector<TestTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const auto begin = entry["data_offsets"][0].get<size_t>();
    const auto end = entry["data_offsets"][1].get<size_t>();
    tensors.push_back({name, entry["dtype"].get<std::string>(),
                       entry["shape"].get<std::vector<int64_t>>(),
                       bytes.substr(data + begin, end - begin)});
  }
  return tensors;
}

// A setup as its loader sees it: one configuration of all folders, tensors by folder and name.
void ReadSetup(const std::string& path, GoldenAdapter& golden) {
  golden.format = AdapterFormat::kAdapterHubSetup;
  OrderedJson config;
  config["setup"] = OrderedJson::parse(ReadFileText(path + "/adapter_setup.json"));
  for (const auto& entry : fs::directory_iterator(path)) {
    if (!entry.is_directory()) continue;
    const std::string folder = entry.path().filename().string();
    const bool fuses = fs::exists(entry.path() / "adapter_fusion_config.json");
    const std::string file = path + "/" + folder + "/";
    config["parts"][folder] = OrderedJson::parse(
        ReadFileText(file + (fuses ? "adapter_fusion_config.json" : "adapter_config.json")));
    for (TestTensor& tensor : SplitTensors(ReadFileText(
             file + (fuses ? "model_adapter_fusion.safetensors" : "adapter.safetensors")))) {
      tensor.name = folder + "/" + tensor.name;
      golden.tensors.push_back(std::move(tensor));
    }
  }
  golden.config = config.dump();
}

// Likewise X-LoRA: its own configuration and those of its folders.
void ReadXlora(const std::string& path, GoldenAdapter& golden) {
  golden.format = AdapterFormat::kPeftXlora;
  OrderedJson config;
  config["xlora"] = OrderedJson::parse(golden.config);
  for (const auto& entry : fs::directory_iterator(path)) {
    if (!entry.is_directory()) continue;
    const std::string folder = entry.path().filename().string();
    const std::string file = path + "/" + folder + "/";
    config["parts"][folder] = OrderedJson::parse(ReadFileText(file + "adapter_config.json"));
    for (TestTensor& tensor : SplitTensors(ReadFileText(file + "adapter_model.safetensors"))) {
      tensor.name = folder + "/" + tensor.name;
      golden.tensors.push_back(std::move(tensor));
    }
  }
  golden.config = config.dump();
}

}  // namespace

std::string SourcePath(const std::string& relative) {
  return std::string(POLYAD_SOURCE_DIR) + "/" + relative;
}

std::string ReadFileText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  POLYAD_CHECK(file.good(), path.c_str());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> GoldenAdapterNames() {
  std::vector<std::string> names;
  const fs::path root = SourcePath("tests/golden/adapters");
  for (const auto& model : fs::directory_iterator(root)) {
    for (const auto& adapter : fs::directory_iterator(model.path())) {
      if (!fs::exists(adapter.path() / "golden.json")) continue;
      names.push_back(model.path().filename().string() + "/" + adapter.path().filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

GoldenAdapter ReadGoldenAdapter(const std::string& model_and_name) {
  const std::string path = SourcePath("tests/golden/adapters/" + model_and_name);
  GoldenAdapter golden;
  golden.model = model_and_name.substr(0, model_and_name.find('/'));
  golden.name = model_and_name.substr(golden.model.size() + 1);
  struct Layout {
    AdapterFormat format;
    const char* config;
    const char* tensors;
  };
  for (const Layout& layout :
       {Layout{AdapterFormat::kPeft, "adapter_config.json", "adapter_model.safetensors"},
        Layout{AdapterFormat::kAdapterHub, "adapter_config.json", "adapter.safetensors"},
        Layout{AdapterFormat::kContainer, "zoo.json", "zoo.safetensors"}}) {
    if (!fs::exists(path + "/" + layout.tensors)) continue;
    golden.format = layout.format;
    golden.config = ReadFileText(path + "/" + layout.config);
    golden.tensors = SplitTensors(ReadFileText(path + "/" + layout.tensors));
    break;
  }
  if (fs::exists(path + "/adapter_setup.json")) ReadSetup(path, golden);
  if (fs::exists(path + "/0")) ReadXlora(path, golden);
  if (fs::exists(path + "/adapter.gguf")) {
    golden.format = AdapterFormat::kGguf;
    golden.gguf = ReadFileText(path + "/adapter.gguf");
  }
  const Json summary = Json::parse(ReadFileText(path + "/golden.json"));
  if (summary.contains("options")) golden.options = summary["options"].get<AdapterOptions>();
  return golden;
}

const GoldenBase& BaseOf(const std::string& model) {
  static std::map<std::string, GoldenBase> bases;
  GoldenBase& base = bases[model];
  if (base.files == nullptr) {
    const std::string directory = SourcePath("tests/golden/models/" + model);
    const std::string gguf = directory + "/model.gguf";
    StatusOr<ModelFiles> files = OpenModel(fs::exists(gguf) ? gguf : directory);
    POLYAD_CHECK(files.ok(), files.status().ToString().c_str());
    base.files = std::make_shared<const ModelFiles>(std::move(*files));
    base.weights = std::make_unique<FileBaseWeights>(base.files);
  }
  return base;
}

}  // namespace polyad
