#include "engine/constraint/constraint_cache.h"

#include <utility>

namespace polyad {
namespace {

// The kind, then every text with its length before it: no two specs share one.
std::string KeyOf(const ConstraintSpec& spec) {
  std::string key = std::to_string(static_cast<int>(spec.kind)) + ":" +
                    std::to_string(spec.text.size()) + ":" + spec.text;
  for (const std::string& option : spec.options) {
    key += std::to_string(option.size()) + ":" + option;
  }
  for (const ToolForm& tool : spec.tools) {
    key += tool.name + ":" + std::to_string(tool.parameters.size()) + ":" + tool.parameters;
  }
  if (spec.several) key += "several";
  return key;
}

}  // namespace

StatusOr<std::shared_ptr<Constraint>> ConstraintCache::Get(const ConstraintSpec& spec) {
  std::string key = KeyOf(spec);
  if (std::shared_ptr<Constraint> known = Find(key); known != nullptr) return known;
  POLYAD_ASSIGN_OR_RETURN(std::shared_ptr<Constraint> made, Constraint::Compile(spec, Trie()));
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) return found->second->constraint;  // another thread was faster
  entries_.push_front({key, made});
  by_key_.emplace(std::move(key), entries_.begin());
  if (entries_.size() > kMaxCachedConstraints) {
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  return made;
}

std::shared_ptr<Constraint> ConstraintCache::Find(const std::string& key) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->constraint;
}

std::shared_ptr<const TokenTrie> ConstraintCache::Trie() {
  std::call_once(trie_made_,
                 [this] { trie_ = std::make_shared<TokenTrie>(tokenizer_, vocab_size_); });
  return trie_;
}

}  // namespace polyad
