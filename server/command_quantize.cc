#include <cstdio>

#include "engine/spec/quantize_model.h"
#include "server/command.h"
#include "server/field_error.h"

// `polyad quantize`: a floating-point model directory in 8 or 4 bits.

namespace polyad {
namespace {

constexpr char kUsage[] =
    "usage: polyad quantize --model DIR --out DIR [--bits 8|4] [--group N]\n\n"
    "Writes the model with its layers' matrices in 8 or 4 bits (default 4), a scale for each N\n"
    "inputs (default 32). Embeddings, head, norms and biases stay as they are. serve reads the\n"
    "result like any directory. No more than one tensor is held in memory.\n"
    "Exit codes: 0 success, 1 a file cannot be written, 2 bad flag, 3 model refused.\n";

StatusOr<QuantizeOptions> ParseOptions(const Arguments& args) {
  OwnFlags flags(args);
  QuantizeOptions options;
  options.model = flags.Take("model").value_or("");
  options.out = flags.Take("out").value_or("");
  POLYAD_ASSIGN_OR_RETURN(const int64_t bits, flags.TakeInt("bits", 4, 4, 8));
  options.bits = static_cast<int>(bits);
  POLYAD_ASSIGN_OR_RETURN(options.group, flags.TakeInt("group", 32, 16, 65536));
  if (!flags.rest().empty())
    return FieldError("flag", "--model, --out, --bits or --group", flags.rest().front());
  if (options.model.empty()) return InvalidArgument("model: expected --model DIR");
  if (options.out.empty()) return InvalidArgument("out: expected --out DIR");
  return options;
}

}  // namespace

int RunQuantize(const Arguments& args) {
  if (WantsHelp(args)) {
    std::fputs(kUsage, stdout);
    return kExitOk;
  }
  const auto options = ParseOptions(args);
  if (!options.ok()) return PrintError(options.status(), kExitUsage);
  const auto report = QuantizeModel(*options, ShowProgress);
  if (!report.ok()) {
    const bool write = report.status().code() == absl::StatusCode::kInternal;
    return PrintError(report.status(), write ? kExitFailed : kExitModel);
  }
  std::printf("%lld matrices in %d bits: %lld bytes from %lld, relative error %.4f\n",
              static_cast<long long>(report->num_matrices), options->bits,
              static_cast<long long>(report->bytes_after),
              static_cast<long long>(report->bytes_before), report->relative_error);
  return kExitOk;
}

}  // namespace polyad
