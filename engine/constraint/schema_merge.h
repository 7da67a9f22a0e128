#pragma once

// Two JSON schemas as one that means both (what allOf, and anyOf beside other keywords, need), and
// whether two can be shown to have no value in common (what oneOf needs). Neither follows $ref: the
// caller has resolved those at the top. Pure, any thread. Errors: INVALID_ARGUMENT with the keyword
// that cannot be merged.

#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

// Keywords that describe and do not constrain.
bool IsAnnotation(std::string_view keyword);

// Members that both have in different forms become {"allOf": [one, other]}, which the caller
// resolves when it comes to them.
StatusOr<OrderedJson> MergeSchemas(const OrderedJson& one, const OrderedJson& other);

// True only where no value satisfies both: other types, other constants, or objects told apart by a
// required property.
bool AreDisjoint(const OrderedJson& one, const OrderedJson& other);

// The names in `type`, a string or an array of strings; every type where it is absent. "number"
// stands for integers too. INVALID_ARGUMENT for anything else.
StatusOr<std::vector<std::string>> TypesOf(const OrderedJson& schema);
std::string TypeOfValue(const OrderedJson& value);

}  // namespace polyad
