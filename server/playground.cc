#include "server/playground.h"

#include "absl/strings/escaping.h"
#include "engine/base/digest.h"

namespace polyad {
namespace {

// 'sha256-...' of what is between <tag> and </tag>, of which the page has one.
std::string SourceOf(std::string_view tag) {
  const std::string_view page = PlaygroundPage();
  const std::string open = "<" + std::string(tag) + ">";
  const size_t begin = page.find(open) + open.size();
  const size_t end = page.find("</" + std::string(tag) + ">");
  Sha256 hash;
  hash.Update(page.substr(begin, end - begin));
  const Digest digest = hash.Finish();
  return "'sha256-" +
         absl::Base64Escape({reinterpret_cast<const char*>(digest.data()), digest.size()}) + "'";
}

}  // namespace

const std::string& PlaygroundPolicy() {
  static const std::string& policy = *new std::string(
      "default-src 'none'; connect-src 'self'; script-src " + SourceOf("script") + "; style-src " +
      SourceOf("style") + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
  return policy;
}

}  // namespace polyad
