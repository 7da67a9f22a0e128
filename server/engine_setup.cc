#include "server/engine_setup.h"

#include <algorithm>

#include "engine/base/log.h"
#include "server/durable_registry.h"

namespace polyad {
namespace {

ComputeMode ModeOf(const ServerConfig& config) {
  if (config.dtype == "f32") return ComputeMode::kF32;
  const bool int8 =
      config.dtype == "int8" || (config.dtype == "auto" && config.model.ends_with(".gguf"));
  return int8 ? ComputeMode::kAuto : ComputeMode::kBF16;
}

KvFormat FormatOf(const ServerConfig& config) {
  for (KvFormat format : {KvFormat::kBF16, KvFormat::kInt8, KvFormat::kInt4}) {
    if (config.kv_dtype == NameOf(format)) return format;
  }
  return KvFormat::kAuto;
}

EngineOptions OptionsOf(const ServerConfig& config) {
  EngineOptions options;
  options.model_path = config.model;
  options.model_name = config.model_name;
  options.compute_mode = ModeOf(config);
  options.memory_bytes = config.memory_mib << 20;
  options.kv_bytes = config.kv_mib << 20;
  options.kv_format = FormatOf(config);
  options.spill_memory_bytes = config.kv_spill_mib << 20;
  options.spill_file_bytes = config.kv_spill_file_mib << 20;
  options.spill_directory = config.kv_spill_dir;
  options.max_step_tokens = config.max_step_tokens;
  options.max_running = config.max_running;
  options.max_queued = config.max_queued;
  options.max_context = config.max_context;
  options.max_prompt_bytes = config.max_prompt_kib << 10;
  options.prefix_cache = config.prefix_cache;
  options.loader_niceness = kLoaderNiceness;
  options.adapters.max_adapters = config.max_adapters;
  options.adapters.max_bytes = config.max_adapter_mib << 20;
  options.adapters.max_file_bytes = config.max_adapter_file_mib << 20;
  return options;
}

void SetLogLevelByName(const std::string& name) {
  SetLogLevel(name == "debug"     ? LogLevel::kDebug
              : name == "warning" ? LogLevel::kWarning
              : name == "error"   ? LogLevel::kError
                                  : LogLevel::kInfo);
}

}  // namespace

StatusOr<std::unique_ptr<Engine>> MakeEngine(const ServerConfig& config, BackendMaker make_backend,
                                             Clock& clock, EngineObserver* observer) {
  SetLogLevelByName(config.log_level);
  EngineOptions options = OptionsOf(config);
  BackendOptions backend_options;
  backend_options.mode = options.compute_mode;
  backend_options.num_threads = static_cast<int>(config.threads);
  backend_options.isa = config.isa;
  backend_options.cuda_plugin = config.cuda_plugin;
  backend_options.cuda_device = static_cast<int>(config.cuda_device);
  backend_options.cuda_memory_bytes = config.cuda_memory_mib << 20;
  backend_options.cuda_products = config.cuda_products;
  backend_options.cuda_graph_rows = config.cuda_graph_rows;
  backend_options.num_ranks = static_cast<int>(config.tensor_parallel);
  backend_options.on_fallback = [](const std::string& reason) {
    Log(LogLevel::kWarning, "backend_fallback", {{"backend", "cpu"}, {"reason", reason}});
  };
  auto backend = make_backend(config.backend, backend_options);
  if (!backend.ok()) return backend.status();
  auto engine = Engine::Create(options, *std::move(backend), clock, observer);
  if (engine.ok()) {
    const ModelInfo& info = (*engine)->model_info();
    Log(LogLevel::kInfo, "model_loaded",
        {{"name", info.name},
         {"architecture", info.architecture},
         {"parameters", info.num_parameters},
         {"weight_bytes", info.weight_bytes.total()},
         {"kv_bytes", info.kv_bytes},
         {"memory_bytes", info.memory_bytes},
         {"kv_dtype", info.kv_format},
         {"kv_bytes_per_token", info.kv_bytes_per_token},
         {"backend", info.backend.name},
         {"isa", info.backend.isa},
         {"threads", info.backend.num_threads},
         {"seconds", info.load_seconds}});
  }
  return engine;
}

Status LoadNamedAdapters(const ServerConfig& config, Engine& engine) {
  for (const std::string& adapter : config.adapters) {
    const size_t equals = adapter.find('=');
    LoadAdapterSpec spec;
    spec.name = adapter.substr(0, equals);
    spec.path = adapter.substr(equals + 1);
    if (!config.state_dir.empty() && engine.adapters().Get(spec.name).ok()) {
      Log(LogLevel::kWarning, "adapter_is_registered", {{"name", spec.name}, {"flag", spec.path}});
      continue;  // what was loaded while serving is newer than the flag
    }
    const auto report = engine.adapters().Load(spec, [](LoadState) {});
    if (!report.ok()) return Annotate(report.status(), "adapter " + spec.name);
    Log(LogLevel::kInfo, "adapter_loaded",
        {{"name", report->name}, {"version", report->version}, {"ms", report->load_ms}});
  }
  return absl::OkStatus();
}

StatusOr<std::unique_ptr<AdapterRegistry>> OpenRegistry(const ServerConfig& config,
                                                        Engine& engine) {
  if (config.state_dir.empty()) {
    POLYAD_RETURN_IF_ERROR(LoadNamedAdapters(config, engine));
    return std::make_unique<StoreRegistry>(engine.adapters(), config.adapter_roots);
  }
  const DurableOptions options{config.state_dir, engine.model_info().name,
                               config.max_adapter_file_mib << 20};
  POLYAD_ASSIGN_OR_RETURN(std::unique_ptr<DurableRegistry> registry,
                          DurableRegistry::Open(engine.adapters(), config.adapter_roots, options));
  POLYAD_RETURN_IF_ERROR(LoadNamedAdapters(config, engine));
  registry->RestoreRoutes();
  return registry;
}

DecodeLimits LimitsOf(const ServerConfig& config, const Engine& engine) {
  const ModelInfo& info = engine.model_info();
  DecodeLimits limits;
  limits.model_name = info.name;
  limits.vocab_size = info.vocab_size;
  limits.max_context = info.max_context;
  limits.hidden_size = info.hidden_size;
  limits.longest_context = info.longest_context;
  limits.max_prompt_bytes = std::min(kMaxPromptBytes, config.max_prompt_kib << 10);
  return limits;
}

}  // namespace polyad
