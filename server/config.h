#pragma once

// Every knob of the server in one table: its flag, its environment variable (POLYAD_ and the flag
// in capitals), its key in the JSON config file, type, unit, default, bounds and what it does.
// Parsing, --help, `polyad check-config` and docs/configuration.md all follow the table. A flag
// beats the environment, which beats the file. Plain values; any thread. Errors: INVALID_ARGUMENT
// naming the knob, with the nearest known name for an unknown one.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

struct ServerConfig {
  std::string model;
  std::string model_name;
  std::string dtype = "auto";
  std::string backend = "cpu";
  std::string cuda_plugin;
  int64_t cuda_device = 0;
  int64_t cuda_memory_mib = 0;
  std::string cuda_products = "own";
  int64_t cuda_graph_rows = 64;
  int64_t tensor_parallel = 1;
  std::string isa = "auto";
  int64_t threads = 0;

  int64_t memory_mib = 0;
  int64_t kv_mib = 512;
  std::string kv_dtype = "auto";
  int64_t kv_spill_mib = 0;
  int64_t kv_spill_file_mib = 0;
  std::string kv_spill_dir = "/tmp";
  int64_t max_context = 0;
  int64_t max_step_tokens = 512;
  int64_t max_running = 64;
  int64_t max_queued = 1024;
  int64_t max_queued_tokens = 1 << 20;
  int64_t max_wait_ms = 0;
  int64_t max_request_mib = 256;
  int64_t max_prompt_kib = 4096;
  bool prefix_cache = true;

  std::vector<std::string> adapters;  // NAME=PATH
  std::vector<std::string> adapter_roots;
  std::string adapters_from;
  std::string state_dir;
  int64_t max_adapters = 4096;
  int64_t max_adapter_mib = 4096;
  int64_t max_adapter_file_mib = 2048;

  std::string grpc_listen = "127.0.0.1:50051";
  std::string admin_listen = "127.0.0.1:50052";
  std::string http_listen = "127.0.0.1:8080";
  std::string tenants_file;
  std::string admin_token_file;
  std::string metrics_token_file;
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;
  bool tls_require_client_cert = false;
  int64_t tls_handshake_timeout_ms = 5000;
  bool insecure = false;

  std::string grpc_reflection = "auto";
  int64_t max_streams = 100;
  int64_t grpc_max_metadata_kib = 16;
  int64_t grpc_min_ping_ms = 10000;
  int64_t grpc_max_age_ms = 3600000;
  int64_t grpc_age_grace_ms = 600000;
  int64_t grpc_max_idle_ms = 300000;
  int64_t stream_buffer_kib = 256;
  int64_t http_workers = 2;
  int64_t http_max_connections = 1024;
  int64_t http_request_timeout_ms = 5000;
  int64_t drain_ms = 45000;
  int64_t stall_ms = 30000;
  std::string log_level = "info";
  std::string otlp_endpoint;
};

struct Knob {
  using Field = std::variant<std::string ServerConfig::*, int64_t ServerConfig::*,
                             bool ServerConfig::*, std::vector<std::string> ServerConfig::*>;
  const char* name;  // --name, POLYAD_NAME, "name" in the file (dashes become underscores)
  Field field;
  const char* unit;  // "" where none
  int64_t min;       // of numbers
  int64_t max;
  const char* choices;  // of strings: "a|b|c", or "" for any
  const char* doc;
};

const std::vector<Knob>& Knobs();

std::string KnobEnvironmentName(const Knob& knob);  // POLYAD_MAX_QUEUED
std::string KnobFileKey(const Knob& knob);          // max_queued
std::string KnobType(const Knob& knob);             // integer, true/false, string, list, a/b/c
std::string KnobDefault(const Knob& knob);
std::string KnobHelp();  // the flags part of --help

using EnvironmentLookup = std::function<std::optional<std::string>(const std::string& name)>;

// `args` are what follows the command's name. --config FILE is read here too.
StatusOr<ServerConfig> LoadConfig(const std::vector<std::string>& args,
                                  const EnvironmentLookup& environment);
std::optional<std::string> ProcessEnvironment(const std::string& name);

// The config file's members over `config`.
Status ApplyConfigFile(const std::string& text, ServerConfig& config);
// The config as a config file that would give it.
std::string ConfigAsJson(const ServerConfig& config);
// What no single knob can say: a model is named, the listeners are safe.
Status CheckConfig(const ServerConfig& config);
// Whether the gRPC listener at `listen` tells what services it has.
bool HasReflection(const ServerConfig& config, const std::string& listen);

// The known name nearest to `name`, for "did you mean"; empty where none is near.
std::string NearestName(std::string_view name, const std::vector<std::string>& known);

}  // namespace polyad
