#pragma once

// An adapter directory read once and checked: the parsed config and every tensor of
// adapter_model.safetensors in memory we own (never mapped: a tenant could truncate the file under
// us). Lowerings take tensors by name; what nobody takes refuses the adapter, so nothing is
// silently dropped. Owned by one loader task, short-lived, not thread-safe. Formats: PEFT
// (adapter_config.json, adapter_model.safetensors), AdapterHub (adapter_config.json,
// adapter.safetensors), a setup of several that AdapterHub saved (adapter_setup.json and a folder
// for each), PEFT's X-LoRA (its two files and a folder for each LoRA), our own container (zoo.json,
// zoo.safetensors; docs/container.md) and a GGUF file (adapter.gguf), whose keys stand for the
// config. Pickle files are refused by name.

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/digest.h"
#include "engine/base/status.h"
#include "engine/io/file.h"
#include "engine/io/json.h"
#include "engine/io/safetensors.h"

namespace polyad {

// Whose layout a directory has. It decides what the configuration means.
enum class AdapterFormat { kPeft, kPeftXlora, kAdapterHub, kAdapterHubSetup, kContainer, kGguf };

class AdapterSource {
 public:
  AdapterSource() = default;
  AdapterSource(AdapterSource&&) = default;
  AdapterSource& operator=(AdapterSource&&) = default;
  // Files are opened beneath the directory without following links. RESOURCE_EXHAUSTED where they
  // are larger than `max_file_bytes` together.
  static StatusOr<AdapterSource> Open(const Directory& directory, int64_t max_file_bytes);
  // A setup reads as one adapter: its config is {"setup": adapter_setup.json, "parts": {folder:
  // that folder's config}}, and its tensors are called "<folder>/<name>". An X-LoRA keeps its
  // folders' adapters as sources of their own (parts). The same from bytes in memory, for tests and
  // fuzzers; an X-LoRA's bytes are like a setup's, with its own config as "xlora".
  static StatusOr<AdapterSource> FromBytes(std::string config, std::string tensors,
                                           AdapterFormat format = AdapterFormat::kPeft);

  AdapterFormat format() const { return format_; }
  const char* tensor_file() const;  // "adapter_model.safetensors"
  const OrderedJson& config() const { return config_; }
  // A config.json beside the files, which is of a model and no part of the adapter's own format
  // (own_rope.h); empty: there is none.
  const std::string& model_config() const { return model_config_; }
  const Digest& digest() const { return digest_; }  // of config and tensors, as bytes
  // Hex, of the base it says it belongs to (base_record.h); empty: it does not say.
  const std::string& base_digest() const { return base_digest_; }
  void set_base_digest(std::string digest) { base_digest_ = std::move(digest); }
  int64_t file_bytes() const { return file_bytes_; }
  int64_t num_tensors() const;  // of its parts too
  std::vector<AdapterSource>& parts() { return parts_; }

  // Names still untaken, in file order.
  std::vector<std::string> RemainingNames() const;
  bool Has(const std::string& name) const;
  // As stored; empty where the tensor is missing.
  std::vector<int64_t> ShapeOf(const std::string& name) const;
  // Marks the tensor as read and returns it as [rows, cols]. INVALID_ARGUMENT names it where it is
  // missing, has another number of dimensions, an unusable dtype, or a NaN or infinity in it.
  StatusOr<TensorView> TakeMatrix(const std::string& name);
  // The same with any number of dimensions, which the caller checks. Borrowed from this source.
  StatusOr<const OwnedTensor*> TakeTensor(const std::string& name);
  // The same for whole numbers of any integer type.
  StatusOr<const OwnedTensor*> TakeIntegers(const std::string& name);
  // INVALID_ARGUMENT naming the first tensor that no lowering took.
  Status CheckAllTaken() const;

 private:
  struct Entry {
    std::string name;
    OwnedTensor tensor;
    bool taken = false;
  };
  static StatusOr<AdapterSource> Build(AdapterFormat format, const std::string& config,
                                       RandomAccessFile tensors);
  static StatusOr<AdapterSource> OpenAny(const Directory& directory, int64_t max_file_bytes);
  static StatusOr<AdapterSource> OpenFiles(const Directory& directory, int64_t max_file_bytes);
  static StatusOr<AdapterSource> OpenSetup(const Directory& directory, int64_t max_file_bytes);
  static StatusOr<AdapterSource> OpenXlora(const Directory& directory, AdapterSource xlora,
                                           int64_t max_file_bytes);
  static StatusOr<AdapterSource> BuildXlora(AdapterSource flat);
  Status ReadAll(const TensorSource& file, const std::string& prefix = "");

  AdapterFormat format_ = AdapterFormat::kPeft;
  std::string folder_;  // "0/" of an X-LoRA's part, before its tensors' names in messages
  std::string model_config_;
  OrderedJson config_;  // members in file order: patterns match first come, first served
  Digest digest_{};
  std::string base_digest_;
  int64_t file_bytes_ = 0;
  std::vector<Entry> tensors_;
  std::unordered_map<std::string, size_t> index_;
  std::vector<AdapterSource> parts_;  // of an X-LoRA, in order
};

}  // namespace polyad
