#include "server/access.h"

namespace polyad {

const std::vector<AccessRule>& AccessRules() {
  static const std::vector<AccessRule>& rules = *new std::vector<AccessRule>{
      {"GET", "/", Access::kPublic},
      {"GET", "/health", Access::kPublic},
      {"GET", "/ready", Access::kPublic},
      {"GET", "/version", Access::kPublic},
      {"GET", "/openapi.json", Access::kPublic},
      {"GET", "/metrics", Access::kMetrics},
      {"GET", "/v1/status", Access::kTenant},
      {"GET", "/v1/models", Access::kTenant},
      {"GET", "/v1/models/{id}", Access::kTenant},
      {"POST", "/v1/completions", Access::kTenant},
      {"POST", "/v1/chat/completions", Access::kTenant},
      {"POST", "/v1/embeddings", Access::kTenant},
      {"POST", "/tokenize", Access::kTenant},
      {"POST", "/detokenize", Access::kTenant},
      {"POST", "/v1/load_lora_adapter", Access::kAdmin},
      {"POST", "/v1/unload_lora_adapter", Access::kAdmin},
      {kRpc, "/polyad.v1.InferenceService/Generate", Access::kTenant},
      {kRpc, "/polyad.v1.InferenceService/Embed", Access::kTenant},
      {kRpc, "/polyad.v1.InferenceService/Tokenize", Access::kTenant},
      {kRpc, "/polyad.v1.InferenceService/Detokenize", Access::kTenant},
      {kRpc, "/polyad.v1.InferenceService/ListModels", Access::kTenant},
      {kRpc, "/polyad.v1.AdapterAdminService/LoadAdapter", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/UnloadAdapter", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/ListAdapters", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/GetAdapter", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/WatchAdapters", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/PinAdapter", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/ShiftTraffic", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/SetAlias", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/GetServerInfo", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/GetLoad", Access::kAdmin},
      {kRpc, "/polyad.v1.AdapterAdminService/Drain", Access::kAdmin},
      // gRPC's own, which answers them itself on both ports.
      {kRpc, "/grpc.health.v1.Health/Check", Access::kPublic},
      {kRpc, "/grpc.health.v1.Health/Watch", Access::kPublic},
      // Only of listeners that have it (--grpc-reflection): those of this machine, unless told.
      {kRpc, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::kPublic},
  };
  return rules;
}

std::optional<Access> FindAccess(std::string_view method, std::string_view path) {
  for (const AccessRule& rule : AccessRules()) {
    if (rule.method == method && rule.path == path) return rule.access;
  }
  return std::nullopt;
}

Status CheckListed(std::string_view method, std::string_view path) {
  if (FindAccess(method, path).has_value()) return absl::OkStatus();
  return FailedPrecondition("%s %s: expected a rule in the table of access, got none", method,
                            path);
}

}  // namespace polyad
