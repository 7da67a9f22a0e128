#include "kernels/cpu/sign_layout.h"

#include <algorithm>

#include "kernels/api/round_up.h"
#include "kernels/cpu/packed_memory.h"

namespace polyad::cpu {
namespace {

// Bits [first, first + count) of a row of words, count <= 32.
uint32_t BitsAt(std::span<const uint32_t> row, int64_t first, int64_t count) {
  if (count <= 0) return 0;
  const auto word = static_cast<size_t>(first / 32);
  uint64_t bits = row[word];
  if (word + 1 < row.size()) bits |= static_cast<uint64_t>(row[word + 1]) << 32;
  bits >>= first % 32;
  return static_cast<uint32_t>(bits & ((uint64_t{1} << count) - 1));
}

}  // namespace

SignLayout::SignLayout(const SignBits& op, const SignLevel& level)
    : level_(level),
      out_(op.out),
      groups_(op.groups),
      group_inputs_(op.in / op.groups),
      group_words_((group_inputs_ + level.inputs_per_word - 1) / level.inputs_per_word),
      one_scale_(op.scale.size() == 1),
      word_bytes_(RoundUp(out_, level.lanes) * groups_ * group_words_ * 4) {}

absl::StatusOr<SignLayout> SignLayout::Make(const SignBits& op, const SignLevel& level) {
  SignLayout layout(op, level);
  absl::StatusOr<std::shared_ptr<char>> memory = AllocatePacked(layout.word_bytes_);
  if (!memory.ok()) return memory.status();
  layout.words_ = *std::move(memory);
  layout.Fill(op);
  return layout;
}

void SignLayout::Fill(const SignBits& op) {
  auto* to = reinterpret_cast<uint32_t*>(words_.get());
  const int64_t row_words = (op.in + 31) / 32;
  const int64_t panel = level_.lanes * kSignPanel;
  for (int64_t first = 0; first < out_; first += panel) {
    const int64_t width = std::min(panel, RoundUp(out_ - first, level_.lanes));
    const auto row_of = [&](int64_t lane) {
      return op.bits.subspan(static_cast<size_t>((first + lane) * row_words),
                             static_cast<size_t>(row_words));
    };
    for (int64_t group = 0; group < groups_; ++group) {
      for (int64_t word = 0; word < group_words_; ++word) {
        const int64_t begin = word * level_.inputs_per_word;
        const int64_t count = std::min(level_.inputs_per_word, group_inputs_ - begin);
        for (int64_t lane = 0; lane < width; ++lane) {
          const bool is_output = first + lane < out_;
          *to++ = is_output ? BitsAt(row_of(lane), group * group_inputs_ + begin, count) : 0;
        }
      }
      for (int64_t lane = 0; lane < width && !one_scale_; ++lane) {
        const int64_t at = (first + lane) * groups_ + group;
        scale_.push_back(first + lane < out_ ? op.scale[static_cast<size_t>(at)] : 0.0f);
      }
    }
  }
  if (one_scale_) scale_ = {op.scale[0]};
}

SignPanels SignLayout::slice(int64_t slice, int64_t slices, int64_t* first) const {
  const int64_t width = level_.lanes * kSignPanel;
  const int64_t num_panels = (out_ + width - 1) / width;
  const int64_t begin = std::min(out_, num_panels * slice / slices * width);
  const int64_t end = std::min(out_, num_panels * (slice + 1) / slices * width);
  *first = begin;
  SignPanels panels;
  panels.words = reinterpret_cast<const uint32_t*>(words_.get()) + begin * groups_ * group_words_;
  panels.scale = scale_.data() + (one_scale_ ? 0 : begin * groups_);
  panels.scale_stride = one_scale_ ? 0 : 1;
  panels.out = end - begin;
  panels.groups = groups_;
  panels.group_words = group_words_;
  panels.group_inputs = group_inputs_;
  return panels;
}

int64_t SignLayout::table_bytes() const {
  return groups_ * group_words_ * level_.table_entries_per_word *
         static_cast<int64_t>(sizeof(int32_t));
}

}  // namespace polyad::cpu
