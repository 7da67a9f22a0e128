#pragma once

// What polyad's answers say beside OpenAI's fields: which adapter version served a request, and
// where its time went. Any thread.

#include <string>

#include "engine/request/token_event.h"

namespace polyad {

// Appends ,"adapter":{"name","version","digest"},"timings":{"queue_ms",...} to an open object.
void AppendServed(const AdapterIdentity& adapter, const Timings& timings, std::string& out);

}  // namespace polyad
