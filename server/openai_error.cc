#include "server/openai_error.h"

#include "server/field_error.h"
#include "server/json_text.h"
#include "server/quota_error.h"

namespace polyad {
namespace {

std::string_view TypeOf(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return http_status >= 500 ? "server_error" : "invalid_request_error";
  }
}

// "sampling.top_p" -> "top_p": HTTP's fields are flat, but for an adapter's defaults.
std::string FlatName(const std::string& field) {
  if (field.starts_with("defaults.")) return field;
  const size_t dot = field.rfind('.');
  return dot == std::string::npos ? field : field.substr(dot + 1);
}

}  // namespace

int HttpStatusOf(const Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kDataLoss:
      return 400;
    case absl::StatusCode::kUnimplemented:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

std::string OpenAiErrorBody(const Status& status) {
  const int http_status = HttpStatusOf(status);
  std::string body = R"({"error":{"message":)";
  AppendJsonString(std::string(status.message()), body);
  body += R"(,"type":)";
  AppendJsonString(TypeOf(http_status), body);
  body += R"(,"param":)";
  const std::string field = BlamedField(status);
  if (field.empty()) {
    body += "null";
  } else {
    AppendJsonString(FlatName(field), body);
  }
  body += R"(,"code":)";
  AppendJsonInt(http_status, body);
  body += "}}";
  return body;
}

void RespondError(const Status& status, HttpExchange& exchange) {
  const int http_status = HttpStatusOf(status);
  HttpExchange::Fields fields;
  if (http_status == 429 || http_status == 503) {
    const int64_t retry_ms = RetryMillis(WithRetry(status, kDefaultRetryMs));
    fields.emplace_back("Retry-After", std::to_string((retry_ms + 999) / 1000));
  }
  if (http_status == 401) fields.emplace_back("WWW-Authenticate", "Bearer");
  exchange.Respond(http_status, "application/json", OpenAiErrorBody(status), fields);
}

}  // namespace polyad
