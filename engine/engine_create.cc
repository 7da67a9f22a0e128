// Engine::Create: from a model on disk to a running engine.

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>

#include "engine/base/log.h"
#include "engine/cache/block_pool.h"
#include "engine/engine.h"
#include "engine/engine_parts.h"
#include "engine/load_tokenizer.h"
#include "engine/model/model.h"
#include "engine/model/served_base_weights.h"
#include "engine/spec/model_files.h"
#include "kernels/api/huge_pages.h"

namespace polyad {
namespace {

std::string NameOf(const EngineOptions& options) {
  if (!options.model_name.empty()) return options.model_name;
  std::filesystem::path path(options.model_path);
  if (!path.has_filename()) path = path.parent_path();  // a directory given with its slash
  return path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

ModelInfo InfoOf(const EngineOptions& options, const Model& model, const Backend& backend) {
  ModelInfo info;
  info.name = NameOf(options);
  info.architecture = ArchitectureName(model.spec().architecture);
  info.vocab_size = model.spec().vocab_size;
  info.hidden_size = model.spec().hidden_size;
  info.max_context = model.max_context();
  info.longest_context = model.num_kv_blocks() * kBlockTokens;  // no request is longer
  if (options.max_context > 0) {
    info.longest_context = std::min(info.longest_context, options.max_context);
  }
  info.num_parameters = model.num_parameters();
  info.weight_bytes = model.weight_bytes();
  info.kv_bytes = model.kv_bytes();
  info.kv_format = NameOf(model.kv_format());
  info.kv_bytes_per_token = model.kv_bytes() / (model.num_kv_blocks() * kBlockTokens);
  info.backend = backend.info();
  info.compute_mode = options.compute_mode == ComputeMode::kF32    ? "f32"
                      : options.compute_mode == ComputeMode::kBF16 ? "bf16"
                                                                   : "int8";
  return info;
}

constexpr int64_t kLeastHugePages = 2;  // one for each side

// K/V that shares its memory with adapters is placed by block, so that a page is there only while a
// block on it is.
Status ShareMemory(const EngineOptions& options, ModelOptions& model) {
  if (options.memory_bytes == 0) return absl::OkStatus();
  if (options.memory_bytes < kLeastHugePages * kHugePage) {
    return InvalidArgument("memory: expected at least %d bytes, got %d",
                           kLeastHugePages * kHugePage, options.memory_bytes);
  }
  model.kv_bytes = options.memory_bytes / kHugePage * kHugePage;
  model.kv_placement = KvPlacement::kByBlock;
  return absl::OkStatus();
}

// The largest request is a context of the model, or half of memory: K/V keeps that much.
Status MakeLedger(const EngineOptions& options, const Model& model, const Clock& clock,
                  EngineParts& parts) {
  if (options.memory_bytes == 0) return absl::OkStatus();
  const int64_t num_pages = options.memory_bytes / kHugePage;
  const int64_t stride = model.kv_block_stride();
  parts.max_request_blocks =
      std::min(BlocksFor(model.max_context()), num_pages / 2 * kHugePage / stride);
  if (parts.max_request_blocks < 1) {
    return ResourceExhausted("memory: half of it has to hold a K/V block of %d bytes, got %d",
                             stride, options.memory_bytes);
  }
  const int64_t fixed = (parts.max_request_blocks * stride + kHugePage - 1) / kHugePage;
  constexpr int64_t kRatio = kHugePage / MemoryLedger::kPageBytes;
  parts.kv_layout = {stride, kHugePage, fixed};
  parts.memory = std::make_shared<MemoryLedger>(num_pages * kRatio, fixed * kRatio, clock);
  parts.info.memory_bytes = num_pages * kHugePage;
  parts.info.longest_context =
      std::min(parts.info.longest_context, parts.max_request_blocks * kBlockTokens);
  return absl::OkStatus();
}

// Where evicted blocks go; null where nothing is set aside for them.
StatusOr<std::unique_ptr<SpillStore>> MakeSpill(const EngineOptions& options, const Model& model) {
  SpillStore::Options spill;
  spill.block_bytes = model.kv_block_bytes();
  spill.num_memory_blocks = options.spill_memory_bytes / spill.block_bytes;
  spill.num_file_blocks = options.spill_file_bytes / spill.block_bytes;
  spill.directory = options.spill_directory;
  if (spill.num_memory_blocks < 1) {
    if (options.spill_memory_bytes == 0 && options.spill_file_bytes == 0) return nullptr;
    return InvalidArgument(
        "K/V spill memory: expected at least one block of %d bytes, got %d (a file needs it too)",
        spill.block_bytes, options.spill_memory_bytes);
  }
  return SpillStore::Create(spill);
}

}  // namespace

StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options,
                                                 std::unique_ptr<Backend> backend, Clock& clock,
                                                 EngineObserver* observer) {
  const int64_t begin_us = clock.NowMicros();
  POLYAD_ASSIGN_OR_RETURN(ModelFiles opened, OpenModel(options.model_path));
  const auto shared_files = std::make_shared<ModelFiles>(std::move(opened));
  const ModelFiles& files = *shared_files;
  for (const std::string& warning : files.spec().warnings) {
    Log(LogLevel::kWarning, "model_warning", {{"warning", warning}});
  }
  EngineParts parts;
  POLYAD_ASSIGN_OR_RETURN(parts.tokenizer, LoadTokenizer(files.tokenizer()));
  parts.encode_chat = LoadChat(files.tokenizer(), *parts.tokenizer);
  ModelOptions model_options;
  model_options.kv_bytes = options.kv_bytes;
  model_options.kv_format = options.kv_format;
  model_options.max_step_tokens = options.max_step_tokens;
  model_options.max_context = options.max_context;
  POLYAD_RETURN_IF_ERROR(ShareMemory(options, model_options));
  POLYAD_ASSIGN_OR_RETURN(std::unique_ptr<Model> model,
                          Model::Load(files, *backend, model_options));
  HugePages::ReleaseKept();  // the tensors that were packed
  parts.info = InfoOf(options, *model, *backend);
  parts.num_kv_blocks = model->num_kv_blocks();
  POLYAD_RETURN_IF_ERROR(MakeLedger(options, *model, clock, parts));
  parts.sliding_window = model->sliding_window();
  parts.rope_reaches = model->rope_reaches();
  parts.eos_token_ids = model->spec().eos_ids;
  POLYAD_ASSIGN_OR_RETURN(parts.spill, MakeSpill(options, *model));
  AdapterStoreOptions store_options = options.adapters;
  shared_files->set_tokenizer({});  // read; the weights may be read again for adapters
  store_options.max_context = parts.info.longest_context;
  store_options.memory = parts.memory;
  store_options.base = std::make_shared<ServedBaseWeights>(shared_files, *model, *backend);
  parts.adapters = std::make_unique<AdapterStore>(model->spec(), *backend, store_options);
  parts.runner = std::move(model);
  parts.backend = std::move(backend);
  parts.info.load_seconds = static_cast<double>(clock.NowMicros() - begin_us) / 1e6;
  return MakeEngine(options, std::move(parts), clock, observer);
}

}  // namespace polyad
