#include "server/config.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "engine/base/adapter_name.h"
#include "engine/io/file.h"
#include "engine/io/json.h"
#include "engine/io/quote.h"
#include "server/auth.h"
#include "server/field_error.h"
#include "server/http/http_server.h"

namespace polyad {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;
constexpr size_t kMaxListEntries = 4096;
constexpr std::string_view kConfigFlag = "config";

std::string Mapped(std::string_view name, bool upper) {
  std::string out;
  for (char c : name) {
    if (c == '-') {
      out.push_back('_');
    } else {
      out.push_back(upper && c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c);
    }
  }
  return out;
}

const Knob* FindKnob(std::string_view name) {
  for (const Knob& knob : Knobs()) {
    if (name == knob.name) return &knob;
  }
  return nullptr;
}

Status SetInteger(const Knob& knob, std::string_view text, int64_t& out) {
  int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size()) {
    return FieldError(knob.name, "an integer", text);
  }
  POLYAD_RETURN_IF_ERROR(CheckRange(knob.name, value, knob.min, knob.max));
  out = value;
  return absl::OkStatus();
}

bool IsChoice(std::string_view choices, std::string_view text) {
  while (!choices.empty()) {
    const size_t end = std::min(choices.find('|'), choices.size());
    if (choices.substr(0, end) == text) return true;
    choices.remove_prefix(std::min(end + 1, choices.size()));
  }
  return false;
}

Status SetString(const Knob& knob, std::string_view text, std::string& out) {
  if (knob.choices[0] != '\0' && !IsChoice(knob.choices, text)) {
    return FieldError(knob.name, knob.choices, text);
  }
  out = std::string(text);
  return absl::OkStatus();
}

Status SetBool(const Knob& knob, std::string_view text, bool& out) {
  if (text != "true" && text != "false") return FieldError(knob.name, "true or false", text);
  out = text == "true";
  return absl::OkStatus();
}

// One value as text; lists grow by it.
Status SetKnob(const Knob& knob, std::string_view text, ServerConfig& config) {
  if (const auto* field = std::get_if<int64_t ServerConfig::*>(&knob.field)) {
    return SetInteger(knob, text, config.**field);
  }
  if (const auto* field = std::get_if<bool ServerConfig::*>(&knob.field)) {
    return SetBool(knob, text, config.**field);
  }
  if (const auto* field = std::get_if<std::string ServerConfig::*>(&knob.field)) {
    return SetString(knob, text, config.**field);
  }
  auto& list = config.*std::get<std::vector<std::string> ServerConfig::*>(knob.field);
  if (list.size() == kMaxListEntries) return FieldError(knob.name, "fewer entries", "too many");
  list.emplace_back(text);
  return absl::OkStatus();
}

bool IsList(const Knob& knob) {
  return std::holds_alternative<std::vector<std::string> ServerConfig::*>(knob.field);
}

void ClearIfList(const Knob& knob, ServerConfig& config) {
  if (IsList(knob))
    (config.*std::get<std::vector<std::string> ServerConfig::*>(knob.field)).clear();
}

Status UnknownName(std::string_view what, std::string_view name,
                   const std::vector<std::string>& known) {
  const std::string nearest = NearestName(name, known);
  return InvalidArgument("%s %s: unknown%s", what, Quote(name),
                         nearest.empty() ? std::string() : "; did you mean '" + nearest + "'?");
}

std::vector<std::string> FlagNames() {
  std::vector<std::string> names = {std::string(kConfigFlag)};
  for (const Knob& knob : Knobs()) names.emplace_back(knob.name);
  return names;
}

struct Flag {
  const Knob* knob = nullptr;  // null: --config
  std::string value;
};

// "--name value", "--name=value", and "--name" alone for true.
StatusOr<std::vector<Flag>> ParseFlags(const std::vector<std::string>& args) {
  std::vector<Flag> flags;
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].starts_with("--")) {
      return InvalidArgument("argument %s: expected a flag (see --help)", Quote(args[i]));
    }
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(2, equals == args[i].npos ? equals : equals - 2);
    Flag flag{FindKnob(name), ""};
    if (flag.knob == nullptr && name != kConfigFlag) {
      return UnknownName("flag", name, FlagNames());
    }
    const bool is_bool =
        flag.knob != nullptr && std::holds_alternative<bool ServerConfig::*>(flag.knob->field);
    if (equals != args[i].npos) {
      flag.value = args[i].substr(equals + 1);
    } else if (is_bool) {
      flag.value = "true";
    } else if (i + 1 < args.size()) {
      flag.value = args[++i];
    } else {
      return InvalidArgument("flag --%s: expected a value, got none", name);
    }
    flags.push_back(std::move(flag));
  }
  return flags;
}

Status ApplyFileValue(const Knob& knob, const Json& value, ServerConfig& config) {
  const auto text_of = [&](const Json& item) -> StatusOr<std::string> {
    if (item.is_string()) return item.get<std::string>();
    if (item.is_boolean() || item.is_number_integer()) return item.dump();
    return FieldError(knob.name, KnobType(knob), DescribeJson(item));
  };
  ClearIfList(knob, config);
  if (value.is_array() && IsList(knob)) {
    for (const Json& item : value) {
      POLYAD_ASSIGN_OR_RETURN(const std::string text, text_of(item));
      POLYAD_RETURN_IF_ERROR(SetKnob(knob, text, config));
    }
    return absl::OkStatus();
  }
  POLYAD_ASSIGN_OR_RETURN(const std::string text, text_of(value));
  return SetKnob(knob, text, config);
}

// An environment variable holds one value; a list's are separated by commas.
Status ApplyEnvironmentValue(const Knob& knob, std::string_view text, ServerConfig& config) {
  if (!IsList(knob)) return SetKnob(knob, text, config);
  ClearIfList(knob, config);
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    if (end > 0) POLYAD_RETURN_IF_ERROR(SetKnob(knob, text.substr(0, end), config));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return absl::OkStatus();
}

Status CheckListener(const std::string& name, const std::string& listen, const std::string& missing,
                     bool insecure) {
  const auto parsed = ParseListenAddress(listen);
  if (!parsed.ok()) return FieldError(name, "HOST:PORT", listen);
  if (missing.empty() || insecure || IsLoopback(parsed->first)) return absl::OkStatus();
  return FieldError(name, "a loopback address, or also " + missing + ", or --insecure", listen);
}

// What a listener beyond this machine has to have and does not.
std::string MissingOf(const ServerConfig& config, bool needs_tenants, bool needs_admin) {
  std::string missing;
  const auto need = [&missing](const char* flag, const std::string& value) {
    if (value.empty()) missing += (missing.empty() ? "--" : ", --") + std::string(flag);
  };
  need("tls-cert", config.tls_cert);
  if (needs_tenants) need("tenants-file", config.tenants_file);
  if (needs_admin) need("admin-token-file", config.admin_token_file);
  return missing;
}

Status CheckTls(const ServerConfig& config) {
  const bool has_certificate = !config.tls_cert.empty();
  if (has_certificate == config.tls_key.empty()) {
    return has_certificate ? FieldError("tls-key", "the key of tls-cert", "nothing")
                           : FieldError("tls-cert", "the certificate of tls-key", "nothing");
  }
  if (!has_certificate && !config.tls_client_ca.empty()) {
    return FieldError("tls-cert", "a certificate beside tls-client-ca", "nothing");
  }
  if (config.tls_require_client_cert && config.tls_client_ca.empty()) {
    return FieldError("tls-client-ca", "a file beside tls-require-client-cert", "nothing");
  }
  return absl::OkStatus();
}

}  // namespace

std::string KnobEnvironmentName(const Knob& knob) { return "POLYAD_" + Mapped(knob.name, true); }
std::string KnobFileKey(const Knob& knob) { return Mapped(knob.name, false); }

std::string KnobType(const Knob& knob) {
  if (std::holds_alternative<int64_t ServerConfig::*>(knob.field)) return "integer";
  if (std::holds_alternative<bool ServerConfig::*>(knob.field)) return "true/false";
  if (IsList(knob)) return "list";
  std::string type = knob.choices[0] != '\0' ? knob.choices : "string";
  std::replace(type.begin(), type.end(), '|', '/');
  return type;
}

std::string KnobDefault(const Knob& knob) {
  const ServerConfig config;
  if (const auto* field = std::get_if<int64_t ServerConfig::*>(&knob.field)) {
    return std::to_string(config.**field);
  }
  if (const auto* field = std::get_if<bool ServerConfig::*>(&knob.field)) {
    return config.**field ? "true" : "false";
  }
  if (const auto* field = std::get_if<std::string ServerConfig::*>(&knob.field)) {
    return config.**field;
  }
  return "";
}

std::string KnobHelp() {
  std::string out;
  for (const Knob& knob : Knobs()) {
    const std::string value = KnobDefault(knob);
    out += absl::StrFormat("  --%s %s%s%s\n      %s\n", knob.name, KnobType(knob),
                           knob.unit[0] != '\0' ? std::string(", ") + knob.unit : std::string(),
                           value.empty() ? std::string() : " (default " + value + ")", knob.doc);
  }
  out += "  --config string\n      JSON file with any of these, dashes as underscores.\n";
  return out;
}

std::optional<std::string> ProcessEnvironment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

Status ApplyConfigFile(const std::string& text, ServerConfig& config) {
  POLYAD_ASSIGN_OR_RETURN(const Json json,
                          ParseJson(text, "config", {.max_bytes = kMaxConfigBytes}));
  if (!json.is_object()) return FieldError("config", "an object", DescribeJson(json));
  for (const auto& [key, value] : json.items()) {
    const Knob* found = nullptr;
    std::vector<std::string> known;
    for (const Knob& knob : Knobs()) {
      known.push_back(KnobFileKey(knob));
      if (known.back() == key) found = &knob;
    }
    if (found == nullptr) return UnknownName("config key", key, known);
    POLYAD_RETURN_IF_ERROR(ApplyFileValue(*found, value, config));
  }
  return absl::OkStatus();
}

StatusOr<ServerConfig> LoadConfig(const std::vector<std::string>& args,
                                  const EnvironmentLookup& environment) {
  POLYAD_ASSIGN_OR_RETURN(const std::vector<Flag> flags, ParseFlags(args));
  std::string file = environment("POLYAD_CONFIG").value_or("");
  for (const Flag& flag : flags) {
    if (flag.knob == nullptr) file = flag.value;
  }
  ServerConfig config;
  if (!file.empty()) {
    POLYAD_ASSIGN_OR_RETURN(const std::string text, ReadFileLimited(file, kMaxConfigBytes));
    POLYAD_RETURN_IF_ERROR(ApplyConfigFile(text, config));
  }
  for (const Knob& knob : Knobs()) {
    if (const auto value = environment(KnobEnvironmentName(knob))) {
      POLYAD_RETURN_IF_ERROR(ApplyEnvironmentValue(knob, *value, config));
    }
  }
  std::vector<const Knob*> cleared;
  for (const Flag& flag : flags) {
    if (flag.knob == nullptr) continue;
    if (std::find(cleared.begin(), cleared.end(), flag.knob) == cleared.end()) {
      ClearIfList(*flag.knob, config);  // a flag replaces the file's list, then adds to it
      cleared.push_back(flag.knob);
    }
    POLYAD_RETURN_IF_ERROR(SetKnob(*flag.knob, flag.value, config));
  }
  return config;
}

Status CheckConfig(const ServerConfig& config) {
  if (config.model.empty()) return FieldError("model", "a path", "nothing");
  for (const std::string& adapter : config.adapters) {
    const size_t equals = adapter.find('=');
    if (equals == adapter.npos || !IsAdapterName(std::string_view(adapter).substr(0, equals)) ||
        equals + 1 == adapter.size()) {
      return FieldError("adapter", "NAME=PATH", adapter);
    }
  }
  if (!config.adapters_from.empty() && config.adapter_roots.empty()) {
    return FieldError("adapter-root", "a directory beside adapters-from", "nothing");
  }
  const ServerConfig defaults;
  if (config.memory_mib > 0 &&
      (config.kv_mib != defaults.kv_mib || config.max_adapter_mib != defaults.max_adapter_mib)) {
    return FieldError("memory-mib", "0 beside kv-mib or max-adapter-mib, which it replaces",
                      std::to_string(config.memory_mib));
  }
  POLYAD_RETURN_IF_ERROR(CheckTls(config));
  POLYAD_RETURN_IF_ERROR(CheckListener("grpc-listen", config.grpc_listen,
                                       MissingOf(config, true, false), config.insecure));
  POLYAD_RETURN_IF_ERROR(CheckListener("admin-listen", config.admin_listen,
                                       MissingOf(config, false, true), config.insecure));
  // HTTP has both kinds of routes.
  return CheckListener("http-listen", config.http_listen, MissingOf(config, true, true),
                       config.insecure);
}

bool HasReflection(const ServerConfig& config, const std::string& listen) {
  if (config.grpc_reflection != "auto") return config.grpc_reflection == "on";
  return ReachOf(listen) == Reach::kThisMachine;
}

std::string ConfigAsJson(const ServerConfig& config) {
  OrderedJson json = OrderedJson::object();
  for (const Knob& knob : Knobs()) {
    std::visit([&](auto field) { json[KnobFileKey(knob)] = config.*field; }, knob.field);
  }
  return json.dump(2, ' ', true, OrderedJson::error_handler_t::replace) + "\n";
}

std::string NearestName(std::string_view name, const std::vector<std::string>& known) {
  constexpr size_t kMaxNameBytes = 64;
  name = name.substr(0, kMaxNameBytes);
  std::string best;
  size_t best_distance = 4;  // farther than 3 edits is no typing error
  for (const std::string& candidate : known) {
    std::vector<size_t> row(candidate.size() + 1);
    for (size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = row[0]++;
      for (size_t j = 1; j < row.size(); ++j) {
        const size_t replaced = diagonal + (name[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

}  // namespace polyad
