#pragma once

// The key/value part of a GGUF file with typed look-ups, whose messages say key, expected and got
// ("model.gguf: key 'llama.block_count': expected an integer in [1, 1024], got a string"). Integers
// of every width become int64, floats double; arrays are flat lists of one of those, of bool (as
// integers), or of strings. Plain values; thread-safe to read.

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "engine/base/status.h"

namespace polyad {

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// One value; a u64 past int64 is held as std::monostate, known to exist but unreadable.
using GgufValue = std::variant<std::monostate, int64_t, double, bool, std::string,
                               std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

class GgufMetadata {
 public:
  explicit GgufMetadata(std::string where = "") : where_(std::move(where)) {}

  // False where the key is there already.
  bool Insert(std::string key, GgufValue value) {
    return values_.emplace(std::move(key), std::move(value)).second;
  }
  const std::map<std::string, GgufValue>& values() const { return values_; }
  bool Has(const std::string& key) const { return values_.contains(key); }

  StatusOr<int64_t> Int(const std::string& key, int64_t min, int64_t max) const;
  StatusOr<int64_t> IntOr(const std::string& key, int64_t absent, int64_t min, int64_t max) const;
  StatusOr<double> Number(const std::string& key, double min, double max) const;
  StatusOr<double> NumberOr(const std::string& key, double absent, double min, double max) const;
  StatusOr<bool> BoolOr(const std::string& key, bool absent) const;
  StatusOr<std::string> String(const std::string& key) const;
  StatusOr<std::string> StringOr(const std::string& key, const std::string& absent) const;
  // Absent gives an empty list.
  StatusOr<std::vector<int64_t>> Ints(const std::string& key) const;
  StatusOr<std::vector<double>> Numbers(const std::string& key) const;
  StatusOr<std::vector<std::string>> Strings(const std::string& key) const;
  // INVALID_ARGUMENT "<file>: key '<key>': expected <expected>, got <description>".
  Status WrongType(const std::string& key, const std::string& expected) const;

 private:
  template <typename Value>
  const Value* FindAs(const std::string& key) const;
  template <typename Value>
  StatusOr<Value> ListOrEmpty(const std::string& key, const std::string& expected) const;

  std::string where_;
  std::map<std::string, GgufValue> values_;
};

}  // namespace polyad
