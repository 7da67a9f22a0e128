#include "server/adapter_defaults.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "server/field_error.h"

namespace polyad {
namespace {

// Every single field of these messages knows whether it was set (adapter_defaults_test holds them
// to it).
template <typename Message>
void FillIn(const Message& defaults, Message& request) {
  Message merged = defaults;
  std::vector<const google::protobuf::FieldDescriptor*> said;
  request.GetReflection()->ListFields(request, &said);
  for (const auto* field : said) merged.GetReflection()->ClearField(&merged, field);
  merged.MergeFrom(request);
  request = std::move(merged);
}

void FillInStopping(const v1::Stopping& defaults, v1::Stopping& request) {
  const bool says_max = request.has_max_tokens();
  const bool says_min = request.has_min_tokens();
  FillIn(defaults, request);
  if (says_max && !says_min && request.min_tokens() > request.max_tokens()) {
    // The client asked for a short answer and never heard of the adapter's least.
    request.set_min_tokens(std::max<int64_t>(request.max_tokens(), 0));
  }
}

bool NeedsSystemPrompt(const v1::Chat& chat) {
  const auto& messages = chat.messages();
  return !messages.empty() && std::none_of(messages.begin(), messages.end(), [](const auto& one) {
    return one.role() == "system" || one.role() == "developer";
  });
}

void LeadWith(const std::string& system_prompt, v1::Chat& chat) {
  v1::ChatMessage* message = chat.add_messages();
  message->set_role("system");
  message->set_content(system_prompt);
  for (int at = chat.messages_size() - 1; at > 0; --at) {
    chat.mutable_messages()->SwapElements(at, at - 1);
  }
}

Status CheckChat(const AdapterDefaults& defaults, Engine& engine) {
  const std::string& system_prompt = defaults.message.system_prompt();
  const bool has_template = defaults.chat_template != nullptr;
  if (!has_template && system_prompt.empty()) return absl::OkStatus();
  ChatPrompt chat;
  if (!system_prompt.empty()) chat.messages.push_back({"system", system_prompt});
  chat.messages.push_back({"user", "hello"});
  chat.chat_template = defaults.chat_template;
  RequestSpec trial;
  trial.prompt = std::move(chat);
  const Status status = engine.Check(trial);
  if (status.ok()) return status;
  return BlameField(has_template ? "defaults.chat_template" : "defaults.system_prompt", status);
}

}  // namespace

StatusOr<std::shared_ptr<const AdapterDefaults>> MakeAdapterDefaults(
    const v1::AdapterDefaults& message) {
  if (message.sampling().has_n()) {
    return FieldError("defaults.sampling.n", "none: requests say it",
                      std::to_string(message.sampling().n()));
  }
  POLYAD_RETURN_IF_ERROR(CheckCount("defaults.system_prompt", message.system_prompt().size(),
                                    kMaxSystemPromptBytes, "bytes"));
  POLYAD_RETURN_IF_ERROR(CheckCount("defaults.chat_template", message.chat_template().size(),
                                    kMaxDefaultTemplateBytes, "bytes"));
  auto defaults = std::make_shared<AdapterDefaults>();
  defaults->message = message;
  if (!message.chat_template().empty()) {
    StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(message.chat_template());
    if (!parsed.ok()) return BlameField("defaults.chat_template", parsed.status());
    defaults->chat_template = std::make_shared<const ChatTemplate>(*std::move(parsed));
  }
  return defaults;
}

Status CheckAdapterDefaults(const AdapterDefaults& defaults, const DecodeLimits& limits,
                            Engine& engine) {
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(0);
  FillInDefaults(defaults.message, request);
  const StatusOr<RequestSpec> spec = DecodeGenerate(request, limits);
  const Status status = spec.ok() ? engine.Check(*spec) : spec.status();
  if (!status.ok()) return BlameBeneath("defaults", status);
  return CheckChat(defaults, engine);
}

void FillInDefaults(const v1::AdapterDefaults& defaults, v1::GenerateRequest& request) {
  if (defaults.has_sampling()) FillIn(defaults.sampling(), *request.mutable_sampling());
  if (defaults.has_stopping()) FillInStopping(defaults.stopping(), *request.mutable_stopping());
  if (defaults.has_constraint() && !request.has_constraint()) {
    *request.mutable_constraint() = defaults.constraint();
  }
  if (!defaults.system_prompt().empty() && NeedsSystemPrompt(request.chat())) {
    LeadWith(defaults.system_prompt(), *request.mutable_chat());
  }
}

}  // namespace polyad
