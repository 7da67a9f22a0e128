#pragma once

// A Status as OpenAI's clients expect an error: {"error":{"message","type","param","code"}} and an
// HTTP status. Any thread.

#include <string>

#include "engine/base/status.h"
#include "server/http/http_exchange.h"

namespace polyad {

int HttpStatusOf(const Status& status);
std::string OpenAiErrorBody(const Status& status);
// Answers with it; 429 and 503 say when to try again, 401 how to authenticate.
void RespondError(const Status& status, HttpExchange& exchange);

}  // namespace polyad
