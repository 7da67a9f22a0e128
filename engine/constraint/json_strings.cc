#include "engine/constraint/json_strings.h"

#include <array>

#include "engine/constraint/regex.h"
#include "engine/io/quote.h"

namespace polyad {
namespace {

struct Format {
  const char* name;
  const char* pattern;
};

// RFC 3339 (date, time), 4122 (uuid), 1123 (hostname), 5321's plain form (email), 3986 (uri).
#define POLYAD_DATE                                                                               \
  "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|" \
  "2[0-8])"                                                                                       \
  "|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
#define POLYAD_TIME                                                                               \
  "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-" \
  "5][0-9])"
#define POLYAD_OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define POLYAD_LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
constexpr std::array<Format, 10> kFormats = {{
    {"date", "^" POLYAD_DATE "$"},
    {"time", "^" POLYAD_TIME "$"},
    {"date-time", "^" POLYAD_DATE "T" POLYAD_TIME "$"},
    {"duration", "^P(?:[0-9]{1,4}W|[0-9]{1,4}D(?:T[0-9]{1,4}H)?|T[0-9]{1,4}[HMS])$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
    {"email", "^[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,16}){0,2}@(?:" POLYAD_LABEL
              "\\.){1,3}[A-Za-z]{2,12}$"},
    {"hostname", "^(?:" POLYAD_LABEL "\\.){0,3}[A-Za-z](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?$"},
    {"ipv4", "^(?:" POLYAD_OCTET "\\.){3}" POLYAD_OCTET "$"},
    {"ipv6", "^(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$|^::(?:[0-9a-f]{1,4}:){0,5}[0-9a-f]{1,4}$"},
    {"uri", "^https?://(?:" POLYAD_LABEL "\\.){1,3}[a-z]{2,12}(?:/[A-Za-z0-9._~-]{0,64}){0,8}$"},
}};

}  // namespace

const char* PatternOfFormat(std::string_view format) {
  for (const Format& known : kFormats) {
    if (format == known.name) return known.pattern;
  }
  return nullptr;
}

std::string FormatNames() {
  std::string names;
  for (const Format& known : kFormats)
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

StatusOr<NodeId> EmitString(JsonValues& values, NodeId from, const StringBounds& bounds) {
  GrammarBuilder& builder = values.builder();
  if (bounds.max_length >= 0 && bounds.max_length < bounds.min_length) {
    return InvalidArgument("expected minLength of at most maxLength %d, got %d", bounds.max_length,
                           bounds.min_length);
  }
  const bool has_length = bounds.min_length > 0 || bounds.max_length >= 0;
  if (!bounds.pattern.has_value() && !bounds.format.has_value()) {
    if (!has_length) return builder.CallRule(from, values.AnyString());
    const NodeId end =
        builder.Repeat(builder.Literal(from, "\""), bounds.min_length, bounds.max_length,
                       [&](NodeId at) { return builder.CallRule(at, values.AnyChar()); });
    return builder.Literal(end, "\"");
  }
  if (bounds.pattern.has_value() && bounds.format.has_value()) {
    return InvalidArgument("expected one of pattern and format, got both");
  }
  const char* of_format = bounds.format.has_value() ? PatternOfFormat(*bounds.format) : nullptr;
  if (bounds.format.has_value() && of_format == nullptr) {
    return InvalidArgument("format: expected one of %s, got %s", FormatNames(),
                           Quote(*bounds.format));
  }
  StatusOr<CharGraph> graph =
      ParseRegex(of_format != nullptr ? of_format : *bounds.pattern, RegexUse::kSearch);
  if (!graph.ok()) return Annotate(graph.status(), "pattern");
  if (has_length) {
    POLYAD_ASSIGN_OR_RETURN(*graph, WithLength(*graph, bounds.min_length, bounds.max_length));
  }
  const NodeId open = builder.Literal(from, "\"");
  return builder.Literal(values.chars().Emit(open, *graph, CharForm::kInJsonString), "\"");
}

}  // namespace polyad
