#include "engine/adapters/adapter_loader.h"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_source.h"
#include "engine/adapters/family_table.h"
#include "engine/adapters/load_report.h"
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

// Of the files and of what was chosen from them: another task of the same file is another adapter,
// and so is another rotation of the same tensors.
Digest DigestOf(const AdapterSource& source, const AdapterOptions& options, bool has_rope) {
  if (options.empty() && !has_rope) return source.digest();
  Sha256 sha;
  sha.Update(source.digest().data(), source.digest().size());
  if (has_rope) {
    sha.Update("config.json");
    sha.Update(source.model_config());
  }
  for (const auto& [key, value] : options) {
    sha.UpdateInt(static_cast<int64_t>(key.size()));
    sha.Update(key);
    sha.UpdateInt(value);
  }
  return sha.Finish();
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
  const std::string name = identity.name;
  const int64_t version = identity.version;
  identity.digest = DigestOf(source, context.lowering.options, program.rope.has_value());
  const std::string digest = ToHex(identity.digest);
  loaded.version =
      std::make_shared<AdapterVersion>(std::move(identity), context.lowering.spec.num_layers);
  POLYAD_ASSIGN_OR_RETURN(const ProgramCosts costs, PackProgram(program, context.lowering.spec,
                                                                context.backend, *loaded.version));
  POLYAD_ASSIGN_OR_RETURN(loaded.report, ReportOf(source, program, context.lowering.spec, costs));
  loaded.report.name = name;
  loaded.report.version = version;
  loaded.report.digest = digest;
  return loaded;
}

StatusOr<LoadedAdapter> ReadAdapterAgain(const LoaderContext& context,
                                         const AdapterLocation& location,
                                         const AdapterVersion::Identity& identity) {
  POLYAD_ASSIGN_OR_RETURN(const Directory directory, OpenLocation(location));
  POLYAD_ASSIGN_OR_RETURN(AdapterSource source,
                          AdapterSource::Open(directory, context.max_file_bytes));
  POLYAD_ASSIGN_OR_RETURN(const AdapterProgram program, LowerAdapter(source, context.lowering));
  if (DigestOf(source, context.lowering.options, program.rope.has_value()) != identity.digest) {
    return FailedPrecondition("adapter '%s': its files are no longer those that were loaded",
                              identity.name);
  }
  LoadedAdapter loaded;
  loaded.version = std::make_shared<AdapterVersion>(identity, context.lowering.spec.num_layers);
  POLYAD_RETURN_IF_ERROR(
      PackProgram(program, context.lowering.spec, context.backend, *loaded.version).status());
  return loaded;
}

StatusOr<LoadReport> InspectAdapter(const std::string& path, const LoaderContext& context) {
  POLYAD_ASSIGN_OR_RETURN(LoadedAdapter loaded, LoadAdapter(context, {"", path}, {}, nullptr));
  return loaded.report;
}

}  // namespace polyad
