#pragma once

// Whole tiny models on a device's backend: the first golden prompt of a base and of each of its
// golden adapters, held against what the original libraries computed. Test-only.

#include <memory>
#include <string>
#include <vector>

#include "tests/engine/model/golden_files.h"
#include "tests/engine/model/step_harness.h"

namespace polyad {

class DeviceModel {
 public:
  DeviceModel(const std::string& name, std::unique_ptr<Backend> backend,
              KvFormat kv_format = KvFormat::kAuto);

  // In the exact mode: within the tolerance that the CPU backend is held to.
  void ExpectGoldenLogits();
  // In bf16, and over quantised bases: within what the roundings on the way to a logit may do.
  void ExpectGoldenLogitsUpToRounding();
  // Those of the same model elsewhere, whose K/V are of the same format, within what the roundings
  // of either may do, and that they may fall to different codes.
  void ExpectLogitsOf(DeviceModel& other);
  // Those of the same model elsewhere, bit for bit.
  void ExpectBitsOf(DeviceModel& other);

 private:
  void Add(std::shared_ptr<const AdapterVersion> adapter, const std::string& path);
  // Of each sequence, as many together as a step takes.
  std::vector<std::vector<float>> Logits();

  TestModel test_;
  std::vector<std::string> names_;
  std::vector<GoldenPrompt> prompts_;
  std::vector<TestSequence> sequences_;
};

// Of tests/golden/models: one of each architecture, with all of its adapters.
std::vector<std::string> ArchitectureNames();

}  // namespace polyad
