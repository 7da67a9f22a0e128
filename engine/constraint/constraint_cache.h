#pragma once

// The constraints of recent requests, the least recently asked for forgotten first, so that a form
// that comes with every request is compiled once. Get compiles on the caller's thread; two threads
// that ask for one new form at once may both compile it. Owned by the engine, thread-safe. The trie
// of the vocabulary is made by the first Get.

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "engine/constraint/constraint.h"

namespace polyad {

inline constexpr size_t kMaxCachedConstraints = 64;

class ConstraintCache {
 public:
  // The tokenizer outlives the cache and its constraints.
  ConstraintCache(const Tokenizer& tokenizer, int64_t vocab_size)
      : tokenizer_(tokenizer), vocab_size_(vocab_size) {}

  StatusOr<std::shared_ptr<Constraint>> Get(const ConstraintSpec& spec);

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<Constraint> constraint;
  };
  std::shared_ptr<Constraint> Find(const std::string& key);
  std::shared_ptr<const TokenTrie> Trie();

  const Tokenizer& tokenizer_;
  const int64_t vocab_size_;
  std::once_flag trie_made_;
  std::shared_ptr<const TokenTrie> trie_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // most recent first
  std::map<std::string, std::list<Entry>::iterator, std::less<>> by_key_;
};

}  // namespace polyad
