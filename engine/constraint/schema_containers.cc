// Arrays and objects of a schema.

#include <algorithm>

#include "engine/constraint/schema_lowering.h"
#include "engine/text/utf8.h"

namespace polyad {

Status SchemaLowering::Array(const OrderedJson& schema, const std::string& at, NodeId start,
                             NodeId accept) {
  POLYAD_ASSIGN_OR_RETURN(const int64_t min, CountOf(schema, "minItems", 0));
  POLYAD_ASSIGN_OR_RETURN(int64_t max, CountOf(schema, "maxItems", -1));
  if (schema.contains("uniqueItems") && schema["uniqueItems"] != false) {
    return InvalidArgument("keyword 'uniqueItems': expected false, got %s",
                           DescribeJson(schema["uniqueItems"]));
  }
  std::vector<RuleId> prefix;
  if (const auto items = schema.find("prefixItems"); items != schema.end()) {
    if (!items->is_array()) return WrongKeywordType("prefixItems", "schemas", *items);
    for (size_t i = 0; i < items->size(); ++i) {
      POLYAD_ASSIGN_OR_RETURN(const RuleId rule,
                              RuleOf((*items)[i], at + "/prefixItems/" + std::to_string(i)));
      prefix.push_back(rule);
    }
  }
  const auto num_prefix = static_cast<int64_t>(prefix.size());
  RuleId rest = values_.AnyValue();
  const auto items = schema.find("items");
  if (items != schema.end() && *items != true && *items != false) {
    if (items->is_array())
      return WrongKeywordType("items", "a schema (prefixItems takes several)", *items);
    POLYAD_ASSIGN_OR_RETURN(rest, RuleOf(*items, at + "/items"));
  }
  // Undeclared items only where they must be.
  const bool stops = num_prefix > 0 && items == schema.end() && min <= num_prefix;
  if (stops || (items != schema.end() && *items == false)) {
    max = max < 0 ? num_prefix : std::min(max, num_prefix);
  }
  const NodeId open = values_.Open(start, '[');
  if (min == 0) builder_.Bytes(open, ']', ']', accept);
  const NodeId close = builder_.AddNode();
  builder_.Empty(values_.Close(close, ']'), accept);
  const auto item = [&](NodeId from, int64_t index) {
    const NodeId begin = index == 0 ? from : values_.Mark(from, ',');
    return builder_.CallRule(begin, index < num_prefix ? prefix[static_cast<size_t>(index)] : rest);
  };
  const int64_t listed = std::max<int64_t>({num_prefix, min, 1});
  NodeId last = open;
  int64_t index = 0;
  for (; index < listed && (max < 0 || index < max) && !builder_.full(); ++index) {
    last = item(last, index);
    if (index + 1 >= min) builder_.Empty(last, close);
  }
  if (max >= 0 && (index >= max || max == 0)) return absl::OkStatus();
  const NodeId end = builder_.Repeat(last, 0, max < 0 ? -1 : max - index,
                                     [&](NodeId from) { return item(from, index); });
  builder_.Empty(end, close);
  return absl::OkStatus();
}

StatusOr<std::vector<SchemaLowering::Member>> SchemaLowering::MembersOf(const OrderedJson& schema,
                                                                        const std::string& at) {
  std::vector<Member> members;
  if (const auto properties = schema.find("properties"); properties != schema.end()) {
    if (!properties->is_object()) return WrongKeywordType("properties", "an object", *properties);
    for (const auto& [name, value] : properties->items()) {
      POLYAD_ASSIGN_OR_RETURN(const RuleId rule, RuleOf(value, at + "/properties/" + name));
      members.push_back({name, rule, false});
    }
  }
  const auto required = schema.find("required");
  if (required == schema.end()) return members;
  if (!required->is_array()) return WrongKeywordType("required", "an array of strings", *required);
  std::map<std::string, size_t, std::less<>> known;
  for (size_t i = 0; i < members.size(); ++i) known.emplace(members[i].name, i);
  for (const OrderedJson& item : *required) {
    if (!item.is_string()) return WrongKeywordType("required", "an array of strings", *required);
    const auto& name = item.get_ref<const std::string&>();
    const auto [entry, inserted] = known.try_emplace(name, members.size());
    if (inserted) {  // declared nowhere: additionalProperties speaks of it
      POLYAD_ASSIGN_OR_RETURN(const RuleId rule, AdditionalRule(schema, at));
      members.push_back({name, rule, true});
    }
    members[entry->second].is_required = true;
  }
  return members;
}

StatusOr<RuleId> SchemaLowering::AdditionalRule(const OrderedJson& schema, const std::string& at) {
  const auto additional = schema.find("additionalProperties");
  if (additional == schema.end() || *additional == true) return values_.AnyValue();
  return RuleOf(*additional, at + "/additionalProperties");
}

Status SchemaLowering::Object(const OrderedJson& schema, const std::string& at, NodeId start,
                              NodeId accept) {
  POLYAD_ASSIGN_OR_RETURN(const std::vector<Member> members, MembersOf(schema, at));
  POLYAD_ASSIGN_OR_RETURN(const RuleId additional, AdditionalRule(schema, at));
  const auto more = schema.find("additionalProperties");
  const auto declared = schema.find("properties");
  const bool declares_any = declared != schema.end() && !declared->empty();
  const bool takes_more = more == schema.end() ? !declares_any : *more != false;
  POLYAD_ASSIGN_OR_RETURN(const int64_t min, CountOf(schema, "minProperties", 0));
  POLYAD_ASSIGN_OR_RETURN(const int64_t max, CountOf(schema, "maxProperties", -1));
  const auto num_required =
      std::count_if(members.begin(), members.end(), [](const Member& m) { return m.is_required; });
  const NodeId open = values_.Open(start, '{');
  if (members.empty() && takes_more) return Map(open, additional, min, max, accept);
  if (min > num_required) {
    return InvalidArgument("keyword 'minProperties': expected at most the %d required ones, got %d",
                           num_required, min);
  }
  if (max >= 0 && (takes_more || max < static_cast<int64_t>(members.size()))) {
    return InvalidArgument("keyword 'maxProperties': expected none, or all %d declared ones",
                           members.size());
  }
  // `none`: no member so far; `some`: at least one, and a comma comes before the next.
  NodeId none = open;
  NodeId some = builder_.AddNode();
  for (const Member& member : members) {
    const NodeId key = builder_.AddNode();
    builder_.Empty(none, key);
    builder_.Empty(values_.Mark(some, ','), key);
    const NodeId colon = values_.Mark(builder_.Literal(key, DumpJson(member.name)), ':');
    const NodeId taken = builder_.CallRule(colon, member.rule);
    const NodeId next_none = builder_.AddNode();
    if (!member.is_required) {
      builder_.Empty(none, next_none);
      builder_.Empty(some, taken);
    }
    none = next_none;
    some = taken;
  }
  if (takes_more) MoreMembers(members, additional, none, some);
  builder_.Bytes(none, '}', '}', accept);
  builder_.Empty(values_.Close(some, '}'), accept);
  return absl::OkStatus();
}

// An object of any keys with values of one schema. Keys may come twice, so only the first member
// surely counts.
Status SchemaLowering::Map(NodeId open, RuleId value, int64_t min, int64_t max, NodeId accept) {
  if (min > 1) {
    return InvalidArgument(
        "keyword 'minProperties': expected at most 1 where keys are free, "
        "got %d",
        min);
  }
  if (min == 0) builder_.Bytes(open, '}', '}', accept);
  if (max == 0) return absl::OkStatus();
  const auto member = [&](NodeId from) {
    return builder_.CallRule(values_.Mark(builder_.CallRule(from, values_.AnyString()), ':'),
                             value);
  };
  const NodeId end = builder_.Repeat(member(open), 0, max < 0 ? -1 : max - 1,
                                     [&](NodeId from) { return member(values_.Mark(from, ',')); });
  builder_.Empty(values_.Close(end, '}'), accept);
  return absl::OkStatus();
}

// Members beyond the declared ones, whose keys are none of theirs.
void SchemaLowering::MoreMembers(const std::vector<Member>& members, RuleId value, NodeId none,
                                 NodeId some) {
  const RuleId other_key = OtherKey(members);
  const NodeId key = builder_.AddNode();
  builder_.Empty(none, key);
  builder_.Empty(values_.Mark(some, ','), key);
  const NodeId colon = values_.Mark(builder_.CallRule(key, other_key), ':');
  builder_.Empty(builder_.CallRule(colon, value), some);
}

// A key without escapes that is not one of the names: a trie of the names, left where the key
// differs.
RuleId SchemaLowering::OtherKey(const std::vector<Member>& members) {
  const RuleId rule = builder_.AddRule("another key");
  const NodeId accept = builder_.AcceptOf(rule);
  const CharSet special = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
  const NodeId differs = builder_.AddNode();
  values_.chars().Emit(differs, special.Complement(), CharForm::kUtf8, differs);
  builder_.Bytes(differs, '"', '"', accept);
  struct TrieNode {
    NodeId node = 0;
    bool is_name = false;
    std::map<char32_t, size_t> children;
  };
  std::vector<TrieNode> trie = {{builder_.Literal(builder_.StartOf(rule), "\""), false, {}}};
  for (const Member& member : members) {
    std::string_view rest = member.name;
    size_t at = 0;
    while (!rest.empty() && !builder_.full()) {
      const Utf8Step step = StepUtf8(rest);
      rest.remove_prefix(static_cast<size_t>(step.length));
      const auto [child, inserted] = trie[at].children.try_emplace(step.value, trie.size());
      const size_t next = child->second;
      if (inserted) trie.push_back({builder_.AddNode(), false, {}});
      at = next;
    }
    trie[at].is_name = true;
  }
  for (const TrieNode& node : trie) {
    CharSet elsewhere = special;
    for (const auto& [value, child] : node.children) {
      elsewhere.Add(value, value);
      if (!special.Contains(value)) {
        values_.chars().Emit(node.node, {{value, value}}, CharForm::kUtf8, trie[child].node);
      }
    }
    values_.chars().Emit(node.node, elsewhere.Complement(), CharForm::kUtf8, differs);
    if (!node.is_name) builder_.Bytes(node.node, '"', '"', accept);
  }
  return rule;
}

}  // namespace polyad
