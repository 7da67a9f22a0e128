#include "engine/constraint/ebnf.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/constraint/regex.h"
#include "engine/io/quote.h"
#include "engine/text/utf8.h"

namespace polyad {
namespace {

bool IsNameChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}
bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

class EbnfReader {
 public:
  EbnfReader(std::string_view text, GrammarBuilder& builder, CharRules& chars)
      : text_(text), builder_(builder), chars_(chars) {}

  StatusOr<RuleId> Read() {
    SkipBlanks();
    while (at_ < text_.size() && !builder_.full()) {
      POLYAD_RETURN_IF_ERROR(Rule());
      SkipBlanks();
    }
    if (!is_lark_.has_value()) return Refuse("a rule");
    const std::string root = *is_lark_ ? "start" : "root";
    const auto found = rules_.find(root);
    if (found == rules_.end() || !found->second.is_defined) {
      return InvalidArgument("expected a rule named '%s', got none", root);
    }
    for (const auto& [name, rule] : rules_) {
      if (rule.is_defined) continue;
      return InvalidArgument("line %d: expected rules that are defined, got %s", rule.line,
                             Quote(name));
    }
    return found->second.id;
  }

 private:
  struct Known {
    RuleId id = 0;
    bool is_defined = false;
    int line = 0;  // first named there
  };

  int Line() const {
    return 1 + static_cast<int>(
                   std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(at_), '\n'));
  }
  Status Refuse(const std::string& expected) const {
    return InvalidArgument("line %d: expected %s, got %s", Line(), expected,
                           at_ < text_.size() ? Quote(text_.substr(at_, 8)) : "the end");
  }
  std::string_view rest() const { return text_.substr(at_); }
  bool Take(std::string_view word) {
    if (!rest().starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  void SkipBlanks() {
    while (at_ < text_.size()) {
      const bool is_comment = text_[at_] == '#' || rest().starts_with("//");
      if (is_comment) {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (IsBlank(text_[at_])) {
        ++at_;
      } else {
        return;
      }
    }
  }
  std::string_view Name() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsNameChar(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  // A rule begins here: a name and then ::= or : (with Lark's marks before and priority behind).
  bool AtRule() {
    const size_t before = at_;
    Take("?");
    Take("!");
    const bool has_name = !Name().empty();
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
    const bool is_rule =
        has_name &&
        (rest().starts_with(':') || rest().starts_with('.') || rest().starts_with('{')) &&
        !rest().starts_with("..");
    const bool is_template_or_count = rest().starts_with('{');
    at_ = before;
    return is_rule && !is_template_or_count;
  }

  Known& RuleNamed(std::string_view name) {
    const auto [entry, inserted] = rules_.try_emplace(std::string(name));
    if (inserted) entry->second = {builder_.AddRule(std::string(name)), false, Line()};
    return entry->second;
  }

  Status Rule() {
    if (rest().starts_with('%')) return Refuse("rules alone, no % directives");
    if (!AtRule()) return Refuse("a rule (name ::= or name:)");
    Take("?");
    Take("!");
    const std::string name(Name());
    SkipBlanks();
    if (rest().starts_with('.')) return Refuse("rules without priorities");
    const bool is_lark = !rest().starts_with("::=");
    if (is_lark_.value_or(is_lark) != is_lark) return Refuse("::= and : not in one grammar");
    is_lark_ = is_lark;
    Take(is_lark ? ":" : "::=");
    Known& rule = RuleNamed(name);
    if (rule.is_defined) return Refuse("one definition of '" + name + "'");
    rule.is_defined = true;
    const RuleId id = rule.id;
    POLYAD_ASSIGN_OR_RETURN(const NodeId end, Alternatives(builder_.StartOf(id), 0));
    builder_.Empty(end, builder_.AcceptOf(id));
    SkipBlanks();
    return at_ < text_.size() && !AtRule() && text_[at_] != '%' ? Refuse("the next rule")
                                                                : absl::OkStatus();
  }

  StatusOr<NodeId> Alternatives(NodeId from, int depth) {
    if (depth > kMaxEbnfDepth) {
      return Refuse("groups nested at most " + std::to_string(kMaxEbnfDepth) + " deep");
    }
    const NodeId end = builder_.AddNode();
    do {
      POLYAD_ASSIGN_OR_RETURN(const NodeId last, Sequence(from, depth));
      builder_.Empty(last, end);
      SkipBlanks();
    } while (Take("|"));
    return end;
  }

  // Items up to |, ) or ], or the next rule.
  StatusOr<NodeId> Sequence(NodeId from, int depth) {
    NodeId at = from;
    while (true) {
      SkipBlanks();
      if (at_ >= text_.size() || text_[at_] == '|' || text_[at_] == ')' || text_[at_] == ']' ||
          text_[at_] == '%' || AtRule()) {
        return at;
      }
      if (Take("->")) {
        SkipBlanks();
        if (!*is_lark_ || Name().empty()) return Refuse("an alias");
        continue;
      }
      POLYAD_ASSIGN_OR_RETURN(at, Repeated(at, depth));
    }
  }

  // An item and how often it comes; where that is not once, it becomes a rule of its own.
  StatusOr<NodeId> Repeated(NodeId from, int depth) {
    const NodeId begin = builder_.AddNode();
    const int line = Line();
    POLYAD_ASSIGN_OR_RETURN(const NodeId end, Item(begin, depth));
    int64_t min = 1;
    int64_t max = 1;
    POLYAD_RETURN_IF_ERROR(Counts(min, max));
    if (min == 1 && max == 1) {
      builder_.Empty(from, begin);
      return end;
    }
    const RuleId item = builder_.AddRule("a part of line " + std::to_string(line));
    builder_.Empty(builder_.StartOf(item), begin);
    builder_.Empty(end, builder_.AcceptOf(item));
    return builder_.Repeat(from, min, max, [&](NodeId at) { return builder_.CallRule(at, item); });
  }

  Status Counts(int64_t& min, int64_t& max) {
    if (Take("*")) {
      min = 0;
      max = -1;
    } else if (Take("+")) {
      max = -1;
    } else if (Take("?")) {
      min = 0;
    } else if (Take("{")) {
      POLYAD_ASSIGN_OR_RETURN(min, Number());
      max = min;
      SkipBlanks();
      if (Take(",")) {
        SkipBlanks();
        max = -1;
        if (!rest().starts_with('}')) {
          POLYAD_ASSIGN_OR_RETURN(max, Number());
        }
      }
      SkipBlanks();
      if (!Take("}")) return Refuse("}");
    } else if (*is_lark_) {
      SkipBlanks();
      if (!Take("~")) return absl::OkStatus();
      POLYAD_ASSIGN_OR_RETURN(min, Number());
      max = min;
      if (Take("..")) {
        POLYAD_ASSIGN_OR_RETURN(max, Number());
      }
    }
    return max >= 0 && max < min ? Refuse("counts in order") : absl::OkStatus();
  }
  StatusOr<int64_t> Number() {
    SkipBlanks();
    int64_t value = 0;
    const size_t begin = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      value = std::min<int64_t>(value * 10 + (text_[at_] - '0'), kMaxGrammarNodes);
    }
    if (at_ == begin) return Refuse("a count");
    return value;
  }

  StatusOr<NodeId> Item(NodeId from, int depth) {
    const char c = text_[at_];
    if (c == '"' || c == '\'') return LiteralOrRange(from);
    if (Take("(")) {
      POLYAD_ASSIGN_OR_RETURN(const NodeId end, Alternatives(from, depth + 1));
      if (!Take(")")) return Refuse(")");
      return end;
    }
    if (c == '[' && *is_lark_) {
      Take("[");
      POLYAD_ASSIGN_OR_RETURN(const NodeId end, Alternatives(from, depth + 1));
      if (!Take("]")) return Refuse("]");
      builder_.Empty(from, end);
      return end;
    }
    if (c == '[') return CharClass(from);
    if (c == '.' && !*is_lark_) {
      Take(".");
      return chars_.Emit(from, CharSet{{'\n', '\n'}}.Complement(), CharForm::kUtf8);
    }
    if (c == '/' && *is_lark_) return Regex(from);
    const std::string_view name = Name();
    if (name.empty()) return Refuse("a literal, a rule's name, a group or a class");
    return builder_.CallRule(from, RuleNamed(name).id);
  }

  StatusOr<std::string> Literal() {
    const char quote = text_[at_++];
    std::string value;
    while (at_ < text_.size() && text_[at_] != quote && text_[at_] != '\n') {
      if (text_[at_] == '\\') {
        POLYAD_ASSIGN_OR_RETURN(const char32_t escaped, Escape());
        AppendUtf8(escaped, &value);
      } else {
        value += text_[at_++];
      }
    }
    if (at_ >= text_.size() || text_[at_++] != quote) return Refuse("a closing quote");
    if (at_ < text_.size() && text_[at_] == 'i') return Refuse("literals without flags");
    if (!IsValidUtf8(value)) return Refuse("UTF-8");
    return value;
  }
  StatusOr<char32_t> Escape() {
    ++at_;
    if (at_ >= text_.size()) return Refuse("a character behind \\");
    const char c = text_[at_++];
    constexpr std::string_view kLetters = "ntrfvb0";
    constexpr std::string_view kValues{"\n\t\r\f\v\b\0", 7};
    if (const size_t known = kLetters.find(c); known != kLetters.npos) {
      return static_cast<char32_t>(kValues[known]);
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      if (IsNameChar(c) && c != '-' && c != '_') return Refuse("an escape that is known");
      return static_cast<char32_t>(static_cast<unsigned char>(c));
    }
    char32_t value = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      constexpr std::string_view kHex = "0123456789abcdef";
      const char digit = at_ < text_.size() ? text_[at_] : ' ';
      const size_t known =
          kHex.find(static_cast<char>(digit >= 'A' && digit <= 'F' ? digit + 32 : digit));
      if (known == kHex.npos || value > 0x10FFFF) return Refuse("hexadecimal digits");
      value = value * 16 + static_cast<char32_t>(known);
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return Refuse("a character");
    return value;
  }

  StatusOr<NodeId> LiteralOrRange(NodeId from) {
    POLYAD_ASSIGN_OR_RETURN(const std::string first, Literal());
    if (!*is_lark_ || !rest().starts_with("..")) {
      // A node even for an empty text: what comes next must not touch `from`.
      const NodeId begin = builder_.AddNode();
      builder_.Empty(from, begin);
      return builder_.Literal(begin, first);
    }
    Take("..");
    if (at_ >= text_.size() || text_[at_] != text_[at_ - 3]) return Refuse("a literal behind ..");
    POLYAD_ASSIGN_OR_RETURN(const std::string last, Literal());
    const Utf8Step low = StepUtf8(first);
    const Utf8Step high = StepUtf8(last);
    const bool is_range = low.valid && high.valid && low.value <= high.value &&
                          static_cast<size_t>(low.length) == first.size() &&
                          static_cast<size_t>(high.length) == last.size();
    if (!is_range) return Refuse("a range of two characters in order");
    return chars_.Emit(from, {{low.value, high.value}}, CharForm::kUtf8);
  }

  // [...] of GBNF is a class of the regular expressions.
  StatusOr<NodeId> CharClass(NodeId from) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != ']' && text_[end] != '\n') {
      end += text_[end] == '\\' ? 2 : 1;
    }
    if (end >= text_.size() || text_[end] != ']') return Refuse("]");
    const std::string_view pattern = text_.substr(at_, end + 1 - at_);
    StatusOr<CharGraph> graph = ParseRegex(pattern, RegexUse::kWhole);
    if (!graph.ok()) return Annotate(graph.status(), "line " + std::to_string(Line()));
    at_ = end + 1;
    return chars_.Emit(from, *graph, CharForm::kUtf8);
  }

  StatusOr<NodeId> Regex(NodeId from) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != '/' && text_[end] != '\n') {
      end += text_[end] == '\\' ? 2 : 1;
    }
    if (end >= text_.size() || text_[end] != '/') return Refuse("a closing /");
    StatusOr<CharGraph> graph = ParseRegex(text_.substr(at_ + 1, end - at_ - 1), RegexUse::kWhole);
    if (!graph.ok()) return Annotate(graph.status(), "line " + std::to_string(Line()));
    at_ = end + 1;
    if (at_ < text_.size() && IsNameChar(text_[at_])) return Refuse("expressions without flags");
    return chars_.Emit(from, *graph, CharForm::kUtf8);
  }

  const std::string_view text_;
  GrammarBuilder& builder_;
  CharRules& chars_;
  size_t at_ = 0;
  std::optional<bool> is_lark_;
  std::map<std::string, Known> rules_;
};

}  // namespace

StatusOr<RuleId> LowerEbnf(std::string_view text, GrammarBuilder& builder, CharRules& chars) {
  return EbnfReader(text, builder, chars).Read();
}

}  // namespace polyad
