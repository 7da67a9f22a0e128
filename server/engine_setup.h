#pragma once

// From configuration to a running engine, as serve and generate do it. Errors are the engine's.

#include <memory>

#include "engine/engine.h"
#include "server/adapter_registry.h"
#include "server/command.h"
#include "server/config.h"
#include "server/request_codec.h"

namespace polyad {

// Of threads that load adapters. A load beside a busy engine gets a sixth of a core (the
// scheduler's weights are 215 and 1024): enough for 35 ms of work in 200 ms, too little for a step
// on two cores to feel it.
inline constexpr int kLoaderNiceness = 7;

// `clock` and `observer` (which may be null) outlive the engine.
StatusOr<std::unique_ptr<Engine>> MakeEngine(const ServerConfig& config, BackendMaker make_backend,
                                             Clock& clock, EngineObserver* observer);
// Loads every --adapter NAME=PATH, but for names that a registry on disk has.
Status LoadNamedAdapters(const ServerConfig& config, Engine& engine);
// The registry of --state-dir, or one that ends with the process, with those adapters.
StatusOr<std::unique_ptr<AdapterRegistry>> OpenRegistry(const ServerConfig& config, Engine& engine);
DecodeLimits LimitsOf(const ServerConfig& config, const Engine& engine);

}  // namespace polyad
