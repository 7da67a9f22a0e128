#pragma once

// Adapter files built in memory for tests: a safetensors container from (name, dtype, shape,
// bytes), and a well-formed LoRA on the tiny llama that a test then spoils in one place. Test-only.

#include <cstdint>
#include <string>
#include <vector>

namespace polyad {

struct TestTensor {
  std::string name;
  std::string dtype;  // "F32"
  std::vector<int64_t> shape;
  std::string bytes;
};

std::string SafetensorsBytes(const std::vector<TestTensor>& tensors);
TestTensor FloatTensor(const std::string& name, int64_t rows, int64_t cols, float first,
                       float step);
void WriteAdapter(const std::string& directory, const std::string& config,
                  const std::string& tensors);

}  // namespace polyad
