#pragma once

// The filters, tests and methods that chat templates may use, by name; anything else does not exist
// here. Each is a pure function of its arguments; what it allocates and scans is charged to the
// rendering's heap.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/chat_value.h"

namespace polyad {

struct ChatArgs {
  std::vector<ChatValue> positional;
  std::vector<std::pair<std::string, ChatValue>> named;

  // The argument at a position or by its name; null if absent.
  const ChatValue* Get(size_t index, std::string_view name) const;
};

bool IsChatFilter(std::string_view name);
bool IsChatTest(std::string_view name);

StatusOr<ChatValue> ApplyChatFilter(ChatHeap* heap, const std::string& name, const ChatValue& value,
                                    const ChatArgs& args);
StatusOr<bool> ApplyChatTest(const std::string& name, const ChatValue& value, const ChatArgs& args);
StatusOr<ChatValue> CallChatMethod(ChatHeap* heap, const ChatValue& object, const std::string& name,
                                   const ChatArgs& args);

// object.name; undefined if there is none, an error if the object itself is undefined.
StatusOr<ChatValue> GetChatAttribute(ChatHeap* heap, const ChatValue& object,
                                     std::string_view name);

// The items that a for loop visits: a list's, a dict's keys, a string's characters, none of
// undefined.
StatusOr<ChatValue> ChatItems(ChatHeap* heap, const ChatValue& value);

// a < b for numbers and for strings.
StatusOr<bool> ChatLess(const ChatValue& a, const ChatValue& b);
StatusOr<bool> ChatContains(ChatHeap* heap, const ChatValue& container, const ChatValue& item);

}  // namespace polyad
