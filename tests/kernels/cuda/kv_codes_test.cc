// K/V pages of codes on the emulated device: what is stored is what kernels/api/kv_codes.h says,
// code for code, as the reference spells it out; other tokens' bytes stay as they were.

#include "kernels/api/kv_codes.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/kv_pool.h"
#include "kernels/reference/kv_codes.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/op_inputs.h"
#include "tests/kernels/simt/schedules.h"

namespace polyad::test {
namespace {

constexpr int64_t kHeads = 5;  // more than a block has warps
constexpr int64_t kRows = 4;

// A block's bytes as the groups of one token's k or v of one head.
std::vector<ref::CodedGroup> GroupsIn(const std::vector<char>& block, KvFormat format, int64_t dim,
                                      KvPart part, int64_t head, int token) {
  const int multiple = format == KvFormat::kInt4 ? 32 : 16;
  const int stride = static_cast<int>(dim + multiple - 1) / multiple * multiple;
  const cuda::CodePage layout = cuda::CodePageOf(format, stride, part);
  const auto* page = reinterpret_cast<const unsigned char*>(block.data()) +
                     head * cuda::CodedHeadBytes(format, stride);
  if (part == KvPart::kValue) page += cuda::CodePageOf(format, stride, KvPart::kKey).bytes;
  const auto* row = page + token * layout.row;
  const auto stored = static_cast<int>(format == KvFormat::kInt4 ? stride : dim);
  const auto group_size = static_cast<int>(GroupSizeOf(format, part));
  std::vector<ref::CodedGroup> groups;
  for (int col = 0; col < stored; ++col) {
    if (col % group_size == 0) {
      uint16_t numbers[2];
      const int group = col / group_size;
      std::memcpy(numbers, page + layout.scalings + (token * layout.groups + group) * 4, 4);
      groups.push_back({FromBf16Bits(numbers[0]), FromBf16Bits(numbers[1]), {}});
    }
    int code = row[col];
    if (format == KvFormat::kInt4) {
      code = row[col / 2] >> col % 2 * 4 & 15;
      if (part == KvPart::kKey) {
        const int fifths = page[layout.fifths + token * stride / 8 + col / 8];
        code |= (fifths >> col % 8 & 1) << 4;
      }
    }
    groups.back().codes.push_back(static_cast<uint8_t>(code));
  }
  return groups;
}

void ExpectSame(const std::vector<ref::CodedGroup>& got, const std::vector<ref::CodedGroup>& want,
                const std::string& where) {
  ASSERT_EQ(got.size(), want.size()) << where;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want[i].scale)) {
      EXPECT_TRUE(std::isnan(got[i].scale) && std::isnan(got[i].low)) << where;
    } else {
      EXPECT_EQ(got[i].scale, want[i].scale) << where << " group " << i;
      EXPECT_EQ(got[i].low, want[i].low) << where << " group " << i;
    }
    EXPECT_EQ(got[i].codes, want[i].codes) << where << " group " << i;
  }
}

// [k | v] rows: plain numbers, equal ones, one that is none, and ones that stand far out.
std::vector<float> AwkwardRows(int64_t width) {
  std::vector<float> rows = RandomValues(kRows * width, 4);
  const auto at = [&](int64_t row, int64_t col) -> float& {
    return rows[static_cast<size_t>(row * width + col)];
  };
  for (int64_t col = 0; col < width; ++col) at(1, col) = -0.37f;
  at(2, 3) = std::numeric_limits<float>::quiet_NaN();
  at(2, width - 1) = std::numeric_limits<float>::infinity();
  for (int64_t col = 0; col < width; col += 7) at(3, col) *= 1e4f;
  return rows;
}

void ExpectCodes(KvFormat format, int64_t dim, const simt::EmulatorOptions& options) {
  EmulatedBackend backend(ComputeMode::kAuto, options);
  const std::unique_ptr<KvStorage> kv = *backend.AllocateKv({1, kHeads, dim, format}, 2);
  std::vector<char> block(static_cast<size_t>(kv->block_bytes()), 0x55);
  kv->Restore(1, block);
  const int64_t width = 2 * kHeads * dim;
  FloatBuffer rows(kRows, width, AwkwardRows(width));
  const int32_t positions[kRows] = {};
  const int64_t slots[kRows] = {16, 31, 17, 20};
  QkvArgs args;
  args.qkv = rows.view();
  args.positions = positions;
  args.slots = slots;
  args.kv = kv.get();
  backend.RotateAndStore(args);
  ASSERT_EQ(backend.fault(), "");
  std::vector<char> stored(block.size());
  kv->Save(1, stored);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t head = 0; head < 2 * kHeads; ++head) {
      const KvPart part = head < kHeads ? KvPart::kKey : KvPart::kValue;
      const float* from = rows.view().Row(row) + head * dim;
      const auto token = static_cast<int>(slots[row] % kBlockTokens);
      ExpectSame(GroupsIn(stored, format, dim, part, head % kHeads, token),
                 ref::EncodeHead(format, part, {from, from + dim}),
                 std::string(NameOf(format)) + " of " + std::to_string(dim) + ", row " +
                     std::to_string(row) + ", head " + std::to_string(head));
      EXPECT_EQ(GroupsIn(stored, format, dim, part, head % kHeads, 9)[0].codes,
                GroupsIn(block, format, dim, part, head % kHeads, 9)[0].codes)
          << "a token that nobody stored";
    }
  }
}

TEST(KvCodesTest, EveryBackendStoresTheSameCodes) {
  for (const KvFormat format : {KvFormat::kInt8, KvFormat::kInt4}) {
    for (const int64_t dim : {16, 20, 64, 80, 96, 256}) ExpectCodes(format, dim, {});
  }
}

TEST(KvCodesTest, UnderEverySchedule) {
  for (const simt::EmulatorOptions& options : simt::Schedules()) {
    for (const KvFormat format : {KvFormat::kInt8, KvFormat::kInt4}) {
      ExpectCodes(format, 80, options);
    }
  }
}

TEST(KvCodesTest, PagesTakeAHalfAndAThirdOfBf16AndLittleMore) {
  EmulatedBackend backend(ComputeMode::kAuto, {});
  const auto bytes = [&](KvFormat format) { return *backend.KvBlockBytes({1, 1, 64, format}); };
  EXPECT_EQ(bytes(KvFormat::kBF16), 4096);
  EXPECT_EQ(bytes(KvFormat::kInt8), 2176);
  EXPECT_EQ(bytes(KvFormat::kInt4), 1344);
}

}  // namespace
}  // namespace polyad::test
