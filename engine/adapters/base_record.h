#pragma once

// Which base an adapter belongs to, where its directory says so: polyad_base.json beside the
// adapter's own files, {"weights_sha256": 64 hex digits, "name": what people call it}, written by
// tools/export/base_record.py. The digest is WeightsDigest's of the weights that the adapter's
// change is added to (engine/spec/weights_digest.h); over any others the adapter is refused. Loader
// thread.

#include <string>
#include <string_view>

#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"
#include "engine/io/file.h"

namespace polyad {

inline constexpr char kBaseRecord[] = "polyad_base.json";

// The digest in lower case.
StatusOr<std::string> ParseBaseRecord(std::string_view text);
// That of a directory; empty where it has no record.
StatusOr<std::string> ReadBaseRecord(const Directory& directory);

// FAILED_PRECONDITION where the base is another one than `digest` says, with `where` as the file
// that says it. An empty digest fits every base.
Status CheckBelongs(std::string_view where, const std::string& digest,
                    const LoweringContext& context);

}  // namespace polyad
