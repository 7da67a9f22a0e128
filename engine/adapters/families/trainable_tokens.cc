// Trainable tokens: rows that stand in the place of the embedding's, and of the head's where the
// file has them for it or it is tied. Lowers to EmbeddingRows and DenseRows. Source: zoo
// sections 4.1 and 10; peft 0.21.2, tuners/trainable_tokens.

#include <string_view>

#include "engine/adapters/base_replacements.h"
#include "engine/adapters/families/family.h"
#include "engine/adapters/peft_config.h"

namespace polyad {
namespace {

constexpr std::string_view kKeys[] = {"token_indices", "init_weights"};

}  // namespace

StatusOr<AdapterProgram> LowerTrainableTokens(AdapterSource& source,
                                              const LoweringContext& context) {
  POLYAD_ASSIGN_OR_RETURN(const OrderedJsonFields config, PeftConfigFields(source.config(), kKeys));
  const OrderedJson* indices = config.Find("token_indices");
  if (indices == nullptr)
    return InvalidArgument("adapter_config.json: key 'token_indices': missing");
  AdapterProgram program;
  POLYAD_RETURN_IF_ERROR(LowerTrainedTokens(source, context, *indices, program));
  return program;
}

}  // namespace polyad
