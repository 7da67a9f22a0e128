#pragma once

// TokenEvent -> GenerateResponse, the way back of request_codec.h. Pure functions, any thread.

#include <string>

#include "engine/base/status.h"
#include "engine/request/token_event.h"
#include "polyad/v1/inference.pb.h"

namespace polyad {

// `request_id` goes into PromptInfo.
void EncodeEvent(const TokenEvent& event, const std::string& request_id,
                 v1::GenerateResponse& response);
// Appends `tokens` to `last` where that is a Delta of the same choice; false where it is not.
bool MergeIntoDelta(const TokensEvent& tokens, v1::GenerateResponse& last);

}  // namespace polyad
