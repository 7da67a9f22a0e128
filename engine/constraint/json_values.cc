#include "engine/constraint/json_values.h"

namespace polyad {
namespace {

// A number's digits are bounded so that it ends, and so that a double holds it.
constexpr int kMaxIntegerDigits = 15;
constexpr int kMaxFractionDigits = 15;
constexpr int kMaxExponentDigits = 2;

NodeId Digits(GrammarBuilder& builder, NodeId from, int min, int max) {
  return builder.Repeat(from, min, max, [&](NodeId at) {
    const NodeId to = builder.AddNode();
    builder.Bytes(at, '0', '9', to);
    return to;
  });
}

// -?(0|[1-9][0-9]*)
NodeId IntegerPart(GrammarBuilder& builder, NodeId from) {
  const NodeId unsigned_part = builder.AddNode();
  builder.Bytes(from, '-', '-', unsigned_part);
  builder.Empty(from, unsigned_part);
  const NodeId end = builder.AddNode();
  builder.Bytes(unsigned_part, '0', '0', end);
  const NodeId first = builder.AddNode();
  builder.Bytes(unsigned_part, '1', '9', first);
  builder.Empty(Digits(builder, first, 0, kMaxIntegerDigits - 1), end);
  return end;
}

}  // namespace

NodeId JsonValues::Space(NodeId from) {
  if (!space_.has_value()) {
    space_ = builder_.AddRule("white space");
    const NodeId start = builder_.StartOf(*space_);
    const NodeId accept = builder_.AcceptOf(*space_);
    builder_.Empty(start, accept);
    builder_.Bytes(start, ' ', ' ', accept);
    const NodeId line = builder_.AddNode();
    builder_.Bytes(start, '\n', '\n', line);
    const NodeId end = builder_.Repeat(line, 0, kMaxJsonIndent,
                                       [&](NodeId at) { return builder_.OneOf(at, " \t"); });
    builder_.Empty(end, accept);
  }
  return builder_.CallRule(from, *space_);
}

NodeId JsonValues::Mark(NodeId from, char mark) {
  return Space(builder_.Literal(from, std::string_view(&mark, 1)));
}
NodeId JsonValues::Open(NodeId from, char bracket) { return Mark(from, bracket); }
NodeId JsonValues::Close(NodeId from, char bracket) {
  return builder_.Literal(Space(from), std::string_view(&bracket, 1));
}

// Escapes of surrogates are left out: half a pair is no character.
RuleId JsonValues::AnyChar() {
  if (any_char_.has_value()) return *any_char_;
  any_char_ = builder_.AddRule("a character");
  const NodeId start = builder_.StartOf(*any_char_);
  const NodeId accept = builder_.AcceptOf(*any_char_);
  chars_.Emit(start, CharSet::All(), CharForm::kInJsonString, accept);
  const NodeId escape = builder_.AddNode();
  builder_.Bytes(start, '\\', '\\', escape);
  builder_.Bytes(escape, '/', '/', accept);
  const NodeId hex = builder_.Literal(escape, "u");
  const auto digit = [&](NodeId at) { return builder_.OneOf(at, "0123456789abcdefABCDEF"); };
  const NodeId plain = builder_.OneOf(hex, "0123456789abcefABCEF");
  builder_.Empty(digit(digit(digit(plain))), accept);
  const NodeId below_surrogates = builder_.OneOf(builder_.OneOf(hex, "dD"), "01234567");
  builder_.Empty(digit(digit(below_surrogates)), accept);
  return *any_char_;
}

RuleId JsonValues::AnyString() {
  if (any_string_.has_value()) return *any_string_;
  any_string_ = builder_.AddRule("a string");
  const NodeId open = builder_.Literal(builder_.StartOf(*any_string_), "\"");
  const NodeId chars =
      builder_.Repeat(open, 0, -1, [&](NodeId at) { return builder_.CallRule(at, AnyChar()); });
  builder_.Bytes(chars, '"', '"', builder_.AcceptOf(*any_string_));
  return *any_string_;
}

RuleId JsonValues::AnyInteger() {
  if (any_integer_.has_value()) return *any_integer_;
  any_integer_ = builder_.AddRule("an integer");
  const NodeId end = IntegerPart(builder_, builder_.StartOf(*any_integer_));
  builder_.Empty(end, builder_.AcceptOf(*any_integer_));
  return *any_integer_;
}

RuleId JsonValues::AnyNumber() {
  if (any_number_.has_value()) return *any_number_;
  any_number_ = builder_.AddRule("a number");
  const NodeId integer = IntegerPart(builder_, builder_.StartOf(*any_number_));
  const NodeId fraction = builder_.AddNode();
  builder_.Empty(integer, fraction);
  builder_.Empty(Digits(builder_, builder_.Literal(integer, "."), 1, kMaxFractionDigits), fraction);
  const NodeId accept = builder_.AcceptOf(*any_number_);
  builder_.Empty(fraction, accept);
  const NodeId exponent = builder_.OneOf(fraction, "eE");
  const NodeId exponent_digits = builder_.AddNode();
  builder_.Empty(exponent, exponent_digits);
  builder_.Empty(builder_.OneOf(exponent, "+-"), exponent_digits);
  builder_.Empty(Digits(builder_, exponent_digits, 1, kMaxExponentDigits), accept);
  return *any_number_;
}

RuleId JsonValues::AnyValue() {
  if (any_value_.has_value()) return *any_value_;
  any_value_ = builder_.AddRule("a JSON value");
  const NodeId start = builder_.StartOf(*any_value_);
  const NodeId accept = builder_.AcceptOf(*any_value_);
  for (const char* word : {"true", "false", "null"}) {
    builder_.Empty(builder_.Literal(start, word), accept);
  }
  for (const RuleId rule : {AnyString(), AnyNumber(), AnyArray(), AnyObject()}) {
    builder_.Call(start, rule, accept);
  }
  return *any_value_;
}

RuleId JsonValues::AnyArray() {
  if (any_array_.has_value()) return *any_array_;
  any_array_ = builder_.AddRule("a JSON array");
  const NodeId accept = builder_.AcceptOf(*any_array_);
  const NodeId open = Open(builder_.StartOf(*any_array_), '[');
  builder_.Bytes(open, ']', ']', accept);
  const NodeId first = builder_.CallRule(open, AnyValue());
  const NodeId items = builder_.Repeat(
      first, 0, -1, [&](NodeId at) { return builder_.CallRule(Mark(at, ','), AnyValue()); });
  builder_.Empty(Close(items, ']'), accept);
  return *any_array_;
}

NodeId JsonValues::Members(NodeId from, RuleId value) {
  const auto member = [&](NodeId at) {
    return builder_.CallRule(Mark(builder_.CallRule(at, AnyString()), ':'), value);
  };
  return builder_.Repeat(member(from), 0, -1, [&](NodeId at) { return member(Mark(at, ',')); });
}

RuleId JsonValues::AnyObject() {
  if (any_object_.has_value()) return *any_object_;
  any_object_ = builder_.AddRule("a JSON object");
  const NodeId accept = builder_.AcceptOf(*any_object_);
  const NodeId open = Open(builder_.StartOf(*any_object_), '{');
  builder_.Bytes(open, '}', '}', accept);
  builder_.Empty(Close(Members(open, AnyValue()), '}'), accept);
  return *any_object_;
}

}  // namespace polyad
