#include "server/field_error.h"

#include <cmath>

#include "absl/strings/cord.h"
#include "google/rpc/status_details.pb.h"

namespace polyad {
namespace {

constexpr size_t kMaxQuotedBytes = 64;

Status WithViolation(Status status, std::string_view field, std::string description) {
  google::rpc::BadRequest detail;
  auto* violation = detail.add_field_violations();
  violation->set_field(std::string(field));
  violation->set_description(std::move(description));
  status.SetPayload(kBadRequestUrl, absl::Cord(detail.SerializeAsString()));
  return status;
}

// Printable ASCII, short: what a client sent may be quoted back, but only as a hint.
std::string Quotable(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, kMaxQuotedBytes)) out.push_back(c >= 0x20 && c < 0x7f ? c : '?');
  if (text.size() > kMaxQuotedBytes) out += "...";
  return out;
}

}  // namespace

Status FieldError(std::string_view field, std::string_view expected, std::string_view got) {
  std::string description = absl::StrFormat("expected %s, got %s", expected, Quotable(got));
  return WithViolation(InvalidArgument("%s: %s", field, description), field, description);
}

Status BlameField(std::string_view field, const Status& status) {
  const std::string description(status.message());
  return WithViolation(Status(status.code(), absl::StrFormat("%s: %s", field, description)), field,
                       description);
}

Status BlameBeneath(std::string_view parent, const Status& status) {
  const std::string message(status.message());
  const size_t colon = message.find(": ");
  if (colon == std::string::npos) return BlameField(parent, status);
  return BlameField(absl::StrFormat("%s.%s", parent, message.substr(0, colon)),
                    Status(status.code(), message.substr(colon + 2)));
}

std::string BlamedField(const Status& status) {
  const auto payload = status.GetPayload(kBadRequestUrl);
  google::rpc::BadRequest detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return "";
  return detail.field_violations_size() > 0 ? detail.field_violations(0).field() : "";
}

Status CheckRange(std::string_view field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return FieldError(field, absl::StrFormat("an integer in [%d, %d]", min, max),
                    std::to_string(value));
}

Status CheckRange(std::string_view field, double value, double min, double max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return FieldError(field, absl::StrFormat("a number in [%g, %g]", min, max),
                    absl::StrFormat("%g", value));
}

Status CheckPositive(std::string_view field, double value, double max) {
  if (value > 0 && value <= max) return absl::OkStatus();
  return FieldError(field, absl::StrFormat("a number in (0, %g]", max),
                    absl::StrFormat("%g", value));
}

Status CheckCount(std::string_view field, size_t count, size_t max, std::string_view unit) {
  if (count <= max) return absl::OkStatus();
  return FieldError(field, absl::StrFormat("at most %d %s", max, unit), std::to_string(count));
}

}  // namespace polyad
