#include "server/adapters_file.h"

#include <google/protobuf/util/json_util.h>

#include <initializer_list>
#include <set>
#include <utility>

#include "engine/base/adapter_name.h"
#include "engine/base/digest.h"
#include "engine/io/json.h"
#include "engine/io/quote.h"

namespace polyad {
namespace {

constexpr JsonLimits kLimits{.max_bytes = kMaxAdaptersFileBytes,
                             .max_depth = 40,  // a schema's 32 within the defaults
                             .max_values = 1 << 18,
                             .max_members = 4096};

// What a file says of a state cannot be done once and for all, as a call can.
constexpr const char* kOfCallsAlone[] = {"expectedVersion", "expected_version", "keepPrevious",
                                         "keep_previous",   "replace",          "share"};

Status Wrong(const std::string& where, const std::string& expected, const std::string& got) {
  return InvalidArgument("%s: expected %s, got %s", where, expected, got);
}

Status CheckKeys(const JsonFields& object, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.object().items()) {
    bool found = false;
    for (const std::string_view name : known) found = found || name == key;
    if (!found) return InvalidArgument("%s: key %s: unknown", object.where(), Quote(key));
  }
  return absl::OkStatus();
}

// The array that `object` has under `key`; empty where it has none.
StatusOr<Json> ArrayOf(const JsonFields& object, const std::string& key) {
  const Json* array = object.Find(key);
  if (array == nullptr) return Json::array();
  if (!array->is_array()) return object.WrongType(key, "an array");
  if (array->size() > kMaxDeclaredAdapters) {
    return ResourceExhausted("%s: key '%s': expected at most %d entries, got %d", object.where(),
                             key, kMaxDeclaredAdapters, array->size());
  }
  return *array;
}

StatusOr<std::string> NameOf(const Json& value, const std::string& where) {
  if (!value.is_string()) return Wrong(where, "a name", DescribeJson(value));
  std::string name = value.get<std::string>();
  if (!IsAdapterName(name)) {
    return Wrong(where, "a name like [A-Za-z0-9][A-Za-z0-9._-]{0,127}", Quote(name));
  }
  return name;
}

StatusOr<DeclaredAdapter> ReadAdapter(Json json, std::string where) {
  if (!json.is_object()) return Wrong(where, "an object", DescribeJson(json));
  DeclaredAdapter adapter;
  POLYAD_ASSIGN_OR_RETURN(const std::string name,
                          NameOf(json.value("name", Json()), where + ": key 'name'"));
  where = "adapter '" + name + "'";
  for (const char* key : kOfCallsAlone) {
    if (json.contains(key)) {
      return InvalidArgument("%s: key '%s': is of calls alone", where, key);
    }
  }
  const Json aliases = json.value("aliases", Json::array());
  if (!aliases.is_array()) {
    return Wrong(where + ": key 'aliases'", "an array", DescribeJson(aliases));
  }
  if (aliases.size() > kMaxDeclaredAliases) {
    return ResourceExhausted("%s: key 'aliases': expected at most %d, got %d", where,
                             kMaxDeclaredAliases, aliases.size());
  }
  for (const Json& alias : aliases) {
    POLYAD_ASSIGN_OR_RETURN(adapter.aliases.emplace_back(),
                            NameOf(alias, where + ": key 'aliases'"));
  }
  json.erase("aliases");
  const auto read = google::protobuf::util::JsonStringToMessage(
      json.dump(-1, ' ', false, Json::error_handler_t::replace), &adapter.request);
  if (!read.ok()) return Wrong(where, "LoadAdapterRequest in JSON", Quote(read.ToString()));
  json.erase("pinned");
  Sha256 digest;
  digest.Update(json.dump(-1, ' ', false, Json::error_handler_t::replace));
  adapter.digest = ToHex(digest.Finish());
  return adapter;
}

// {"id": name, "source": path, "base-model": the base's name}
StatusOr<DeclaredAdapter> ReadSidecarModel(const Json& model, const std::string& where,
                                           const std::string& default_base) {
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(model, where));
  POLYAD_RETURN_IF_ERROR(CheckKeys(fields, {"id", "source", "base-model"}));
  POLYAD_ASSIGN_OR_RETURN(const std::string id, fields.String("id"));
  POLYAD_ASSIGN_OR_RETURN(const std::string source, fields.String("source"));
  POLYAD_ASSIGN_OR_RETURN(const std::string base, fields.StringOr("base-model", default_base));
  POLYAD_ASSIGN_OR_RETURN(DeclaredAdapter adapter,
                          ReadAdapter({{"name", id}, {"uri", source}}, where));
  adapter.base = base;
  return adapter;
}

StatusOr<AdaptersFile> ReadSidecar(const JsonFields& config) {
  POLYAD_RETURN_IF_ERROR(CheckKeys(
      config, {"name", "host", "port", "defaultBaseModel", "ensureExist", "ensureNotExist"}));
  POLYAD_ASSIGN_OR_RETURN(const std::string base, config.StringOr("defaultBaseModel", ""));
  AdaptersFile file;
  POLYAD_ASSIGN_OR_RETURN(const auto exist, config.Object("ensureExist"));
  if (exist) {
    POLYAD_RETURN_IF_ERROR(CheckKeys(*exist, {"models"}));
    POLYAD_ASSIGN_OR_RETURN(const Json models, ArrayOf(*exist, "models"));
    for (const Json& model : models) {
      POLYAD_ASSIGN_OR_RETURN(file.adapters.emplace_back(),
                              ReadSidecarModel(model, "ensureExist", base));
    }
  }
  POLYAD_ASSIGN_OR_RETURN(const auto absent, config.Object("ensureNotExist"));
  if (absent) {
    POLYAD_RETURN_IF_ERROR(CheckKeys(*absent, {"models"}));
    POLYAD_ASSIGN_OR_RETURN(const Json models, ArrayOf(*absent, "models"));
    for (const Json& model : models) {
      POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(model, "ensureNotExist"));
      POLYAD_RETURN_IF_ERROR(CheckKeys(fields, {"id", "source", "base-model"}));
      POLYAD_ASSIGN_OR_RETURN(file.absent.emplace_back(),
                              NameOf(model.value("id", Json()), "ensureNotExist: key 'id'"));
    }
  }
  return file;
}

StatusOr<AdaptersFile> ReadOurs(const JsonFields& fields) {
  POLYAD_RETURN_IF_ERROR(CheckKeys(fields, {"adapters", "absent"}));
  AdaptersFile file;
  POLYAD_ASSIGN_OR_RETURN(const Json adapters, ArrayOf(fields, "adapters"));
  for (const Json& adapter : adapters) {
    const std::string where = "adapters[" + std::to_string(file.adapters.size()) + "]";
    POLYAD_ASSIGN_OR_RETURN(file.adapters.emplace_back(), ReadAdapter(adapter, where));
  }
  POLYAD_ASSIGN_OR_RETURN(const Json absent, ArrayOf(fields, "absent"));
  for (const Json& name : absent) {
    POLYAD_ASSIGN_OR_RETURN(file.absent.emplace_back(), NameOf(name, "absent"));
  }
  return file;
}

// One name is one thing.
Status CheckDistinct(const AdaptersFile& file) {
  std::set<std::string_view> seen;
  const auto take = [&seen](const std::string& name) -> Status {
    if (seen.insert(name).second) return absl::OkStatus();
    return InvalidArgument("name '%s': declared twice", name);
  };
  for (const DeclaredAdapter& adapter : file.adapters) {
    POLYAD_RETURN_IF_ERROR(take(adapter.request.name()));
    for (const std::string& alias : adapter.aliases) POLYAD_RETURN_IF_ERROR(take(alias));
  }
  for (const std::string& name : file.absent) POLYAD_RETURN_IF_ERROR(take(name));
  return absl::OkStatus();
}

}  // namespace

StatusOr<AdaptersFile> ParseAdaptersFile(std::string_view text) {
  POLYAD_ASSIGN_OR_RETURN(const Json json, ParseJson(text, "adapters file", kLimits));
  POLYAD_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, "adapters file"));
  POLYAD_ASSIGN_OR_RETURN(const auto sidecar, fields.Object("vLLMLoRAConfig"));
  if (sidecar) POLYAD_RETURN_IF_ERROR(CheckKeys(fields, {"vLLMLoRAConfig"}));
  POLYAD_ASSIGN_OR_RETURN(AdaptersFile file, sidecar ? ReadSidecar(*sidecar) : ReadOurs(fields));
  POLYAD_RETURN_IF_ERROR(CheckDistinct(file));
  return file;
}

}  // namespace polyad
