#pragma once

// The container's bottlenecks, and its ops beside whole sub-layers (docs/container.md): `bn` at a
// linear site, at an attention or MLP, or on the stream that enters the first layer; other linear
// ops beside a sub-layer, read from a tap as `bn` is; and `ts`, by which some tokens skip a
// sub-layer. Source: zoo sections 1.2, 5.5, 6 and 7.

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/zoo_container.h"
#include "engine/base/status.h"
#include "engine/spec/sites.h"
#include "kernels/api/delta_op.h"

namespace polyad {

// x += f(x) before the site, y += f(y) after it, or y += f(x) beside it.
Status LowerSiteBottleneck(const ContainerOp& op, SiteRef site, const SiteShape& shape,
                           AdapterProgram& program);

// At "L0.attn" or "L0.mlp": the stream takes f of a tap beside the sub-layer's own output.
Status LowerSubLayerBottleneck(const ContainerOp& op, const ModelSpec& spec,
                               AdapterProgram& program);

// Likewise: its output counts for the tokens that a router picks.
Status LowerTokenRouter(const ContainerOp& op, const ModelSpec& spec, AdapterProgram& program);

// At "embed": x += f(x), x the stream that enters the first layer.
Status LowerEmbeddingBottleneck(const ContainerOp& op, const ModelSpec& spec,
                                AdapterProgram& program);

// Any delta [hidden, hidden] in a bottleneck's place; its tap is the container op's.
Status AddSubLayerHook(const ContainerOp& op, const ModelSpec& spec, const DeltaOp& delta,
                       AdapterProgram& program);

}  // namespace polyad
