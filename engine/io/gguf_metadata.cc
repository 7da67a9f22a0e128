#include "engine/io/gguf_metadata.h"

#include <limits>

#include "engine/io/quote.h"

namespace polyad {

namespace {

struct Describe {
  std::string operator()(std::monostate) const { return "an integer past 2^63"; }
  std::string operator()(int64_t value) const { return absl::StrCat(value); }
  std::string operator()(double value) const { return absl::StrCat(value); }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(const std::string& value) const { return "the string " + Quote(value); }
  template <typename Element>
  std::string operator()(const std::vector<Element>& value) const {
    return absl::StrCat("a list of ", value.size());
  }
};

}  // namespace

template <typename Value>
const Value* GgufMetadata::FindAs(const std::string& key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : std::get_if<Value>(&it->second);
}

template <typename Value>
StatusOr<Value> GgufMetadata::ListOrEmpty(const std::string& key,
                                          const std::string& expected) const {
  if (!Has(key)) return Value();
  const Value* list = FindAs<Value>(key);
  if (list == nullptr) return WrongType(key, expected);
  return *list;
}

Status GgufMetadata::WrongType(const std::string& key, const std::string& expected) const {
  const auto it = values_.find(key);
  return InvalidArgument("%s: key '%s': expected %s, got %s", where_, key, expected,
                         it == values_.end() ? "nothing" : std::visit(Describe(), it->second));
}

StatusOr<int64_t> GgufMetadata::Int(const std::string& key, int64_t min, int64_t max) const {
  const auto* value = FindAs<int64_t>(key);
  if (value == nullptr || *value < min || *value > max) {
    return WrongType(key, absl::StrFormat("an integer in [%d, %d]", min, max));
  }
  return *value;
}

StatusOr<int64_t> GgufMetadata::IntOr(const std::string& key, int64_t absent, int64_t min,
                                      int64_t max) const {
  if (!Has(key)) return absent;
  return Int(key, min, max);
}

StatusOr<double> GgufMetadata::Number(const std::string& key, double min, double max) const {
  double number = std::numeric_limits<double>::quiet_NaN();
  if (const auto* real = FindAs<double>(key)) number = *real;
  if (const auto* integer = FindAs<int64_t>(key)) number = static_cast<double>(*integer);
  if (!(number >= min && number <= max)) {
    return WrongType(key, absl::StrFormat("a number in [%g, %g]", min, max));
  }
  return number;
}

StatusOr<double> GgufMetadata::NumberOr(const std::string& key, double absent, double min,
                                        double max) const {
  if (!Has(key)) return absent;
  return Number(key, min, max);
}

StatusOr<bool> GgufMetadata::BoolOr(const std::string& key, bool absent) const {
  if (!Has(key)) return absent;
  const auto* value = FindAs<bool>(key);
  if (value == nullptr) return WrongType(key, "true or false");
  return *value;
}

StatusOr<std::string> GgufMetadata::String(const std::string& key) const {
  const auto* value = FindAs<std::string>(key);
  if (value == nullptr) return WrongType(key, "a string");
  return *value;
}

StatusOr<std::string> GgufMetadata::StringOr(const std::string& key,
                                             const std::string& absent) const {
  if (!Has(key)) return absent;
  return String(key);
}

StatusOr<std::vector<int64_t>> GgufMetadata::Ints(const std::string& key) const {
  return ListOrEmpty<std::vector<int64_t>>(key, "a list of integers");
}

StatusOr<std::vector<double>> GgufMetadata::Numbers(const std::string& key) const {
  return ListOrEmpty<std::vector<double>>(key, "a list of numbers");
}

StatusOr<std::vector<std::string>> GgufMetadata::Strings(const std::string& key) const {
  return ListOrEmpty<std::vector<std::string>>(key, "a list of strings");
}

}  // namespace polyad
