#include "engine/adapters/base_record.h"

#include "engine/io/json.h"
#include "engine/io/quote.h"

namespace polyad {
namespace {

constexpr int64_t kMaxRecordBytes = 4096;
constexpr size_t kDigestCharacters = 64;

}  // namespace

StatusOr<std::string> ParseBaseRecord(std::string_view text) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJson json,
                          ParseOrderedJson(text, kBaseRecord, {.max_bytes = kMaxRecordBytes}));
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields fields, OrderedJsonFields::Of(json, kBaseRecord));
  for (const auto& [key, value] : json.items()) {
    if (key != "name" && key != "weights_sha256") {
      return Unimplemented("%s: key %s is not understood", kBaseRecord, Quote(key));
    }
  }
  POLYAD_RETURN_IF_ERROR(fields.StringOr("name", "").status());
  POLYAD_ASSIGN_OR_RETURN(std::string digest, fields.String("weights_sha256"));
  if (digest.size() != kDigestCharacters ||
      digest.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return InvalidArgument("%s: key 'weights_sha256': expected %d lower-case hex digits, got %s",
                           kBaseRecord, kDigestCharacters, Quote(digest));
  }
  return digest;
}

StatusOr<std::string> ReadBaseRecord(const Directory& directory) {
  if (!directory.Contains(kBaseRecord)) return std::string();
  POLYAD_ASSIGN_OR_RETURN(const RandomAccessFile file, directory.OpenFile(kBaseRecord));
  POLYAD_ASSIGN_OR_RETURN(const std::string text, file.ReadAll(kMaxRecordBytes));
  return ParseBaseRecord(text);
}

Status CheckBelongs(std::string_view where, const std::string& digest,
                    const LoweringContext& context) {
  if (digest.empty()) return absl::OkStatus();
  POLYAD_ASSIGN_OR_RETURN(const BaseWeights* base, context.Base());
  POLYAD_ASSIGN_OR_RETURN(const Digest actual, base->WeightsDigest());
  if (ToHex(actual) == digest) return absl::OkStatus();
  return FailedPrecondition("%s: expected weights of SHA-256 %s, this base's are %s", where,
                            Quote(digest), ToHex(actual));
}

}  // namespace polyad
