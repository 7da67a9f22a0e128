#include "engine/constraint/regex.h"

#include <optional>
#include <string>
#include <vector>

#include "engine/io/quote.h"
#include "engine/text/utf8.h"

namespace polyad {
namespace {

struct Tree {
  enum class Kind { kEmpty, kSet, kSequence, kAlternatives, kRepeat };
  Kind kind = Kind::kEmpty;
  CharSet set = {};
  std::vector<Tree> children = {};
  int64_t min = 0;
  int64_t max = 0;  // -1: without end
};

struct Branch {  // a top-level alternative
  Tree tree;
  bool from_begin = false;
  bool to_end = false;
};

class Parser {
 public:
  explicit Parser(std::string_view pattern) : rest_(pattern), size_(pattern.size()) {}

  StatusOr<std::vector<Branch>> Parse() {
    std::vector<Branch> branches;
    do {
      Branch branch;
      while (Take('^')) branch.from_begin = true;
      POLYAD_ASSIGN_OR_RETURN(branch.tree, Sequence(0));
      while (Take('$')) branch.to_end = true;
      if (!rest_.empty() && rest_[0] != '|') {
        return Refuse(rest_[0] == ')' ? "a group that was opened"
                                      : "nothing behind $ in its alternative");
      }
      branches.push_back(std::move(branch));
    } while (Take('|'));
    return branches;
  }

 private:
  Status Refuse(const std::string& expected) const {
    return InvalidArgument("at byte %d: expected %s, got %s", size_ - rest_.size(), expected,
                           rest_.empty() ? "the end" : Quote(rest_.substr(0, 8)));
  }
  bool Take(char c) {
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool Take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }

  StatusOr<Tree> Alternatives(int depth) {
    Tree tree{.kind = Tree::Kind::kAlternatives};
    do {
      POLYAD_ASSIGN_OR_RETURN(Tree sequence, Sequence(depth));
      tree.children.push_back(std::move(sequence));
    } while (Take('|'));
    return tree;
  }

  StatusOr<Tree> Sequence(int depth) {
    Tree tree{.kind = Tree::Kind::kSequence};
    while (!rest_.empty() && rest_[0] != '|' && rest_[0] != ')' && rest_[0] != '$') {
      POLYAD_ASSIGN_OR_RETURN(Tree atom, Atom(depth));
      POLYAD_RETURN_IF_ERROR(Quantify(atom));
      tree.children.push_back(std::move(atom));
    }
    return tree;
  }

  Status Quantify(Tree& atom) {
    int64_t min = 0;
    int64_t max = -1;
    if (Take('+')) {
      min = 1;
    } else if (Take('?')) {
      max = 1;
    } else if (!Take('*')) {
      const std::string_view before = rest_;
      POLYAD_ASSIGN_OR_RETURN(const bool is_counted, Counts(min, max));
      if (!is_counted) {
        rest_ = before;
        return absl::OkStatus();
      }
    }
    if (rest_.starts_with('+')) return Refuse("no possessive quantifier");
    Take('?');  // lazy: the same texts
    if (!rest_.empty() && (rest_[0] == '*' || rest_[0] == '+' || rest_[0] == '?')) {
      return Refuse("one quantifier");
    }
    Tree repeat{.kind = Tree::Kind::kRepeat, .min = min, .max = max};
    repeat.children.push_back(std::move(atom));
    atom = std::move(repeat);
    return absl::OkStatus();
  }

  // {m}, {m,}, {,n} or {m,n}; anything else in braces is text, as in Python.
  StatusOr<bool> Counts(int64_t& min, int64_t& max) {
    if (!Take('{')) return false;
    const std::optional<int64_t> low = Number();
    const bool has_comma = Take(',');
    const std::optional<int64_t> high = has_comma ? Number() : low;
    if (!Take('}') || (!low.has_value() && !high.has_value())) return false;
    min = low.value_or(0);
    max = high.value_or(-1);
    if (min > kMaxRegexRepeat || max > kMaxRegexRepeat || (max >= 0 && max < min)) {
      return Refuse("counts in order of at most " + std::to_string(kMaxRegexRepeat));
    }
    return true;
  }
  std::optional<int64_t> Number() {
    size_t digits = 0;
    int64_t value = 0;
    for (; digits < rest_.size() && rest_[digits] >= '0' && rest_[digits] <= '9'; ++digits) {
      value = std::min<int64_t>(value * 10 + (rest_[digits] - '0'), kMaxRegexRepeat + 1);
    }
    if (digits == 0) return std::nullopt;
    rest_.remove_prefix(digits);
    return value;
  }

  static Tree OfSet(CharSet set) { return {.kind = Tree::Kind::kSet, .set = std::move(set)}; }

  StatusOr<Tree> Atom(int depth) {
    const char c = rest_[0];
    if (c == '(') return Group(depth);
    if (c == '[') {
      POLYAD_ASSIGN_OR_RETURN(CharSet set, Class());
      return OfSet(std::move(set));
    }
    if (c == '\\') {
      POLYAD_ASSIGN_OR_RETURN(CharSet set, Escape());
      return OfSet(std::move(set));
    }
    if (c == '*' || c == '+' || c == '?') return Refuse("something before a quantifier");
    if (c == '^') return Refuse("^ only at the beginning of a top-level alternative");
    if (c == '.') {
      rest_.remove_prefix(1);
      return OfSet(CharSet{{'\n', '\n'}}.Complement());
    }
    POLYAD_ASSIGN_OR_RETURN(const char32_t value, Character());
    return OfSet({{value, value}});
  }

  StatusOr<char32_t> Character() {
    const Utf8Step step = StepUtf8(rest_);
    if (!step.valid) return Refuse("UTF-8");
    rest_.remove_prefix(static_cast<size_t>(step.length));
    return step.value;
  }

  StatusOr<Tree> Group(int depth) {
    if (depth >= kMaxRegexDepth) {
      return Refuse("groups nested at most " + std::to_string(kMaxRegexDepth) + " deep");
    }
    Take('(');
    if (Take('?')) {
      if (Take("P<") || (rest_.starts_with('<') && !rest_.starts_with("<=") &&
                         !rest_.starts_with("<!") && Take('<'))) {
        const size_t end = rest_.find('>');
        if (end == rest_.npos) return Refuse("a group's name and >");
        rest_.remove_prefix(end + 1);
      } else if (!Take(':')) {
        return Refuse("a plain, named or (?: group (no look-around, flags or references)");
      }
    }
    POLYAD_ASSIGN_OR_RETURN(Tree tree, Alternatives(depth + 1));
    if (rest_.starts_with('$')) return Refuse("$ only at the end of a top-level alternative");
    if (!Take(')')) return Refuse(")");
    return tree;
  }

  // [...]: ranges, escapes and single characters.
  StatusOr<CharSet> Class() {
    Take('[');
    const bool is_negated = Take('^');
    CharSet set;
    bool first = true;
    while (first || !Take(']')) {
      first = false;
      if (rest_.empty()) return Refuse("]");
      if (rest_.starts_with("[:")) return Refuse("no POSIX class");
      POLYAD_ASSIGN_OR_RETURN(const CharSet low, ClassItem());
      if (rest_.size() < 2 || rest_[0] != '-' || rest_[1] == ']') {
        set.Add(low);
        continue;
      }
      Take('-');
      POLYAD_ASSIGN_OR_RETURN(const CharSet high, ClassItem());
      const auto single = [](const CharSet& of) {
        return of.ranges().size() == 1 && of.ranges()[0].first == of.ranges()[0].second;
      };
      if (!single(low) || !single(high) || low.ranges()[0].first > high.ranges()[0].first) {
        return Refuse("a range of two characters in order");
      }
      set.Add(low.ranges()[0].first, high.ranges()[0].first);
    }
    return is_negated ? set.Complement() : set;
  }
  StatusOr<CharSet> ClassItem() {
    if (rest_.starts_with('\\')) {
      if (Take("\\b")) return CharSet{{'\b', '\b'}};
      return Escape();
    }
    POLYAD_ASSIGN_OR_RETURN(const char32_t value, Character());
    return CharSet{{value, value}};
  }

  StatusOr<CharSet> Escape() {
    Take('\\');
    if (rest_.empty()) return Refuse("a character behind \\");
    const char c = rest_[0];
    const auto one = [&](char32_t value) {
      rest_.remove_prefix(1);
      return CharSet{{value, value}};
    };
    const auto many = [&](CharSet set) {
      rest_.remove_prefix(1);
      return set;
    };
    switch (c) {
      case 'd':
        return many(DigitChars());
      case 'D':
        return many(DigitChars().Complement());
      case 'w':
        return many(WordChars());
      case 'W':
        return many(WordChars().Complement());
      case 's':
        return many(SpaceChars());
      case 'S':
        return many(SpaceChars().Complement());
      case 't':
        return one('\t');
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'x':
      case 'u':
        return HexEscape();
      default:
        break;
    }
    const bool is_word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (is_word) return Refuse("an escape of a regular language (no \\b, \\p or references)");
    POLYAD_ASSIGN_OR_RETURN(const char32_t value, Character());
    return CharSet{{value, value}};
  }

  StatusOr<CharSet> HexEscape() {
    const bool is_long = Take('u');
    if (!is_long) Take('x');
    const bool braced = Take('{');
    const size_t most = braced ? 6 : is_long ? 4 : 2;
    char32_t value = 0;
    size_t digits = 0;
    for (; digits < most && !rest_.empty(); ++digits) {
      const int digit = HexDigit(rest_[0]);
      if (digit < 0) break;
      value = value * 16 + static_cast<char32_t>(digit);
      rest_.remove_prefix(1);
    }
    const bool is_scalar = value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF);
    if (digits == 0 || (!braced && digits != most) || (braced && !Take('}')) || !is_scalar) {
      return Refuse("hexadecimal digits of a character");
    }
    return CharSet{{value, value}};
  }
  static int HexDigit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  }

  std::string_view rest_;
  const size_t size_;
};

// Thompson's construction. A graph that grew past the limit stops growing; ParseRegex refuses it.
class Emitter {
 public:
  CharGraph graph;

  bool full() const { return static_cast<int64_t>(graph.nodes.size()) > kMaxGrammarNodes; }
  int32_t Emit(int32_t from, const Tree& tree) {
    if (full()) return from;
    switch (tree.kind) {
      case Tree::Kind::kEmpty:
        return from;
      case Tree::Kind::kSet:
        return OneOf(from, tree.set);
      case Tree::Kind::kSequence:
        for (const Tree& child : tree.children) from = Emit(from, child);
        return from;
      case Tree::Kind::kAlternatives: {
        const int32_t end = graph.AddNode();
        for (const Tree& child : tree.children) graph.AddEdge(Emit(from, child), -1, end);
        return end;
      }
      case Tree::Kind::kRepeat:
        return Repeat(from, tree);
    }
    return from;
  }
  int32_t OneOf(int32_t from, const CharSet& set) {
    const int32_t to = graph.AddNode();
    if (set.empty()) return to;  // nothing leads there
    graph.AddEdge(from, SetIndex(set), to);
    return to;
  }
  // Any text.
  int32_t Anything(int32_t from) {
    const int32_t loop = graph.AddNode();
    graph.AddEdge(from, -1, loop);
    graph.AddEdge(loop, SetIndex(CharSet::All()), loop);
    return loop;
  }

 private:
  int32_t SetIndex(const CharSet& set) {
    const auto [entry, inserted] =
        indices_.try_emplace(set, static_cast<int32_t>(graph.sets.size()));
    if (inserted) graph.sets.push_back(set);
    return entry->second;
  }
  int32_t Repeat(int32_t from, const Tree& tree) {
    const Tree& child = tree.children[0];
    int32_t at = from;
    for (int64_t i = 0; i < tree.min && !full(); ++i) {
      const int32_t next = Emit(at, child);
      if (next == at) break;  // an empty child: more of it is nothing
      at = next;
    }
    const int32_t end = graph.AddNode();
    graph.AddEdge(at, -1, end);
    if (tree.max < 0) {
      graph.AddEdge(Emit(end, child), -1, end);
      return end;
    }
    for (int64_t i = tree.min; i < tree.max && !full(); ++i) {
      const int32_t next = Emit(at, child);
      if (next == at) break;
      at = next;
      graph.AddEdge(at, -1, end);
    }
    return end;
  }

  std::map<CharSet, int32_t> indices_;
};

}  // namespace

CharSet DigitChars() { return {{'0', '9'}}; }
CharSet WordChars() { return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}; }
CharSet SpaceChars() { return {{'\t', '\r'}, {' ', ' '}}; }

StatusOr<CharGraph> ParseRegex(std::string_view pattern, RegexUse use) {
  POLYAD_ASSIGN_OR_RETURN(const std::vector<Branch> branches, Parser(pattern).Parse());
  Emitter emitter;
  emitter.graph.start = emitter.graph.AddNode();
  emitter.graph.accept = emitter.graph.AddNode();
  const bool is_search = use == RegexUse::kSearch;
  for (const Branch& branch : branches) {
    int32_t at = emitter.graph.start;
    if (is_search && !branch.from_begin) at = emitter.Anything(at);
    at = emitter.Emit(at, branch.tree);
    if (is_search && !branch.to_end) at = emitter.Anything(at);
    emitter.graph.AddEdge(at, -1, emitter.graph.accept);
  }
  if (emitter.full()) {
    return InvalidArgument("expected an expression of at most %d states, got more",
                           kMaxGrammarNodes);
  }
  return std::move(emitter.graph);
}

}  // namespace polyad
