#pragma once

// An adapter version's defaults: what a request to it takes for what it does not say itself, field
// by field. They are kept as the message that was loaded, with its chat template parsed, and are
// put into a request's message before that is decoded, so that every check of a request's holds for
// them too. Immutable once made; pure functions, any thread, but for CheckAdapterDefaults, which
// takes a constraint's compilation. Errors: a request's, the field beneath "defaults".

#include <cstddef>
#include <memory>

#include "engine/base/status.h"
#include "engine/engine.h"
#include "engine/text/chat_template.h"
#include "polyad/v1/adapter_admin.pb.h"
#include "server/request_codec.h"

namespace polyad {

inline constexpr size_t kMaxSystemPromptBytes = 64 << 10;
inline constexpr size_t kMaxDefaultTemplateBytes = 64 << 10;

struct AdapterDefaults {
  v1::AdapterDefaults message;
  std::shared_ptr<const ChatTemplate> chat_template = nullptr;  // null: the model's
};

// Parses the chat template and checks what needs neither a model nor limits.
StatusOr<std::shared_ptr<const AdapterDefaults>> MakeAdapterDefaults(
    const v1::AdapterDefaults& message);

// Whether requests could be served with them: one that says nothing itself, and a chat of one
// message, which the template has to render with the system prompt.
Status CheckAdapterDefaults(const AdapterDefaults& defaults, const DecodeLimits& limits,
                            Engine& engine);

// What `request` says stays. A list or map that is empty says nothing.
void FillInDefaults(const v1::AdapterDefaults& defaults, v1::GenerateRequest& request);

}  // namespace polyad
