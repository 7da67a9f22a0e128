#pragma once

// Text that remembers which of its bytes a user wrote. User bytes may never be recognised as
// control tokens, so the mark follows the text through templates and normalizers. Plain values; any
// thread. `marks` is either empty (all bytes are as `user` says) or has one entry per byte of
// `text`, 1 for a user's byte and 0 for the server's.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace polyad {

struct MarkedText {
  std::string text;
  std::string marks = {};
  bool user = false;

  bool IsUser(size_t index) const { return marks.empty() ? user : marks[index] != 0; }

  bool AnyUser(size_t begin, size_t end) const {
    if (begin >= end) return false;
    if (marks.empty()) return user;
    return std::find(marks.begin() + static_cast<std::ptrdiff_t>(begin),
                     marks.begin() + static_cast<std::ptrdiff_t>(end),
                     '\1') != marks.begin() + static_cast<std::ptrdiff_t>(end);
  }

  MarkedText Slice(size_t begin, size_t end) const {
    MarkedText slice{.text = text.substr(begin, end - begin), .marks = {}, .user = user};
    if (!marks.empty()) slice.marks = marks.substr(begin, end - begin);
    return slice;
  }

  // Appends text of one provenance; the marks become explicit once the two kinds mix.
  void Append(std::string_view more, bool more_is_user) {
    if (more.empty()) return;
    if (text.empty() && marks.empty()) user = more_is_user;
    if (marks.empty() && more_is_user != user) marks.assign(text.size(), user ? '\1' : '\0');
    if (!marks.empty()) marks.append(more.size(), more_is_user ? '\1' : '\0');
    text += more;
  }

  void Append(const MarkedText& more) {
    if (more.marks.empty()) return Append(more.text, more.user);
    if (marks.empty()) marks.assign(text.size(), user ? '\1' : '\0');
    text += more.text;
    marks += more.marks;
  }
};

}  // namespace polyad
