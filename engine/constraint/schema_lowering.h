#pragma once

// How json_schema.h does it: one rule for each schema, emitted from a queue, so that schemas may
// refer to themselves and to one another; $ref, allOf and anyOf beside other keywords are resolved
// by merging (schema_merge.h) into schemas that are kept here. Three sources: what combines schemas
// (json_schema.cc), constants and simple types (schema_values.cc), arrays and objects
// (schema_containers.cc). Made for one schema, one thread.

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "engine/constraint/json_numbers.h"
#include "engine/constraint/json_strings.h"
#include "engine/constraint/json_values.h"
#include "engine/io/json.h"

namespace polyad {

class SchemaLowering {
 public:
  // Both outlive it.
  SchemaLowering(const OrderedJson& root, JsonValues& values)
      : root_(root), values_(values), builder_(values.builder()) {}

  StatusOr<RuleId> Lower();

 private:
  struct Pending {  // a schema and the rule that is to take its values
    const OrderedJson* schema = nullptr;
    std::string at;  // its JSON pointer
    RuleId rule = 0;
  };
  struct Member {
    std::string name;
    RuleId rule = 0;
    bool is_required = false;
  };

  StatusOr<RuleId> RuleOf(const OrderedJson& schema, const std::string& at);
  StatusOr<const OrderedJson*> Keep(OrderedJson schema);
  Status Emit(const OrderedJson& schema, const std::string& at, NodeId start, NodeId accept);
  static Status CheckKeywords(const OrderedJson& schema);
  static size_t NumAssertions(const OrderedJson& schema);
  StatusOr<const OrderedJson*> Resolve(const OrderedJson& reference) const;
  static std::string Unescape(std::string_view token);
  StatusOr<OrderedJson> Flatten(const OrderedJson& schema, int depth);
  Status Branches(const OrderedJson& schema, const std::string& at, NodeId start, NodeId accept);
  Status CheckDisjoint(const OrderedJson& branches);
  Status Constants(const OrderedJson& schema, NodeId start, NodeId accept);
  static StatusOr<bool> Allows(const OrderedJson& schema, const OrderedJson& value);
  Status Types(const OrderedJson& schema, const std::string& at, NodeId start, NodeId accept);
  Status OneType(const OrderedJson& schema, const std::string& at, const std::string& type,
                 NodeId start, NodeId accept);
  static StatusOr<StringBounds> BoundsOfString(const OrderedJson& schema);
  static StatusOr<NumberBounds> BoundsOfNumber(const OrderedJson& schema, bool is_integer);
  Status Array(const OrderedJson& schema, const std::string& at, NodeId start, NodeId accept);
  StatusOr<std::vector<Member>> MembersOf(const OrderedJson& schema, const std::string& at);
  StatusOr<RuleId> AdditionalRule(const OrderedJson& schema, const std::string& at);
  Status Object(const OrderedJson& schema, const std::string& at, NodeId start, NodeId accept);
  Status Map(NodeId open, RuleId value, int64_t min, int64_t max, NodeId accept);
  void MoreMembers(const std::vector<Member>& members, RuleId value, NodeId none, NodeId some);
  RuleId OtherKey(const std::vector<Member>& members);

  const OrderedJson& root_;
  JsonValues& values_;
  GrammarBuilder& builder_;
  std::deque<Pending> pending_;
  std::map<const OrderedJson*, RuleId> rules_;
  std::deque<OrderedJson> merged_;  // addresses stay
  int num_merges_ = 0;
  size_t merged_bytes_ = 0;
};

// The type that a keyword speaks of ("" for those of every type); null for one that is not served.
const char* TypeOfKeyword(std::string_view keyword);

std::string DumpJson(const OrderedJson& value);
Status WrongKeywordType(const char* keyword, const char* expected, const OrderedJson& got);
// A count of things, or `absent`.
StatusOr<int64_t> CountOf(const OrderedJson& schema, const char* keyword, int64_t absent);

}  // namespace polyad
