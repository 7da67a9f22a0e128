#pragma once

// The vocabulary both ends share. RequestSpec is what a client asked, decoded and range-checked at
// the edge; Request is what intake makes of it (tokenised, adapter leased), immutable from then on
// and owned by its sequences.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/base/adapter_name.h"
#include "engine/request/constraint_spec.h"
#include "engine/request/sampling_params.h"
#include "engine/request/tenant_share.h"
#include "engine/request/token_event.h"
#include "engine/request/trace_context.h"

namespace polyad {

class AdapterVersion;  // engine/adapters/adapter_version.h; a null lease is the base model
class ChatTemplate;    // engine/text/chat_template.h
class Constraint;      // engine/constraint/constraint.h; null: any text will do

struct ChatCall {
  std::string id;
  std::string name;
  std::string arguments;  // a JSON object
};

struct ChatTurn {
  std::string role;
  std::string content;
  std::vector<ChatCall> tool_calls = {};
  std::string tool_call_id = {};
  std::string name = {};
};

struct ChatFunction {
  std::string name;
  std::string description;
  std::string parameters;  // a JSON schema; empty: none
};

struct ChatPrompt {
  std::vector<ChatTurn> messages;
  bool add_generation_prompt = true;
  std::vector<ChatFunction> tools = {};
  std::shared_ptr<const ChatTemplate> chat_template = nullptr;  // null: the model's
};

// Bytes of what the client wrote.
inline int64_t BytesOf(const ChatPrompt& chat) {
  size_t bytes = 0;
  for (const ChatTurn& turn : chat.messages) {
    bytes += turn.role.size() + turn.content.size() + turn.tool_call_id.size() + turn.name.size();
    for (const ChatCall& call : turn.tool_calls) {
      bytes += call.id.size() + call.name.size() + call.arguments.size();
    }
  }
  for (const ChatFunction& tool : chat.tools) {
    bytes += tool.name.size() + tool.description.size() + tool.parameters.size();
  }
  return static_cast<int64_t>(bytes);
}

struct TextPrompt {
  std::string text;
};

struct TokenPrompt {
  std::vector<int32_t> ids;
};

struct RequestSpec {
  std::string request_id;  // empty: the server makes one
  std::string tenant;      // from the credential; empty without authentication
  TenantShare share;       // the tenant's
  TraceContext trace = {};
  std::string model;  // adapter name, alias, name@version, or empty / the base model's name
  std::vector<AdapterUse> adapters;  // instead of model: applied together, in order
  // Of the version that `model` names, until the request has its own; null: none is needed.
  std::shared_ptr<const AdapterVersion> lease = nullptr;
  std::variant<TextPrompt, TokenPrompt, ChatPrompt> prompt;
  SamplingParams sampling;
  StoppingParams stopping;
  ConstraintSpec constraint;
  OutputParams output;
  std::optional<EmbeddingParams> embedding = {};
  CacheParams cache;
  int32_t priority = 0;             // larger first; [-100, 100]
  int64_t deadline_us = 0;          // Clock micros; 0: none
  int64_t max_adapter_wait_ms = 0;  // for a swapped-out adapter; 0: kDefaultAdapterWaitMs
  int64_t adapter_wait_us = 0;      // what it waited
};
inline constexpr int64_t kDefaultAdapterWaitMs = 60'000;

struct Request {
  std::string request_id;
  std::string tenant;
  TenantShare share;
  std::vector<int32_t> prompt_tokens;  // never empty
  SamplingParams sampling;
  StoppingParams stopping;
  OutputParams output;
  std::optional<EmbeddingParams> embedding;
  CacheParams cache;
  std::shared_ptr<const AdapterVersion> adapter;
  AdapterIdentity adapter_identity;
  std::shared_ptr<Constraint> constraint;
  // First prompt token whose row runs the adapter; rows before it are the base model's. 0 but for
  // activated adapters; past every token where the prompt does not invoke one.
  int64_t adapter_begin = 0;
  // Of an adapter with several soft prompts: the first row of the request's own among their
  // embeddings, and what multiplies it.
  int64_t prompt_row = 0;
  float prompt_scale = 1.0f;
  int64_t max_context = 0;  // the longest it may have, virtual tokens too; 0: the engine's
  // Which of the rotary tables of its adapter or the base turn all its queries and keys: told by
  // how long it may get (engine/spec/rope_frequencies.h).
  int64_t rope_choice = 0;
  int32_t priority = 0;
  int64_t arrival_us = 0;
  int64_t adapter_wait_us = 0;  // from then until the adapter was there
  int64_t deadline_us = 0;      // 0: none
  std::shared_ptr<ResponseSink> sink;
  bool is_head_request = false;  // the engine's own (runtime/soft_prompt_head.h); counts nowhere
};

}  // namespace polyad
