#pragma once

// Parts of the base that an adapter's file replaces outright, whatever its family: trained biases
// (`bias`), whole modules (`modules_to_save`), copies of the base that PEFT saves beside embeddings
// and heads (dropped where equal), and trained token rows. They stand under the base's own names,
// with or without "base_layer". Each lowers to its difference from the base. Loader thread.
// FAILED_PRECONDITION: another shape than the base's, so made for another one. Source: zoo
// sections 4.1 and 10.

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_source.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"
#include "engine/io/json.h"

namespace polyad {

// Takes every untaken tensor that has the name of one of the base's weights. Runs after the
// family's own lowering.
Status LowerReplacements(AdapterSource& source, const LoweringContext& context,
                         AdapterProgram& program);

// Takes every "<module>.trainable_tokens_delta": rows that are put in the place of the tokens that
// `indices` names, a list or a list for each module. A head tied to the embedding follows where the
// file says nothing of it.
Status LowerTrainedTokens(AdapterSource& source, const LoweringContext& context,
                          const OrderedJson& indices, AdapterProgram& program);

}  // namespace polyad
