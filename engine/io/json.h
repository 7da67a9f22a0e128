#pragma once

// JSON from the outside world: parsed within limits of size, depth and number of values, duplicate
// keys refused, a byte order mark refused by name. Nothing here throws: JsonFields reads members
// with their types and ranges checked, and its messages say file, key, expected and got
// ("config.json: key 'hidden_size': expected an integer in [1, 65536], got a string"). Two
// flavours: Json (members sorted, fast look-up) and OrderedJson (members in file order, which
// adapter configurations need). Thread-safe for concurrent reads.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

struct JsonLimits {
  int64_t max_bytes = int64_t{1} << 20;
  int64_t max_depth = 32;
  int64_t max_values = int64_t{1} << 20;   // scalars, arrays and objects together
  int64_t max_members = int64_t{1} << 20;  // of one object
  bool gives_way = false;  // at each object, for loader threads (kernels/api/give_way.h)
};

// `where` names the text in messages ("config.json").
StatusOr<Json> ParseJson(std::string_view text, const std::string& where, const JsonLimits& limits);
// Members are looked up linearly here, so an object may have at most 4096 of them.
StatusOr<OrderedJson> ParseOrderedJson(std::string_view text, const std::string& where,
                                       const JsonLimits& limits);

// "a string", "an object": how messages call what they found.
template <typename JsonType>
std::string DescribeJson(const JsonType& value);

// Typed access to one object's members. A member that is null counts as absent.
template <typename JsonType>
class BasicJsonFields {
 public:
  // Borrows `object`; refuses anything that is not an object.
  static StatusOr<BasicJsonFields> Of(const JsonType& object, std::string where);

  bool Has(const std::string& key) const { return Find(key) != nullptr; }
  const JsonType* Find(const std::string& key) const;  // null where absent or null
  const JsonType& object() const { return *object_; }
  const std::string& where() const { return where_; }

  StatusOr<int64_t> Int(const std::string& key, int64_t min, int64_t max) const;
  StatusOr<int64_t> IntOr(const std::string& key, int64_t absent, int64_t min, int64_t max) const;
  StatusOr<double> Number(const std::string& key, double min, double max) const;
  StatusOr<double> NumberOr(const std::string& key, double absent, double min, double max) const;
  StatusOr<bool> BoolOr(const std::string& key, bool absent) const;
  StatusOr<std::string> String(const std::string& key) const;
  StatusOr<std::string> StringOr(const std::string& key, const std::string& absent) const;
  StatusOr<std::vector<std::string>> StringsOr(const std::string& key,
                                               std::vector<std::string> absent) const;
  // A nested object; absent gives nullopt.
  StatusOr<std::optional<BasicJsonFields>> Object(const std::string& key) const;

  // INVALID_ARGUMENT "<where>: key '<key>': expected <expected>, got <description>".
  Status WrongType(const std::string& key, const std::string& expected) const;

 private:
  BasicJsonFields(const JsonType* object, std::string where)
      : object_(object), where_(std::move(where)) {}
  const JsonType* object_;
  std::string where_;
};

using JsonFields = BasicJsonFields<Json>;
using OrderedJsonFields = BasicJsonFields<OrderedJson>;
extern template class BasicJsonFields<Json>;
extern template class BasicJsonFields<OrderedJson>;

}  // namespace polyad
