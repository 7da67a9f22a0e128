#include "engine/constraint/tool_calls.h"

#include <string>

#include "engine/base/tool_markup.h"
#include "engine/constraint/json_schema.h"

namespace polyad {

StatusOr<RuleId> LowerToolCalls(const std::vector<ToolForm>& tools, bool several,
                                JsonValues& values) {
  const auto count = static_cast<int64_t>(tools.size());
  if (count < 1 || count > kMaxTools) {
    return InvalidArgument("expected 1 to %d tools, got %d", kMaxTools, count);
  }
  GrammarBuilder& builder = values.builder();
  const RuleId call = builder.AddRule("a call of a tool");
  for (const ToolForm& tool : tools) {
    const StatusOr<RuleId> arguments = LowerJsonSchema(tool.parameters, values);
    if (!arguments.ok()) return Annotate(arguments.status(), tool.name);
    const std::string head =
        std::string(kToolCallOpen) + "\n{\"name\": \"" + tool.name + "\", \"arguments\": ";
    const NodeId at = builder.CallRule(builder.Literal(builder.StartOf(call), head), *arguments);
    builder.Empty(builder.Literal(at, "}\n" + std::string(kToolCallClose)), builder.AcceptOf(call));
  }
  if (!several) return call;
  const RuleId calls = builder.AddRule("the calls");
  const NodeId first = builder.CallRule(builder.StartOf(calls), call);
  const NodeId end = builder.Repeat(first, 0, -1, [&](NodeId from) {
    return builder.CallRule(builder.Literal(from, "\n"), call);
  });
  builder.Empty(end, builder.AcceptOf(calls));
  return calls;
}

}  // namespace polyad
