#include "engine/text/pretokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"

namespace polyad {

namespace {

using Kind = PreTokenizerStep::Kind;
using Piece = Pieces::Piece;

// A stretch of a piece and whether the step's pattern matched it.
struct Stretch {
  uint32_t begin = 0;
  uint32_t end = 0;
  bool is_match = false;
};

// What lies between the matches is a stretch too; together they cover the piece.
std::vector<Stretch> CoverGaps(const std::vector<ByteRange>& matches, uint32_t size) {
  std::vector<Stretch> cover;
  cover.reserve(matches.size() + 1);
  uint32_t at = 0;
  for (const ByteRange& match : matches) {
    if (at != match.begin) cover.push_back({at, match.begin, false});
    cover.push_back({match.begin, match.end, true});
    at = match.end;
  }
  if (at != size) cover.push_back({at, size, false});
  return cover;
}

template <typename Predicate>
std::vector<ByteRange> FindChars(std::string_view text, const Predicate& matches) {
  std::vector<ByteRange> found;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = StepUtf8(text.substr(at));
    const size_t end = at + static_cast<size_t>(step.length);
    if (matches(step.value))
      found.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(end)});
    at = end;
  }
  return found;
}

bool IsNumeric(char32_t value) {
  if (value < 0x80) return value >= '0' && value <= '9';
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(value));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

bool IsPunctuation(char32_t value) {
  if (value < 0x80)
    return value > 0x20 && value < 0x7F && !(value >= '0' && value <= '9') &&
           !(value >= 'A' && value <= 'Z') && !(value >= 'a' && value <= 'z');
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(value));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

std::vector<ByteRange> FindLiteral(std::string_view text, std::string_view literal) {
  std::vector<ByteRange> found;
  for (size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    found.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + literal.size())});
  }
  return found;
}

StatusOr<std::vector<ByteRange>> FindMatches(const PreTokenizerStep& step, std::string_view text) {
  std::vector<ByteRange> matches;
  switch (step.kind) {
    case Kind::kRegex:
    case Kind::kByteLevel:
      POLYAD_RETURN_IF_ERROR(step.regex.front().FindAll(text, &matches));
      return matches;
    case Kind::kLiteral:
    case Kind::kMetaspace:
      return FindLiteral(text, step.literal);
    case Kind::kDigits:
      return FindChars(text, IsNumeric);
    case Kind::kPunctuation:
      return FindChars(text, IsPunctuation);
    case Kind::kWhitespaceSplit:
      return FindChars(text, IsUnicodeSpace);
  }
  return Internal("pre-tokeniser step %d", static_cast<int>(step.kind));
}

// Joins a match to its neighbour, as NormalizedString::split does for the Merged behaviours.
std::vector<Stretch> MergeMatches(const std::vector<Stretch>& cover, bool with_next) {
  std::vector<Stretch> merged;
  bool previous_match = false;
  const auto add = [&](const Stretch& stretch) {
    if (stretch.is_match && !previous_match && !merged.empty()) {
      if (with_next) {
        merged.back().begin = stretch.begin;
      } else {
        merged.back().end = stretch.end;
      }
    } else {
      merged.push_back(stretch);
    }
    previous_match = stretch.is_match;
  };
  if (with_next) {
    std::for_each(cover.rbegin(), cover.rend(), add);
    std::reverse(merged.begin(), merged.end());
  } else {
    std::for_each(cover.begin(), cover.end(), add);
  }
  return merged;
}

std::vector<Stretch> ApplyBehavior(std::vector<Stretch> cover, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return cover;
    case SplitBehavior::kRemoved:
      std::erase_if(cover, [](const Stretch& stretch) { return stretch.is_match; });
      return cover;
    case SplitBehavior::kMergedWithPrevious:
      return MergeMatches(cover, false);
    case SplitBehavior::kMergedWithNext:
      return MergeMatches(cover, true);
    case SplitBehavior::kContiguous: {
      std::vector<Stretch> joined;
      for (const Stretch& stretch : cover) {
        if (!joined.empty() && joined.back().is_match == stretch.is_match) {
          joined.back().end = stretch.end;
        } else {
          joined.push_back(stretch);
        }
      }
      return joined;
    }
  }
  return cover;
}

// Cuts one piece of `text` and appends its parts.
Status CutPiece(const PreTokenizerStep& step, std::string_view text, const Piece& piece,
                std::vector<Piece>* out) {
  const std::string_view subject = text.substr(piece.begin, piece.end - piece.begin);
  POLYAD_ASSIGN_OR_RETURN(const std::vector<ByteRange> matches, FindMatches(step, subject));
  std::vector<Stretch> cover = CoverGaps(matches, static_cast<uint32_t>(subject.size()));
  if (step.invert) {
    for (Stretch& stretch : cover) stretch.is_match = !stretch.is_match;
  }
  for (const Stretch& stretch : ApplyBehavior(std::move(cover), step.behavior)) {
    if (stretch.begin == stretch.end) continue;
    out->push_back({piece.begin + stretch.begin, piece.begin + stretch.end,
                    piece.at_start && stretch.begin == 0});
  }
  return absl::OkStatus();
}

// Rewrites every piece with `rewrite(piece_text, at_start) -> string`; the pieces stay apart.
template <typename Rewrite>
Pieces RewritePieces(const Pieces& in, const Rewrite& rewrite) {
  Pieces out;
  out.pieces.reserve(in.pieces.size());
  out.text.reserve(in.text.size() * 2);
  for (const Piece& piece : in.pieces) {
    const auto begin = static_cast<uint32_t>(out.text.size());
    rewrite(std::string_view(in.text).substr(piece.begin, piece.end - piece.begin), piece.at_start,
            &out.text);
    out.pieces.push_back({begin, static_cast<uint32_t>(out.text.size()), piece.at_start});
  }
  return out;
}

Pieces EscapeSpaces(const PreTokenizerStep& step, const Pieces& in) {
  using Prepend = PreTokenizerStep::Prepend;
  return RewritePieces(in, [&](std::string_view text, bool at_start, std::string* out) {
    const bool wanted =
        step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && at_start);
    if (wanted && !text.starts_with(' ') && !text.starts_with(step.literal)) *out += step.literal;
    for (const char c : text) {
      if (c == ' ') {
        *out += step.literal;
      } else {
        out->push_back(c);
      }
    }
  });
}

Pieces PrefixSpaces(const Pieces& in) {
  return RewritePieces(in, [](std::string_view text, bool, std::string* out) {
    if (!text.starts_with(' ')) out->push_back(' ');
    *out += text;
  });
}

Pieces MapBytes(const Pieces& in) {
  return RewritePieces(in, [](std::string_view text, bool, std::string* out) {
    for (const char c : text) *out += CharOfByte(static_cast<unsigned char>(c));
  });
}

Status Cut(const PreTokenizerStep& step, Pieces* pieces) {
  std::vector<Piece> cut;
  cut.reserve(pieces->pieces.size());
  for (const Piece& piece : pieces->pieces) {
    POLYAD_RETURN_IF_ERROR(CutPiece(step, pieces->text, piece, &cut));
  }
  pieces->pieces = std::move(cut);
  return absl::OkStatus();
}

}  // namespace

StatusOr<Pieces> PreTokenizer::Split(std::string text, bool at_start) const {
  Pieces pieces;
  if (!text.empty()) pieces.pieces.push_back({0, static_cast<uint32_t>(text.size()), at_start});
  pieces.text = std::move(text);
  for (const PreTokenizerStep& step : steps_) {
    if (step.kind == Kind::kMetaspace) {
      pieces = EscapeSpaces(step, pieces);
      if (step.split) POLYAD_RETURN_IF_ERROR(Cut(step, &pieces));
    } else if (step.kind == Kind::kByteLevel) {
      if (step.add_prefix_space) pieces = PrefixSpaces(pieces);
      if (!step.regex.empty()) POLYAD_RETURN_IF_ERROR(Cut(step, &pieces));
      pieces = MapBytes(pieces);
    } else {
      POLYAD_RETURN_IF_ERROR(Cut(step, &pieces));
    }
  }
  return pieces;
}

}  // namespace polyad
