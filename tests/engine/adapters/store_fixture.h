#pragma once

// An adapter store over the reference backend with two small LoRAs on disk, "first" and "second".
// Test-only.

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "engine/adapters/adapter_store.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/adapters/adapter_bytes.h"

namespace polyad {

class AdapterStoreTest : public testing::Test {
 protected:
  AdapterStoreTest() : backend_(std::move(*MakeBackend("reference", BackendOptions{}))) {
    spec_.hidden_size = 32;
    spec_.num_layers = 1;
    spec_.num_heads = 4;
    spec_.num_kv_heads = 2;
    spec_.head_dim = 8;
    spec_.intermediate_size = 48;
    spec_.vocab_size = 100;
    root_ = testing::TempDir() + "polyad_store_" +
            testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root_);
    Write("first", 0.1f);
    Write("second", 0.2f);
    options_.reserved_name = "base-model";
    Reopen();
  }
  ~AdapterStoreTest() override { std::filesystem::remove_all(root_); }

  void Reopen() { store_ = std::make_unique<AdapterStore>(spec_, *backend_, options_); }

  void Write(const std::string& directory, float value) {
    const std::string module = "base_model.model.model.layers.0.self_attn.k_proj";
    WriteAdapter(root_ + "/" + directory, R"({"peft_type":"LORA","r":2,"lora_alpha":2})",
                 SafetensorsBytes({FloatTensor(module + ".lora_A.weight", 2, 32, value, 0.1f),
                                   FloatTensor(module + ".lora_B.weight", 16, 2, value, 0.1f)}));
  }

  LoadAdapterSpec Spec(const std::string& name, const std::string& directory) {
    LoadAdapterSpec spec;
    spec.name = name;
    spec.root = root_;
    spec.path = directory;
    return spec;
  }

  ModelSpec spec_;
  std::unique_ptr<Backend> backend_;
  AdapterStoreOptions options_;
  std::string root_;
  std::unique_ptr<AdapterStore> store_;
};

}  // namespace polyad
