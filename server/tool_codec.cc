#include "server/tool_codec.h"

#include <algorithm>
#include <set>
#include <utility>

#include "engine/io/json.h"
#include "server/field_error.h"

namespace polyad {
namespace {

constexpr char kNoArguments[] = R"({"type": "object", "additionalProperties": false})";
constexpr std::string_view kNameRule = "1 to 64 of A-Z, a-z, 0-9, _ and -";
constexpr JsonLimits kSchemaJson{
    .max_bytes = kMaxSchemaBytes, .max_depth = 40, .max_values = 1 << 16};

Status CheckToolName(std::string_view field, const std::string& name) {
  if (IsToolName(name)) return absl::OkStatus();
  return FieldError(field, kNameRule, name);
}

StatusOr<OrderedJson> ParseObject(std::string_view field, const std::string& text,
                                  const JsonLimits& limits) {
  const std::string where(field);
  const StatusOr<OrderedJson> json = ParseOrderedJson(text, where, limits);
  if (!json.ok()) return BlameField(field, json.status());
  if (!json->is_object()) return FieldError(field, "a JSON object", DescribeJson(*json));
  return json;
}

// The schema of a call's arguments: always an object's.
StatusOr<std::string> ArgumentsSchema(const ChatFunction& tool) {
  if (tool.parameters.empty()) return std::string(kNoArguments);
  POLYAD_ASSIGN_OR_RETURN(OrderedJson schema,
                          ParseObject("chat.tools.parameters", tool.parameters, kSchemaJson));
  if (!schema.contains("type")) schema["type"] = "object";
  if (schema["type"] != "object") {
    return FieldError("chat.tools.parameters", "a schema of type object", schema["type"].dump());
  }
  return schema.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

bool IsToolName(std::string_view name) {
  return !name.empty() && static_cast<int64_t>(name.size()) <= kMaxToolNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
         });
}

StatusOr<std::vector<ChatFunction>> DecodeTools(const v1::Chat& chat) {
  POLYAD_RETURN_IF_ERROR(CheckCount("chat.tools", static_cast<size_t>(chat.tools_size()),
                                    static_cast<size_t>(kMaxChatTools), "tools"));
  size_t schema_bytes = 0;
  for (const v1::Tool& tool : chat.tools()) schema_bytes += tool.parameters().size();
  POLYAD_RETURN_IF_ERROR(CheckCount("chat.tools.parameters", schema_bytes,
                                    static_cast<size_t>(kMaxSchemaBytes), "bytes in all"));
  std::vector<ChatFunction> tools;
  std::set<std::string> names;
  for (const v1::Tool& tool : chat.tools()) {
    POLYAD_RETURN_IF_ERROR(CheckToolName("chat.tools.name", tool.name()));
    if (!names.insert(tool.name()).second) {
      return FieldError("chat.tools.name", "another name for each", tool.name() + " twice");
    }
    if (!tool.parameters().empty()) {
      POLYAD_RETURN_IF_ERROR(
          ParseObject("chat.tools.parameters", tool.parameters(), kSchemaJson).status());
    }
    tools.push_back({tool.name(), tool.description(), tool.parameters()});
  }
  return tools;
}

Status DecodeToolParts(const v1::ChatMessage& message, ChatTurn& turn) {
  POLYAD_RETURN_IF_ERROR(CheckCount("chat.messages.tool_calls",
                                    static_cast<size_t>(message.tool_calls_size()),
                                    static_cast<size_t>(kMaxChatTools), "calls"));
  POLYAD_RETURN_IF_ERROR(CheckCount("chat.messages.tool_call_id", message.tool_call_id().size(),
                                    static_cast<size_t>(kMaxToolCallIdBytes), "bytes"));
  POLYAD_RETURN_IF_ERROR(CheckCount("chat.messages.name", message.name().size(),
                                    static_cast<size_t>(kMaxToolNameBytes), "bytes"));
  for (const v1::ToolCall& call : message.tool_calls()) {
    POLYAD_RETURN_IF_ERROR(CheckCount("chat.messages.tool_calls.id", call.id().size(),
                                      static_cast<size_t>(kMaxToolCallIdBytes), "bytes"));
    POLYAD_RETURN_IF_ERROR(CheckToolName("chat.messages.tool_calls.name", call.name()));
    if (!call.arguments().empty()) {
      const JsonLimits limits{.max_bytes = 4 << 20, .max_depth = 40, .max_values = 1 << 18};
      POLYAD_RETURN_IF_ERROR(
          ParseObject("chat.messages.tool_calls.arguments", call.arguments(), limits).status());
    }
    turn.tool_calls.push_back({call.id(), call.name(), call.arguments()});
  }
  turn.tool_call_id = message.tool_call_id();
  turn.name = message.name();
  return absl::OkStatus();
}

size_t ContentBytes(const v1::Chat& chat) {
  size_t bytes = 0;
  for (const v1::ChatMessage& message : chat.messages()) {
    bytes += message.content().size();
    for (const v1::ToolCall& call : message.tool_calls()) bytes += call.arguments().size();
  }
  for (const v1::Tool& tool : chat.tools()) bytes += tool.description().size();
  return bytes;
}

StatusOr<ConstraintSpec> DecodeToolConstraint(const v1::GenerateRequest& request) {
  const v1::ToolCalls& asked = request.constraint().tool_calls();
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ChatFunction> tools, DecodeTools(request.chat()));
  ConstraintSpec spec;
  spec.kind = ConstraintSpec::Kind::kToolCalls;
  spec.several = asked.several();
  for (const ChatFunction& tool : tools) {
    if (!asked.name().empty() && tool.name != asked.name()) continue;
    POLYAD_ASSIGN_OR_RETURN(std::string schema, ArgumentsSchema(tool));
    spec.tools.push_back({tool.name, std::move(schema)});
  }
  if (!spec.tools.empty()) return spec;
  if (asked.name().empty()) return FieldError("constraint.tool_calls", "tools in the chat", "none");
  return FieldError("constraint.tool_calls.name", "one of the chat's tools", asked.name());
}

}  // namespace polyad
