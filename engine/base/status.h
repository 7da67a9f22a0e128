#pragma once

// Status in one place: constructors that format ("tensor %s: expected %s, got %s") and the two
// macros that pass a failure up. The outside world always enters through absl::Status; broken
// invariants go through check.h instead. Arguments are std::string, const char*, std::string_view
// or numbers, as absl::StrFormat takes them.

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"

namespace polyad {

using absl::Status;
using absl::StatusOr;

// One constructor per code we use. INVALID_ARGUMENT: malformed input. NOT_FOUND: a named thing is
// absent. FAILED_PRECONDITION: well-formed but not for this base or this state. UNIMPLEMENTED:
// known but not served. RESOURCE_EXHAUSTED: a limit or the memory budget. DATA_LOSS: a file that
// contradicts itself.
#define POLYAD_DEFINE_STATUS(Name, kCode)                                                   \
  template <typename... Args>                                                               \
  [[nodiscard]] Status Name(const absl::FormatSpec<Args...>& format, const Args&... args) { \
    return Status(kCode, absl::StrFormat(format, args...));                                 \
  }
POLYAD_DEFINE_STATUS(InvalidArgument, absl::StatusCode::kInvalidArgument)
POLYAD_DEFINE_STATUS(NotFound, absl::StatusCode::kNotFound)
POLYAD_DEFINE_STATUS(AlreadyExists, absl::StatusCode::kAlreadyExists)
POLYAD_DEFINE_STATUS(FailedPrecondition, absl::StatusCode::kFailedPrecondition)
POLYAD_DEFINE_STATUS(Unimplemented, absl::StatusCode::kUnimplemented)
POLYAD_DEFINE_STATUS(ResourceExhausted, absl::StatusCode::kResourceExhausted)
POLYAD_DEFINE_STATUS(DataLoss, absl::StatusCode::kDataLoss)
POLYAD_DEFINE_STATUS(Unavailable, absl::StatusCode::kUnavailable)
POLYAD_DEFINE_STATUS(Internal, absl::StatusCode::kInternal)
POLYAD_DEFINE_STATUS(Aborted, absl::StatusCode::kAborted)
POLYAD_DEFINE_STATUS(OutOfRange, absl::StatusCode::kOutOfRange)
POLYAD_DEFINE_STATUS(Cancelled, absl::StatusCode::kCancelled)
POLYAD_DEFINE_STATUS(DeadlineExceeded, absl::StatusCode::kDeadlineExceeded)
#undef POLYAD_DEFINE_STATUS

// Prefixes the message of a failure with where it happened ("config.json: ..."); OK stays OK.
inline Status Annotate(const Status& status, const std::string& where) {
  if (status.ok()) return status;
  return Status(status.code(), absl::StrCat(where, ": ", status.message()));
}

#define POLYAD_CONCAT_INNER(a, b) a##b
#define POLYAD_CONCAT(a, b) POLYAD_CONCAT_INNER(a, b)

#define POLYAD_RETURN_IF_ERROR(expr)                                                      \
  do {                                                                                    \
    if (::absl::Status polyad_status = (expr); !polyad_status.ok()) return polyad_status; \
  } while (false)

#define POLYAD_ASSIGN_OR_RETURN(lhs, expr) \
  POLYAD_ASSIGN_OR_RETURN_INNER(POLYAD_CONCAT(polyad_or_, __LINE__), lhs, expr)
#define POLYAD_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                                  \
  if (!tmp.ok()) return tmp.status();                 \
  lhs = std::move(tmp).value()

}  // namespace polyad
