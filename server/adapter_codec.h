#pragma once

// The admin port's messages to engine values and back; requests are range-checked as
// request_codec.h does. Pure functions, any thread.

#include "engine/adapters/adapter_store.h"
#include "engine/base/status.h"
#include "engine/engine.h"
#include "polyad/v1/adapter_admin.pb.h"

namespace polyad {

inline constexpr int64_t kMaxUriBytes = 4096;
inline constexpr int64_t kMaxAllowedTenants = 256;
inline constexpr int64_t kMaxAdapterOptions = 8;
inline constexpr int64_t kMaxAdapterOptionBytes = 64;
inline constexpr int64_t kMaxWaitMs = 600'000;
inline constexpr int64_t kDefaultWaitMs = 30'000;

// Defaults are left to CheckAdapterDefaults, but for the template's syntax.
StatusOr<LoadAdapterSpec> DecodeLoadAdapter(const v1::LoadAdapterRequest& request);
StatusOr<TrafficShift> DecodeShift(const v1::ShiftTrafficRequest& request);
// INVALID_ARGUMENT naming `field` where `name` is not an adapter's name.
Status CheckAdapterName(std::string_view field, std::string_view name);

v1::LoadAdapterResponse::State EncodeLoadState(LoadState state);
void EncodeLoadReport(const LoadReport& from, v1::LoadReport& to);
// What EncodeLoadReport wrote, but for the precision of each op's bytes.
LoadReport DecodeLoadReport(const v1::LoadReport& from);
// Tokens of the longest request with it: its own scaling's, else the base's.
int64_t ContextOf(const LoadReport& report, int64_t of_base);
void EncodeAdapter(const AdapterInfo& from, v1::Adapter& to);
void EncodeServerInfo(const ModelInfo& from, std::string_view version,
                      v1::GetServerInfoResponse& to);
void EncodeLoad(const EngineLoad& from, v1::GetLoadResponse& to);
void EncodeAdapterBytes(const PrecisionBytes& from, v1::GetLoadResponse& to);

}  // namespace polyad
