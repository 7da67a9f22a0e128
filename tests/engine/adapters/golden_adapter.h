#pragma once

// A committed golden adapter as bytes that a test may spoil: its configuration's text, its tensors
// one by one, and the base it belongs to. Test-only.

#include <memory>
#include <string>
#include <vector>

#include "engine/adapters/adapter_source.h"
#include "engine/adapters/lowering_context.h"
#include "engine/spec/model_files.h"
#include "tests/engine/adapters/adapter_bytes.h"

namespace polyad {

struct GoldenAdapter {
  std::string model;  // of tests/golden/models
  std::string name;
  AdapterFormat format = AdapterFormat::kPeft;
  std::string config;
  std::vector<TestTensor> tensors;
  std::string gguf;  // in place of both
  AdapterOptions options;
};

std::vector<std::string> GoldenAdapterNames();  // "llama/plain", sorted
GoldenAdapter ReadGoldenAdapter(const std::string& model_and_name);

// A base of tests/golden/models with its weights at hand; read once for each name.
struct GoldenBase {
  std::shared_ptr<const ModelFiles> files;
  std::unique_ptr<BaseWeights> weights;
};
const GoldenBase& BaseOf(const std::string& model);

std::string SourcePath(const std::string& relative);  // in the repository
std::string ReadFileText(const std::string& path);

}  // namespace polyad
