#pragma once

// From configuration to a running engine, as serve and generate do it. Errors are the engine's.

#include <memory>

#include "engine/engine.h"
#include "server/command.h"
#include "server/config.h"
#include "server/request_codec.h"

namespace polyad {

// `clock` and `observer` (which may be null) outlive the engine.
StatusOr<std::unique_ptr<Engine>> MakeEngine(const ServerConfig& config, BackendMaker make_backend,
                                             Clock& clock, EngineObserver* observer);
// Loads every --adapter NAME=PATH.
Status LoadNamedAdapters(const ServerConfig& config, Engine& engine);
DecodeLimits LimitsOf(const ServerConfig& config, const Engine& engine);

}  // namespace polyad
