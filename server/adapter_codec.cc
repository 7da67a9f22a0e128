#include "server/adapter_codec.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/base/adapter_name.h"
#include "engine/base/digest.h"
#include "server/adapter_defaults.h"
#include "server/field_error.h"

namespace polyad {
namespace {

void EncodeBytes(const PrecisionBytes& from, v1::BytesByPrecision& to) {
  to.set_f32(from[Precision::kF32]);
  to.set_f16(from[Precision::kF16]);
  to.set_bf16(from[Precision::kBF16]);
  to.set_bits8(from[Precision::k8Bit]);
  to.set_bits4(from[Precision::k4Bit]);
  to.set_bits1(from[Precision::k1Bit]);
  to.set_index(from[Precision::kIndex]);
}

PrecisionBytes DecodeBytes(const v1::BytesByPrecision& from) {
  PrecisionBytes bytes(Precision::kF32, from.f32());
  bytes += {Precision::kF16, from.f16()};
  bytes += {Precision::kBF16, from.bf16()};
  bytes += {Precision::k8Bit, from.bits8()};
  bytes += {Precision::k4Bit, from.bits4()};
  bytes += {Precision::k1Bit, from.bits1()};
  bytes += {Precision::kIndex, from.index()};
  return bytes;
}

}  // namespace

Status CheckAdapterName(std::string_view field, std::string_view name) {
  if (IsAdapterName(name)) return absl::OkStatus();
  return FieldError(field, "a name like [A-Za-z0-9][A-Za-z0-9._-]{0,127}", name);
}

StatusOr<LoadAdapterSpec> DecodeLoadAdapter(const v1::LoadAdapterRequest& request) {
  POLYAD_RETURN_IF_ERROR(CheckAdapterName("name", request.name()));
  if (request.uri().empty()) return FieldError("uri", "a path inside an adapter root", "nothing");
  POLYAD_RETURN_IF_ERROR(CheckCount("uri", request.uri().size(), kMaxUriBytes, "bytes"));
  const std::string digest = absl::AsciiStrToLower(request.expected_digest());
  if (!digest.empty() && !DigestFromHex(digest)) {
    return FieldError("expected_digest", "64 hex digits", request.expected_digest());
  }
  LoadAdapterSpec spec;
  if (request.has_defaults()) {
    POLYAD_ASSIGN_OR_RETURN(spec.defaults, MakeAdapterDefaults(request.defaults()));
  }
  if (request.has_expected_version()) {
    POLYAD_RETURN_IF_ERROR(
        CheckRange("expected_version", request.expected_version(), 0, INT64_MAX));
    spec.expected_version = request.expected_version();
  }
  POLYAD_RETURN_IF_ERROR(CheckCount("allowed_tenants",
                                    static_cast<size_t>(request.allowed_tenants_size()),
                                    kMaxAllowedTenants, "tenants"));
  for (const std::string& tenant : request.allowed_tenants()) {
    POLYAD_RETURN_IF_ERROR(CheckAdapterName("allowed_tenants", tenant));
    spec.allowed_tenants.push_back(tenant);
  }
  POLYAD_RETURN_IF_ERROR(
      CheckCount("options", request.options().size(), kMaxAdapterOptions, "options"));
  for (const auto& [key, value] : request.options()) {
    POLYAD_RETURN_IF_ERROR(CheckCount("options", key.size(), kMaxAdapterOptionBytes, "bytes"));
    spec.options[key] = value;
  }
  spec.name = request.name();
  spec.path = request.uri();
  spec.pinned = request.pinned();
  spec.replace = request.replace();
  spec.keep_previous = request.keep_previous();
  if (request.has_share()) {
    if (!(request.share() >= 0 && request.share() < 1)) {
      return FieldError("share", "[0, 1)", absl::StrCat(request.share()));
    }
    spec.share = request.share();
  }
  if (spec.share && spec.keep_previous) {
    return FieldError("share", "either share or keep_previous", "both");
  }
  spec.expected_digest = digest;
  return spec;
}

StatusOr<TrafficShift> DecodeShift(const v1::ShiftTrafficRequest& request) {
  POLYAD_RETURN_IF_ERROR(CheckAdapterName("name", request.name()));
  POLYAD_RETURN_IF_ERROR(CheckRange("version", request.version(), 1, INT64_MAX));
  if (!request.has_share()) return FieldError("share", "[0, 1]", "nothing");
  POLYAD_RETURN_IF_ERROR(CheckRange("share", request.share(), 0.0, 1.0));
  TrafficShift shift{request.name(), request.version(), request.share(), std::nullopt};
  if (request.has_expected_version()) {
    POLYAD_RETURN_IF_ERROR(
        CheckRange("expected_version", request.expected_version(), 1, INT64_MAX));
    shift.expected_version = request.expected_version();
  }
  return shift;
}

v1::LoadAdapterResponse::State EncodeLoadState(LoadState state) {
  switch (state) {
    case LoadState::kResolving:
      return v1::LoadAdapterResponse::RESOLVING;
    case LoadState::kVerifying:
      return v1::LoadAdapterResponse::VERIFYING;
    case LoadState::kLowering:
      return v1::LoadAdapterResponse::LOWERING;
    case LoadState::kResident:
      return v1::LoadAdapterResponse::RESIDENT;
  }
  return v1::LoadAdapterResponse::STATE_UNSPECIFIED;
}

void EncodeOp(const OpReport& from, v1::OpReport& to) {
  to.set_op(from.op);
  to.set_stage(from.stage);
  to.set_target(from.target);
  to.set_count(from.count);
  to.set_rank(from.rank);
  to.set_bytes(from.bytes.total());
  to.set_flops_per_token(from.flops_per_token);
}

void EncodeLoadReport(const LoadReport& from, v1::LoadReport& to) {
  to.set_name(from.name);
  to.set_version(from.version);
  to.set_digest(from.digest);
  to.set_family(from.family);
  to.mutable_ranks()->Add(from.ranks.begin(), from.ranks.end());
  for (const std::string& target : from.targets) to.add_targets(target);
  to.set_num_tensors_read(from.num_tensors_read);
  to.set_file_bytes(from.file_bytes);
  to.set_resident_bytes(from.resident_bytes.total());
  EncodeBytes(from.resident_bytes, *to.mutable_resident_bytes_by_precision());
  to.set_flops_per_token(from.flops_per_token);
  to.mutable_layer_delta_norms()->Add(from.layer_delta_norms.begin(), from.layer_delta_norms.end());
  to.set_load_ms(from.load_ms);
  for (const OpReport& op : from.ops) EncodeOp(op, *to.add_ops());
  to.set_exactness(from.exactness);
  to.set_num_virtual_tokens(from.num_virtual_tokens);
  to.set_max_context(from.max_context);
}

LoadReport DecodeLoadReport(const v1::LoadReport& from) {
  LoadReport report;
  report.name = from.name();
  report.version = from.version();
  report.digest = from.digest();
  report.family = from.family();
  report.exactness = from.exactness();
  report.ranks.assign(from.ranks().begin(), from.ranks().end());
  report.targets.assign(from.targets().begin(), from.targets().end());
  for (const v1::OpReport& op : from.ops()) {
    report.ops.push_back({op.op(),
                          op.stage(),
                          op.target(),
                          op.count(),
                          op.rank(),
                          {Precision::kF32, op.bytes()},
                          op.flops_per_token()});
  }
  report.num_virtual_tokens = from.num_virtual_tokens();
  report.max_context = from.max_context();
  report.num_tensors_read = from.num_tensors_read();
  report.file_bytes = from.file_bytes();
  report.resident_bytes = DecodeBytes(from.resident_bytes_by_precision());
  report.flops_per_token = from.flops_per_token();
  report.layer_delta_norms.assign(from.layer_delta_norms().begin(), from.layer_delta_norms().end());
  report.load_ms = from.load_ms();
  return report;
}

int64_t ContextOf(const LoadReport& report, int64_t of_base) {
  return report.max_context > 0 ? report.max_context : of_base;
}

void EncodeAdapter(const AdapterInfo& from, v1::Adapter& to) {
  EncodeLoadReport(from.report, *to.mutable_report());
  to.set_pinned(from.pinned);
  to.set_retired(from.retired);
  to.set_resident(from.resident);
  to.set_num_leases(from.num_leases);
  to.set_kept(from.kept);
  to.set_share(from.share);
  for (const std::string& alias : from.aliases) to.add_aliases(alias);
  for (const std::string& tenant : from.allowed_tenants) to.add_allowed_tenants(tenant);
  if (from.defaults != nullptr) *to.mutable_defaults() = from.defaults->message;
}

void EncodeServerInfo(const ModelInfo& from, std::string_view version,
                      v1::GetServerInfoResponse& to) {
  to.set_version(std::string(version));
  v1::ModelInfo* model = to.mutable_model();
  model->set_name(from.name);
  model->set_architecture(from.architecture);
  model->set_vocab_size(from.vocab_size);
  model->set_max_context(from.max_context);
  model->set_num_parameters(from.num_parameters);
  model->set_weight_bytes(from.weight_bytes.total());
  EncodeBytes(from.weight_bytes.embeddings, *model->mutable_embedding_bytes());
  EncodeBytes(from.weight_bytes.layers, *model->mutable_layer_bytes());
  model->set_kv_bytes(from.kv_bytes);
  model->set_kv_dtype(from.kv_format);
  model->set_kv_bytes_per_token(from.kv_bytes_per_token);
  model->set_memory_bytes(from.memory_bytes);
  model->set_load_seconds(from.load_seconds);
  to.set_backend(from.backend.name);
  to.set_isa(from.backend.isa);
  to.set_num_threads(from.backend.num_threads);
  to.set_compute_mode(from.compute_mode);
}

void EncodeLoad(const EngineLoad& from, v1::GetLoadResponse& to) {
  to.set_num_waiting(from.num_waiting);
  to.set_num_running(from.num_running);
  to.set_num_kv_blocks(from.num_kv_blocks);
  to.set_num_kv_blocks_used(from.num_kv_blocks_used);
  to.set_num_kv_blocks_cached(from.num_kv_blocks_cached);
  to.set_num_kv_blocks_shared(from.num_kv_blocks_shared);
  to.set_num_kv_blocks_soft_prompt(from.num_kv_blocks_soft_prompt);
  to.set_soft_prompt_tokens(from.soft_prompt_tokens);
  to.set_num_kv_blocks_in_memory(from.num_kv_blocks_in_memory);
  to.set_num_kv_blocks_in_file(from.num_kv_blocks_in_file);
  to.set_num_kv_blocks_saved(from.num_kv_blocks_saved);
  to.set_num_kv_blocks_restored(from.num_kv_blocks_restored);
  if (from.memory_bytes.total > 0) {
    v1::MemoryBytes* memory = to.mutable_memory_bytes();
    memory->set_total(from.memory_bytes.total);
    memory->set_kv(from.memory_bytes.kv);
    memory->set_prefix(from.memory_bytes.prefix);
    memory->set_adapters(from.memory_bytes.adapters);
    memory->set_free(from.memory_bytes.free);
  }
  to.set_num_steps(from.num_steps);
  to.set_num_preemptions(from.num_preemptions);
  to.set_num_requests_finished(from.num_requests_finished);
  to.set_num_requests_cancelled(from.num_requests_cancelled);
  to.set_prompt_tokens(from.prompt_tokens);
  to.set_generated_tokens(from.generated_tokens);
  to.set_prefix_queries(from.prefix_queries);
  to.set_prefix_hits(from.prefix_hits);
  for (const std::string& name : from.running_adapters) to.add_running_adapters(name);
  for (const std::string& name : from.waiting_adapters) to.add_waiting_adapters(name);
  to.set_draining(from.draining);
  to.set_last_step_age_ms(from.last_step_age_ms);
}

void EncodeAdapterBytes(const PrecisionBytes& from, v1::GetLoadResponse& to) {
  to.set_adapter_bytes(from.total());
  EncodeBytes(from, *to.mutable_adapter_bytes_by_precision());
}

}  // namespace polyad
