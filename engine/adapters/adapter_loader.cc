#include "engine/adapters/adapter_loader.h"

#include <filesystem>
#include <set>
#include <variant>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_source.h"
#include "engine/adapters/delta_norms.h"
#include "engine/adapters/family_table.h"
#include "engine/adapters/program_packing.h"

namespace polyad {
namespace {

StatusOr<Directory> OpenLocation(const AdapterLocation& location) {
  if (!location.root.empty()) return Directory::OpenBeneath(location.root, location.path);
  std::error_code error;
  const std::filesystem::path full = std::filesystem::canonical(location.path, error);
  if (error || !full.has_parent_path() || full.filename().empty()) {
    return NotFound("adapter directory '%s': not found",
                    std::filesystem::path(location.path).filename().string());
  }
  return Directory::OpenBeneath(full.parent_path().string(), full.filename().string());
}

StatusOr<LoadReport> Describe(const AdapterSource& source, const AdapterProgram& program,
                              const ModelSpec& spec) {
  LoadReport report;
  report.family = program.family;
  report.digest = ToHex(source.digest());
  report.num_tensors_read = source.num_tensors();
  report.file_bytes = source.file_bytes();
  std::set<int64_t> ranks;
  std::set<std::string> targets;
  for (const SiteOp& site_op : program.ops) {
    if (const auto* low_rank = std::get_if<LowRank>(&site_op.op)) ranks.insert(low_rank->a.rows);
    const std::string path = ModulePath(spec, site_op.site);
    targets.insert(path.substr(path.rfind('.') + 1));
  }
  report.ranks.assign(ranks.begin(), ranks.end());
  report.targets.assign(targets.begin(), targets.end());
  POLYAD_ASSIGN_OR_RETURN(report.layer_delta_norms, LayerDeltaNorms(program, spec));
  return report;
}

}  // namespace

StatusOr<LoadedAdapter> LoadAdapter(const LoaderContext& context, const AdapterLocation& location,
                                    AdapterVersion::Identity identity,
                                    const std::function<void(LoadState)>& progress) {
  const auto tell = [&progress](LoadState state) {
    if (progress) progress(state);
  };
  tell(LoadState::kResolving);
  POLYAD_ASSIGN_OR_RETURN(const Directory directory, OpenLocation(location));
  tell(LoadState::kVerifying);
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source,
                          AdapterSource::Open(directory, context.max_file_bytes));
  tell(LoadState::kLowering);
  POLYAD_ASSIGN_OR_RETURN(const AdapterProgram program, LowerAdapter(source, context.lowering));
  LoadedAdapter loaded;
  POLYAD_ASSIGN_OR_RETURN(loaded.report, Describe(source, program, context.lowering.spec));
  loaded.report.name = identity.name;
  loaded.report.version = identity.version;
  identity.digest = source.digest();
  loaded.version =
      std::make_shared<AdapterVersion>(std::move(identity), context.lowering.spec.num_layers);
  POLYAD_RETURN_IF_ERROR(
      PackProgram(program, context.lowering.spec, context.backend, *loaded.version));
  loaded.report.resident_bytes = loaded.version->cost().bytes;
  loaded.report.flops_per_token = loaded.version->cost().flops_per_token;
  return loaded;
}

StatusOr<LoadReport> InspectAdapter(const std::string& path, const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const Directory directory, OpenLocation({"", path}));
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source,
                          AdapterSource::Open(directory, AdapterStoreOptions{}.max_file_bytes));
  POLYAD_ASSIGN_OR_RETURN(const AdapterProgram program, LowerAdapter(source, context));
  return Describe(source, program, context.spec);
}

}  // namespace polyad
