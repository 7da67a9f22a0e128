#include <cstdio>

#include "absl/strings/numbers.h"
#include "engine/adapters/adapter_loader.h"
#include "engine/adapters/file_base_weights.h"
#include "engine/base/digest.h"
#include "engine/inspect_base.h"
#include "engine/io/file.h"
#include "engine/io/json.h"
#include "engine/spec/model_files.h"
#include "server/command.h"

// `polyad inspect`: what a model is; what an adapter is and how a model would serve it.

namespace polyad {
namespace {

// The precisions that hold anything.
OrderedJson Describe(const PrecisionBytes& bytes) {
  OrderedJson out = OrderedJson::object();
  for (const Precision precision : kPrecisions) {
    if (bytes[precision] > 0) out[std::string(NameOf(precision))] = bytes[precision];
  }
  return out;
}

OrderedJson Describe(const BaseReport& report) {
  const ModelSpec& spec = report.spec;
  OrderedJson out;
  out["kind"] = "model";
  out["name"] = spec.name;
  out["architecture"] = ArchitectureName(spec.architecture);
  out["hidden_size"] = spec.hidden_size;
  out["num_layers"] = spec.num_layers;
  out["num_heads"] = spec.num_heads;
  out["num_kv_heads"] = spec.num_kv_heads;
  out["head_dim"] = spec.head_dim;
  out["intermediate_size"] = spec.intermediate_size;
  out["vocab_size"] = spec.vocab_size;
  out["max_context"] = spec.max_position;
  out["weight_bytes"] = report.bytes.total();
  out["embedding_bytes"] = Describe(report.bytes.embeddings);
  out["layer_bytes"] = Describe(report.bytes.layers);
  out["weights_sha256"] = ToHex(report.weights_sha256);
  out["warnings"] = spec.warnings;
  return out;
}

OrderedJson Describe(const OpReport& op) {
  OrderedJson out;
  out["op"] = op.op;
  out["stage"] = op.stage;
  out["target"] = op.target;
  out["count"] = op.count;
  if (op.rank > 0) out["rank"] = op.rank;
  out["bytes"] = op.bytes.total();
  out["flops_per_token"] = op.flops_per_token;
  return out;
}

OrderedJson Describe(const LoadReport& report) {
  OrderedJson out;
  out["kind"] = "adapter";
  out["family"] = report.family;
  out["exactness"] = report.exactness;
  out["ranks"] = report.ranks;
  out["targets"] = report.targets;
  out["num_tensors_read"] = report.num_tensors_read;
  out["file_bytes"] = report.file_bytes;
  out["resident_bytes"] = report.resident_bytes.total();
  out["bytes_by_precision"] = Describe(report.resident_bytes);
  out["flops_per_token"] = report.flops_per_token;
  if (report.max_context > 0) out["max_context"] = report.max_context;
  if (report.num_virtual_tokens > 0) out["num_virtual_tokens"] = report.num_virtual_tokens;
  for (const OpReport& op : report.ops) out["ops"].push_back(Describe(op));
  out["layer_delta_norms"] = report.layer_delta_norms;
  out["digest"] = report.digest;
  return out;
}

// Members on one line: texts as they are, numbers with their names.
std::string LineOf(const OrderedJson& object) {
  constexpr auto kReplace = OrderedJson::error_handler_t::replace;
  std::string line;
  for (const auto& [name, value] : object.items()) {
    const bool text = value.is_string();
    const std::string shown = text ? value.get<std::string>() : value.dump(-1, ' ', true, kReplace);
    line += (line.empty() ? "" : " ") + (text ? shown : name + "=" + shown);
  }
  return line;
}

// One line for each op: what, where, how often, how much.
void PrintRows(const std::string& key, const OrderedJson& rows) {
  std::string head = key;
  for (const OrderedJson& row : rows) {
    std::printf("%-18s %s\n", head.c_str(), LineOf(row).c_str());
    head.clear();
  }
}

void Print(const OrderedJson& described, bool as_json) {
  constexpr auto kReplace = OrderedJson::error_handler_t::replace;
  if (as_json) {
    std::printf("%s\n", described.dump(2, ' ', true, kReplace).c_str());
    return;
  }
  for (const auto& [key, value] : described.items()) {
    if (value.is_array() && !value.empty() && value.front().is_object()) {
      PrintRows(key, value);
      continue;
    }
    const std::string text = value.is_string()   ? value.get<std::string>()
                             : value.is_object() ? LineOf(value)
                                                 : value.dump(-1, ' ', true, kReplace);
    std::printf("%-18s %s\n", key.c_str(), text.c_str());
  }
}

// Every --option KEY=NUMBER.
StatusOr<AdapterOptions> TakeOptions(OwnFlags& flags) {
  AdapterOptions options;
  while (const auto text = flags.Take("option")) {
    const size_t at = text->find('=');
    int64_t value = 0;
    if (at == 0 || at == text->npos || !absl::SimpleAtoi(text->substr(at + 1), &value)) {
      return InvalidArgument("--option: expected KEY=NUMBER, got '%s'", *text);
    }
    options[text->substr(0, at)] = value;
  }
  return options;
}

bool IsAdapter(const std::string& path) {
  for (const char* file :
       {"/adapter_config.json", "/zoo.json", "/adapter.gguf", "/adapter_setup.json"}) {
    if (FileExists(path + file)) return true;
  }
  return false;
}

StatusOr<OrderedJson> Inspect(const std::string& path, const std::string& model,
                              const AdapterOptions& options, BackendMaker make_backend) {
  POLYAD_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, make_backend("cpu", {}));
  if (!IsAdapter(path)) {
    POLYAD_ASSIGN_OR_RETURN(const BaseReport report, InspectBase(path, *backend));
    return Describe(report);
  }
  if (model.empty()) {
    return InvalidArgument(
        "%s is an adapter: expected --model PATH of the base that would serve it", path);
  }
  POLYAD_ASSIGN_OR_RETURN(ModelFiles opened, OpenModel(model));
  const auto base = std::make_shared<const ModelFiles>(std::move(opened));
  const FileBaseWeights weights(base);
  POLYAD_ASSIGN_OR_RETURN(const LoadReport report,
                          InspectAdapter(path, {{base->spec(), &weights, options}, *backend}));
  return Describe(report);
}

}  // namespace

int RunInspect(const Arguments& args, BackendMaker make_backend) {
  if (args.empty() || WantsHelp(args)) {
    std::printf(
        "usage: polyad inspect PATH [--model PATH] [--option KEY=NUMBER]... [--json]\n\n"
        "Says what a model directory, GGUF file or adapter directory is. Every weight of a model\n"
        "is read: what it would occupy by precision, and the SHA-256 that tells it from others.\n"
        "For an adapter, --model names the base; the report is what loading it there would give,\n"
        "or why it is refused.\n"
        "--option chooses among the adapters of a file that holds several, such as task=2.\n"
        "Exit codes: 0 it would be served, 2 bad flag, 3 it would be refused.\n");
    return args.empty() ? kExitUsage : kExitOk;
  }
  OwnFlags flags(args);
  const std::string model = flags.Take("model").value_or("");
  const auto options = TakeOptions(flags);
  if (!options.ok()) return PrintError(options.status(), kExitUsage);
  const bool as_json = flags.TakeSwitch("json");
  if (flags.rest().size() != 1 || flags.rest().front().starts_with("--")) {
    return PrintError(InvalidArgument("inspect: expected one PATH (see --help)"), kExitUsage);
  }
  const auto described = Inspect(flags.rest().front(), model, *options, make_backend);
  if (!described.ok()) {
    const bool usage = described.status().message().find("--model") != absl::string_view::npos;
    return PrintError(described.status(), usage ? kExitUsage : kExitModel);
  }
  Print(*described, as_json);
  return kExitOk;
}

}  // namespace polyad
