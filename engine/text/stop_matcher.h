#pragma once

// Finds stop strings in a stream of text, holding back just the text that may be the start of one.
// The result does not depend on how the text was cut: the stop that is complete first wins (of
// several at one place the longest). Text in and out is whole UTF-8 characters. One per stream, one
// thread. The caller bounds the stops (16 of 64 bytes).

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace polyad {

class StopMatcher {
 public:
  struct Result {
    std::string text;               // safe to deliver now
    std::optional<int> stop_index;  // set once: which stop ended the text
  };

  // include_stop: the stop string itself is delivered too. Empty stops never match.
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  // After a match, everything more is dropped.
  Result Push(std::string_view text);

  // The text held back, at the end of a stream without a match.
  std::string Flush();

 private:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int index = 0;
  };
  std::optional<Match> FirstMatch() const;
  size_t HeldBytes() const;

  std::vector<std::string> stops_;
  bool include_stop_;
  bool stopped_ = false;
  std::string pending_;
};

}  // namespace polyad
