#include "engine/text/decoder_plan.h"

#include <utility>

#include "engine/text/utf8.h"

namespace polyad {

namespace {
constexpr size_t kMaxStages = 16;
constexpr int kMaxStrip = 1024;
}  // namespace

StatusOr<DecoderPlan> MakeDecoderPlan(std::vector<DecoderStage> stages) {
  if (stages.size() > kMaxStages) {
    return InvalidArgument("decoder: at most %d stages, got %d", kMaxStages, stages.size());
  }
  bool fused = false;
  for (DecoderStage& stage : stages) {
    stage.fused = fused;
    switch (stage.kind) {
      case DecoderStage::Kind::kByteLevel:
      case DecoderStage::Kind::kFuse:
        if (fused && stage.kind == DecoderStage::Kind::kByteLevel) {
          return Unimplemented("decoder: ByteLevel after Fuse");
        }
        fused = true;
        break;
      case DecoderStage::Kind::kByteFallback:
        if (fused) return Unimplemented("decoder: ByteFallback after Fuse");
        break;
      case DecoderStage::Kind::kReplace:
        if (stage.from.empty()) return InvalidArgument("decoder: Replace with an empty pattern");
        if (fused && CountUtf8Chars(stage.from) > 1) {
          return Unimplemented("decoder: Replace of several characters after Fuse");
        }
        break;
      case DecoderStage::Kind::kStrip:
      case DecoderStage::Kind::kMetaspace:
        if (CountUtf8Chars(stage.from) != 1) {
          return InvalidArgument("decoder: expected one character, got \"%s\"", stage.from);
        }
        if (stage.start < 0 || stage.stop < 0 || stage.start > kMaxStrip ||
            stage.stop > kMaxStrip) {
          return InvalidArgument("decoder: Strip: expected 0 to %d characters, got %d and %d",
                                 kMaxStrip, stage.start, stage.stop);
        }
        break;
      case DecoderStage::Kind::kJoinSpace:
        break;
    }
  }
  return DecoderPlan{.stages = std::move(stages)};
}

}  // namespace polyad
