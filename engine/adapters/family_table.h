#pragma once

// Every family polyad serves, as one explicit table: the file format's name for it and the function
// that lowers it. Adding a family is one file under families/, one line in families.inc, one golden
// recipe and one row in docs/adapters.md.

#include <span>
#include <string_view>

#include "engine/adapters/adapter_program.h"
#include "engine/adapters/adapter_source.h"
#include "engine/adapters/lowering_context.h"
#include "engine/base/status.h"
#include "engine/spec/model_spec.h"

namespace polyad {

struct Family {
  std::string_view type;  // peft_type, or what AdapterHubType says
  // Takes the tensors it understands from the source and returns their ops. INVALID_ARGUMENT:
  // malformed; FAILED_PRECONDITION: made for another base; UNIMPLEMENTED: a known variant that is
  // not served.
  StatusOr<AdapterProgram> (*lower)(AdapterSource& source, const LoweringContext& context);
  AdapterFormat format = AdapterFormat::kPeft;
};

std::span<const Family> FamilyTable();

// Picks the family the config names, lowers, and refuses whatever was left unread or changes
// nothing.
StatusOr<AdapterProgram> LowerAdapter(AdapterSource& source, const LoweringContext& context);

}  // namespace polyad
