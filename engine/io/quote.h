#pragma once

// Outside text made safe for an error message: quoted, at most 96 bytes of it, everything but
// printable ASCII escaped as \xNN. A tensor name or a key from a hostile file can then neither
// forge a log line nor break a UTF-8 status string.

#include <string>
#include <string_view>

namespace polyad {

std::string Quote(std::string_view text);  // 'q_proj\x0a' or 'aaaa...' (cut)

}  // namespace polyad
