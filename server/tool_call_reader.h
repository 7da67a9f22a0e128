#pragma once

// Reads the calls of tools out of a model's text as it comes (engine/base/tool_markup.h): what
// stands before, between and after them is content, without the white space around a call. A call
// is given once its end has come; what looks like one and is no JSON object with a name and
// arguments stays content. The same calls and content whatever pieces the text comes in. One
// choice, one thread.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace polyad {

struct MadeToolCall {
  std::string name;
  std::string arguments;  // a JSON object, written without white space
};

class ToolCallReader {
 public:
  struct Piece {
    std::string content;
    std::vector<MadeToolCall> calls;
  };
  // Calls after the first so many are left out.
  explicit ToolCallReader(int64_t max_calls) : max_calls_(max_calls) {}

  Piece Push(std::string_view text);
  Piece Flush();  // the end: what was begun and never ended is content
  int64_t num_calls() const { return num_calls_; }

 private:
  bool ReadContent(Piece& out);
  bool ReadCall(Piece& out);
  size_t EndOfCall();
  void Content(std::string_view text, Piece& out);

  const int64_t max_calls_;
  int64_t num_calls_ = 0;
  std::string buffer_;  // not yet given; where in_call_, from the opening mark on
  bool in_call_ = false;
  std::string gap_;  // white space before the call
  // Of a call: how far its end has been looked for, and whether that is within a JSON string.
  size_t scanned_ = 0;
  bool in_string_ = false;
  bool begun_ = false;  // some content has been given
};

}  // namespace polyad
