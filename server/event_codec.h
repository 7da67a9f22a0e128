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
void EncodeAdapter(const AdapterIdentity& from, v1::AdapterRef& to);
void EncodeUsage(const Usage& from, v1::Usage& to);
void EncodeTimings(const Timings& from, v1::Timings& to);
// Appends `tokens` to `last` where that is a Delta of the same choice; false where it is not.
bool MergeIntoDelta(const TokensEvent& tokens, v1::GenerateResponse& last);

}  // namespace polyad
