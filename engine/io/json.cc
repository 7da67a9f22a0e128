#include "engine/io/json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/io/quote.h"
#include "kernels/api/give_way.h"

namespace polyad {

namespace {

constexpr int64_t kMaxOrderedMembers = 4096;

// Builds the tree from the parser's events, so that limits and duplicates are seen before memory is
// spent on them.
template <typename JsonType>
class TreeBuilder {
 public:
  using number_integer_t = typename JsonType::number_integer_t;
  using number_unsigned_t = typename JsonType::number_unsigned_t;
  using number_float_t = typename JsonType::number_float_t;
  using string_t = typename JsonType::string_t;
  using binary_t = typename JsonType::binary_t;

  TreeBuilder(const std::string& where, const JsonLimits& limits)
      : where_(where), limits_(limits) {}

  bool null() { return Add(JsonType(nullptr)) != nullptr; }
  bool boolean(bool value) { return Add(JsonType(value)) != nullptr; }
  bool number_integer(number_integer_t value) { return Add(JsonType(value)) != nullptr; }
  bool number_unsigned(number_unsigned_t value) { return Add(JsonType(value)) != nullptr; }
  bool number_float(number_float_t value, const string_t&) {
    return Add(JsonType(value)) != nullptr;
  }
  bool string(string_t& value) { return Add(JsonType(std::move(value))) != nullptr; }
  bool binary(binary_t&) { return Fail(InvalidArgument("%s: binary value", where_)); }
  bool start_object(size_t) { return Open(JsonType::object()); }
  bool start_array(size_t) { return Open(JsonType::array()); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }

  bool key(string_t& name) {
    const JsonType& object = *stack_.back();
    if (static_cast<int64_t>(object.size()) >= limits_.max_members) {
      return Fail(
          ResourceExhausted("%s: an object has more than %d members", where_, limits_.max_members));
    }
    if (object.contains(name)) {
      return Fail(InvalidArgument("%s: duplicate key %s", where_, Quote(name)));
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string& token, const nlohmann::detail::exception&) {
    return Fail(
        InvalidArgument("%s: not valid JSON at byte %d, near %s", where_, position, Quote(token)));
  }

  StatusOr<JsonType> Finish(bool parsed) {
    if (!status_.ok()) return status_;
    if (!parsed) return InvalidArgument("%s: not valid JSON", where_);
    return std::move(root_);
  }

 private:
  bool Fail(Status status) {
    status_ = std::move(status);
    return false;
  }

  JsonType* Add(JsonType value) {
    if (++num_values_ > limits_.max_values) {
      Fail(ResourceExhausted("%s: more than %d values", where_, limits_.max_values));
      return nullptr;
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    JsonType& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    JsonType& member = parent[key_];
    member = std::move(value);
    return &member;
  }

  bool Open(JsonType container) {
    if (limits_.gives_way) GiveWay();
    if (static_cast<int64_t>(stack_.size()) >= limits_.max_depth) {
      return Fail(InvalidArgument("%s: nested deeper than %d", where_, limits_.max_depth));
    }
    JsonType* added = Add(std::move(container));
    if (added == nullptr) return false;
    stack_.push_back(added);
    return true;
  }

  bool Close() {
    stack_.pop_back();
    return true;
  }

  const std::string& where_;
  const JsonLimits limits_;
  Status status_;
  JsonType root_;
  std::vector<JsonType*>
      stack_;  // open containers; each is the last child of the one before, so pointers hold
  std::string key_;
  int64_t num_values_ = 0;
};

template <typename JsonType>
StatusOr<JsonType> Parse(std::string_view text, const std::string& where,
                         const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    return ResourceExhausted("%s: expected at most %d bytes, got %d", where, limits.max_bytes,
                             text.size());
  }
  if (text.starts_with("\xef\xbb\xbf")) {
    return InvalidArgument("%s: starts with a UTF-8 byte order mark", where);
  }
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) {
    return InvalidArgument("%s: is UTF-16, expected UTF-8", where);
  }
  if (text.empty()) return InvalidArgument("%s: is empty", where);
  // The parser takes a NUL for the end of its input and would not look behind it.
  if (text.find('\0') != std::string_view::npos) {
    return InvalidArgument("%s: not valid JSON: holds a NUL byte", where);
  }
  TreeBuilder<JsonType> builder(where, limits);
  const bool parsed = JsonType::sax_parse(text.begin(), text.end(), &builder);
  return builder.Finish(parsed);
}

}  // namespace

StatusOr<Json> ParseJson(std::string_view text, const std::string& where,
                         const JsonLimits& limits) {
  return Parse<Json>(text, where, limits);
}

StatusOr<OrderedJson> ParseOrderedJson(std::string_view text, const std::string& where,
                                       const JsonLimits& limits) {
  JsonLimits ordered = limits;
  ordered.max_members = std::min(limits.max_members, kMaxOrderedMembers);
  return Parse<OrderedJson>(text, where, ordered);
}

template <typename JsonType>
std::string DescribeJson(const JsonType& value) {
  switch (value.type()) {
    case JsonType::value_t::null:
      return "null";
    case JsonType::value_t::object:
      return "an object";
    case JsonType::value_t::array:
      return "an array";
    case JsonType::value_t::string:
      return "the string " + Quote(value.template get_ref<const std::string&>());
    case JsonType::value_t::boolean:
      return value.template get<bool>() ? "true" : "false";
    case JsonType::value_t::number_integer:
    case JsonType::value_t::number_unsigned:
    case JsonType::value_t::number_float:
      return value.dump();
    case JsonType::value_t::binary:
    case JsonType::value_t::discarded:
      break;
  }
  return "nothing";
}

template <typename JsonType>
StatusOr<BasicJsonFields<JsonType>> BasicJsonFields<JsonType>::Of(const JsonType& object,
                                                                  std::string where) {
  if (!object.is_object()) {
    return InvalidArgument("%s: expected an object, got %s", where, DescribeJson(object));
  }
  return BasicJsonFields(&object, std::move(where));
}

template <typename JsonType>
const JsonType* BasicJsonFields<JsonType>::Find(const std::string& key) const {
  const auto it = object_->find(key);
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

template <typename JsonType>
Status BasicJsonFields<JsonType>::WrongType(const std::string& key,
                                            const std::string& expected) const {
  const JsonType* value = Find(key);
  return InvalidArgument("%s: key '%s': expected %s, got %s", where_, key, expected,
                         value == nullptr ? "nothing" : DescribeJson(*value));
}

template <typename JsonType>
StatusOr<int64_t> BasicJsonFields<JsonType>::Int(const std::string& key, int64_t min,
                                                 int64_t max) const {
  const JsonType* value = Find(key);
  std::optional<int64_t> number;
  if (value != nullptr && value->is_number_unsigned()) {
    const auto raw = value->template get<uint64_t>();
    if (raw <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      number = static_cast<int64_t>(raw);
    }
  } else if (value != nullptr && value->is_number_integer()) {
    number = value->template get<int64_t>();
  }
  if (!number.has_value() || *number < min || *number > max) {
    return WrongType(key, absl::StrFormat("an integer in [%d, %d]", min, max));
  }
  return *number;
}

template <typename JsonType>
StatusOr<int64_t> BasicJsonFields<JsonType>::IntOr(const std::string& key, int64_t absent,
                                                   int64_t min, int64_t max) const {
  if (!Has(key)) return absent;
  return Int(key, min, max);
}

template <typename JsonType>
StatusOr<double> BasicJsonFields<JsonType>::Number(const std::string& key, double min,
                                                   double max) const {
  const JsonType* value = Find(key);
  const double number = value != nullptr && value->is_number()
                            ? value->template get<double>()
                            : std::numeric_limits<double>::quiet_NaN();
  if (!(number >= min && number <= max)) {
    return WrongType(key, absl::StrFormat("a number in [%g, %g]", min, max));
  }
  return number;
}

template <typename JsonType>
StatusOr<double> BasicJsonFields<JsonType>::NumberOr(const std::string& key, double absent,
                                                     double min, double max) const {
  if (!Has(key)) return absent;
  return Number(key, min, max);
}

template <typename JsonType>
StatusOr<bool> BasicJsonFields<JsonType>::BoolOr(const std::string& key, bool absent) const {
  const JsonType* value = Find(key);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) return WrongType(key, "true or false");
  return value->template get<bool>();
}

template <typename JsonType>
StatusOr<std::string> BasicJsonFields<JsonType>::String(const std::string& key) const {
  const JsonType* value = Find(key);
  if (value == nullptr || !value->is_string()) return WrongType(key, "a string");
  return value->template get_ref<const std::string&>();
}

template <typename JsonType>
StatusOr<std::string> BasicJsonFields<JsonType>::StringOr(const std::string& key,
                                                          const std::string& absent) const {
  if (!Has(key)) return absent;
  return String(key);
}

template <typename JsonType>
StatusOr<std::vector<std::string>> BasicJsonFields<JsonType>::StringsOr(
    const std::string& key, std::vector<std::string> absent) const {
  const JsonType* value = Find(key);
  if (value == nullptr) return absent;
  if (!value->is_array()) return WrongType(key, "an array of strings");
  std::vector<std::string> strings;
  for (const JsonType& element : *value) {
    if (!element.is_string()) return WrongType(key, "an array of strings only");
    strings.push_back(element.template get_ref<const std::string&>());
  }
  return strings;
}

template <typename JsonType>
StatusOr<std::optional<BasicJsonFields<JsonType>>> BasicJsonFields<JsonType>::Object(
    const std::string& key) const {
  const JsonType* value = Find(key);
  if (value == nullptr) return std::optional<BasicJsonFields>();
  if (!value->is_object()) return WrongType(key, "an object");
  return std::optional<BasicJsonFields>(BasicJsonFields(value, where_ + ": " + key));
}

template std::string DescribeJson<Json>(const Json& value);
template std::string DescribeJson<OrderedJson>(const OrderedJson& value);
template class BasicJsonFields<Json>;
template class BasicJsonFields<OrderedJson>;

}  // namespace polyad
