#pragma once

// How the edge refuses a field: INVALID_ARGUMENT with the message "field: expected X, got Y" and
// the same facts as a google.rpc.BadRequest payload, which both fronts pass on (gRPC in its status
// details, HTTP as error.param).

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"

namespace polyad {

inline constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";

Status FieldError(std::string_view field, std::string_view expected, std::string_view got);
// `status` as one that blames `field`; the same where the field that it begins with ("field: ...")
// lies beneath `parent`.
Status BlameField(std::string_view field, const Status& status);
Status BlameBeneath(std::string_view parent, const Status& status);
// The first field that a status from above blames; empty where it blames none.
std::string BlamedField(const Status& status);

// OK where min <= value <= max; never for a NaN.
Status CheckRange(std::string_view field, int64_t value, int64_t min, int64_t max);
Status CheckRange(std::string_view field, double value, double min, double max);
// OK where 0 < value <= max.
Status CheckPositive(std::string_view field, double value, double max);
// OK where count <= max; `unit` is what is counted, such as "bytes".
Status CheckCount(std::string_view field, size_t count, size_t max, std::string_view unit);

}  // namespace polyad
