#include "server/openai_served.h"

#include "server/json_text.h"

namespace polyad {

void AppendServed(const AdapterIdentity& adapter, const Timings& timings, std::string& out) {
  out += R"(,"adapter":{"name":)";
  AppendJsonString(adapter.name, out);
  out += R"(,"version":)";
  AppendJsonInt(adapter.version, out);
  out += R"(,"digest":)";
  AppendJsonString(adapter.digest, out);
  out += R"(},"timings":{"queue_ms":)";
  AppendJsonNumber(timings.queue_ms, out);
  out += R"(,"adapter_wait_ms":)";
  AppendJsonNumber(timings.adapter_wait_ms, out);
  out += R"(,"prefill_ms":)";
  AppendJsonNumber(timings.prefill_ms, out);
  out += R"(,"decode_ms":)";
  AppendJsonNumber(timings.decode_ms, out);
  out += '}';
}

}  // namespace polyad
