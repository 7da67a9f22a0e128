#pragma once

// The page that HTTP serves at "/", as server/playground.html has it: one file, nothing from
// elsewhere. It has no data of its own; what it shows it asks for with the key that its user gives,
// from the routes that any client has. Any thread.

#include <string>
#include <string_view>

namespace polyad {

std::string_view PlaygroundPage();
// A Content-Security-Policy (https://www.w3.org/TR/CSP3/) under which the page's own style and
// script run, told by their SHA-256, nothing else does, and nothing but this server is asked.
const std::string& PlaygroundPolicy();

}  // namespace polyad
