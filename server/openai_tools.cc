#include "server/openai_tools.h"

#include "server/field_error.h"
#include "server/json_reader.h"
#include "server/tool_codec.h"

namespace polyad {
namespace {

// The function that {"type": "function", "function": {...}} holds, or null where it is another
// thing.
template <typename JsonType>
const JsonType* FunctionOf(const JsonType& value) {
  if (!value.is_object()) return nullptr;
  const auto type = value.find("type");
  if (type != value.end() && !type->is_null() && *type != "function") return nullptr;
  const auto function = value.find("function");
  return function != value.end() && function->is_object() ? &*function : nullptr;
}

template <typename JsonType>
Status SetString(const std::string& field, const JsonType& value, std::string* out) {
  if (!value.is_string()) return FieldError(field, "a string", DescribeJson(value));
  *out = value.template get<std::string>();
  return absl::OkStatus();
}

Status ReadTool(const std::string& field, const OrderedJson& function, v1::Tool& tool) {
  for (const auto& [key, value] : function.items()) {
    const std::string path = field + "." + key;
    if (value.is_null()) continue;
    if (key == "name") {
      POLYAD_RETURN_IF_ERROR(SetString(path, value, tool.mutable_name()));
    } else if (key == "description") {
      POLYAD_RETURN_IF_ERROR(SetString(path, value, tool.mutable_description()));
    } else if (key == "parameters") {
      if (!value.is_object()) return FieldError(path, "an object", DescribeJson(value));
      tool.set_parameters(value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace));
    } else if (key == "strict") {  // calls that are forced are, the others are the model's
      if (!value.is_boolean()) return FieldError(path, "true or false", DescribeJson(value));
    } else {
      return FieldError(path, "name, description, parameters or strict", "another field");
    }
  }
  return absl::OkStatus();
}

Status ReadCall(const std::string& field, const Json& value, v1::ToolCall& call) {
  const Json* function = FunctionOf(value);
  if (function == nullptr) return FieldError(field, "calls of type function", DescribeJson(value));
  for (const auto& [key, part] : value.items()) {
    if (key == "id" && !part.is_null()) {
      POLYAD_RETURN_IF_ERROR(SetString(field + ".id", part, call.mutable_id()));
    } else if (key != "id" && key != "type" && key != "function" && key != "index") {
      return FieldError(field + "." + key, "id, type and function", "another field");
    }
  }
  for (const auto& [key, part] : function->items()) {
    const std::string path = field + "." + key;
    if (part.is_null()) continue;
    if (key == "name") {
      POLYAD_RETURN_IF_ERROR(SetString(path, part, call.mutable_name()));
    } else if (key == "arguments") {
      POLYAD_RETURN_IF_ERROR(SetString(path, part, call.mutable_arguments()));
    } else {
      return FieldError(path, "name and arguments", "another field");
    }
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<ToolChoice> ReadToolChoice(const std::string& field, const Json& value) {
  constexpr std::string_view kExpected = "none, auto, required or a function";
  if (value == "auto") return ToolChoice{};
  if (value == "none") return ToolChoice{ToolChoice::Kind::kNone};
  if (value == "required") return ToolChoice{ToolChoice::Kind::kRequired};
  const Json* function = FunctionOf(value);
  if (function == nullptr) return WrongJsonType(field, kExpected, value);
  const auto name = function->find("name");
  if (name == function->end() || !name->is_string()) {
    return FieldError(field, "a function's name", "none");
  }
  return ToolChoice{ToolChoice::Kind::kNamed, name->get<std::string>()};
}

Status ReadTools(const std::string& field, const OrderedJson& value, v1::Chat& chat) {
  if (!value.is_array()) return FieldError(field, "an array of tools", DescribeJson(value));
  POLYAD_RETURN_IF_ERROR(
      CheckCount(field, value.size(), static_cast<size_t>(kMaxChatTools), "tools"));
  for (const OrderedJson& item : value) {
    const OrderedJson* function = FunctionOf(item);
    if (function == nullptr || !item.contains("type")) {
      return FieldError(field, "tools of type function", DescribeJson(item));
    }
    POLYAD_RETURN_IF_ERROR(ReadTool(field, *function, *chat.add_tools()));
  }
  return absl::OkStatus();
}

Status ReadToolCalls(const std::string& field, const Json& value, v1::ChatMessage& message) {
  if (!value.is_array()) return WrongJsonType(field, "an array of calls", value);
  POLYAD_RETURN_IF_ERROR(
      CheckCount(field, value.size(), static_cast<size_t>(kMaxChatTools), "calls"));
  for (const Json& item : value) {
    POLYAD_RETURN_IF_ERROR(ReadCall(field, item, *message.add_tool_calls()));
  }
  return absl::OkStatus();
}

StatusOr<int64_t> ApplyToolChoice(const ToolChoice& choice, bool parallel,
                                  v1::GenerateRequest& request) {
  using Kind = ToolChoice::Kind;
  const bool forced = choice.kind == Kind::kRequired || choice.kind == Kind::kNamed;
  if (request.chat().tools_size() == 0) {
    if (forced) return FieldError("tool_choice", "tools to choose from", "none");
    return 0;
  }
  if (choice.kind == Kind::kNone) {
    request.mutable_chat()->clear_tools();
    return 0;
  }
  if (forced) {
    if (request.constraint().kind_case() != v1::Constraint::KIND_NOT_SET) {
      return FieldError("tool_choice", "no constraint beside required calls", "one");
    }
    v1::ToolCalls& calls = *request.mutable_constraint()->mutable_tool_calls();
    calls.set_name(choice.name);
    calls.set_several(choice.kind == Kind::kRequired && parallel);
  }
  return parallel ? kMaxChatTools : 1;
}

}  // namespace polyad
