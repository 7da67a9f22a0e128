#include "kernels/cpu/kv_storage.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/api/huge_pages.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/reference/kv_codes.h"

namespace polyad::cpu {
namespace {

TEST(KvLayoutTest, EveryNumberOfAPageHasAPlaceOfItsOwn) {
  for (KvFormat format : {KvFormat::kBF16, KvFormat::kF32}) {
    const KvLayout layout{format, 48};
    std::set<int64_t> places;
    for (int64_t token = 0; token < kBlock; ++token) {
      for (int64_t d = 0; d < 48; ++d) {
        places.insert(layout.KIndex(token, d));
        places.insert(layout.VIndex(token, d));
      }
    }
    EXPECT_EQ(static_cast<int64_t>(places.size()), layout.page_values());
    EXPECT_EQ(*places.begin(), 0);
    EXPECT_EQ(*places.rbegin(), layout.page_values() - 1);
  }
}

TEST(KvLayoutTest, EveryCodeOfAPageHasAPlaceOfItsOwnAndNoByteBelongsToTwoTokens) {
  for (KvFormat format : {KvFormat::kInt8, KvFormat::kInt4}) {
    const KvLayout layout = KvLayout::Of(format, 90);
    EXPECT_EQ(layout.padded_dim, 96);
    std::set<std::pair<int64_t, bool>> places;
    std::map<int64_t, int64_t> token_of;
    const auto put = [&](int64_t token, int64_t at, bool upper) {
      EXPECT_TRUE(places.insert({at, upper}).second);
      EXPECT_EQ(token_of.insert({at, token}).first->second, token);
    };
    for (int64_t token = 0; token < kBlock; ++token) {
      for (int64_t d = 0; d < layout.padded_dim; ++d) {
        put(token, layout.KCode(token, d), layout.KUpper(d));
        put(token, layout.VCode(token, d), layout.VUpper(d));
        const int64_t quad = d % 32 / 4;  // the fifth bits of eight dimensions share a byte
        if (layout.halves() && quad == 0) put(token, layout.KFifths(d) + token * 4 + d % 4, false);
      }
      const auto put_scaling = [&](int64_t at) {
        for (int64_t byte = 0; byte < 2; ++byte) {
          put(token, at + token * 2 + byte, false);
          put(token, at + 2 * kBlock + token * 2 + byte, false);
        }
      };
      for (int64_t i = 0; i < layout.NumGroups(KvPart::kKey); ++i) put_scaling(layout.KScales(i));
      for (int64_t i = 0; i < layout.NumGroups(KvPart::kValue); ++i) put_scaling(layout.VScales(i));
    }
    EXPECT_EQ(static_cast<int64_t>(token_of.size()), layout.page_bytes());
    EXPECT_EQ(token_of.begin()->first, 0);
    EXPECT_EQ(token_of.rbegin()->first, layout.page_bytes() - 1);
  }
}

// What docs/configuration.md promises of memory, at the head of the demo model.
TEST(KvLayoutTest, CodesTakeAHalfAndAThirdOfBf16AndLittleMore) {
  const int64_t bf16 = KvLayout::Of(KvFormat::kBF16, 64).page_bytes();
  EXPECT_EQ(bf16, 4096);
  EXPECT_EQ(KvLayout::Of(KvFormat::kInt8, 64).page_bytes(), 2176);
  EXPECT_EQ(KvLayout::Of(KvFormat::kInt4, 64).page_bytes(), 1344);
}

struct Level {
  Isa isa;
  RowKernels kernels;
};

// Stores token 5 of block 3 for one layer and head of many; every number must be where the layout
// says, nothing else.
template <typename Stored>
void ExpectStored(const RowKernels& kernels, KvFormat format, float (*widen)(Stored)) {
  const auto kv = *CpuKvStorage::Create({2, 3, 20, format}, 4);
  EXPECT_EQ(kv->layout().padded_dim, 32);
  EXPECT_EQ(kv->bytes(), static_cast<int64_t>(2 * 3 * 4 * (2 * 32 * kBlock * sizeof(Stored))));
  std::vector<float> k(20);
  std::vector<float> v(20);
  for (size_t d = 0; d < 20; ++d) {
    k[d] = static_cast<float>(d) + 1;
    v[d] = -static_cast<float>(d) - 1;
  }
  for (int64_t token : {4, 5}) {
    char* page = kv->Page(1, 2) + 3 * kv->block_stride_bytes();
    kernels.store_token({kv->layout(), 20, token}, k.data(), v.data(), page);
    const auto* values = reinterpret_cast<const Stored*>(page);
    for (int64_t d = 0; d < 20; ++d) {
      EXPECT_EQ(widen(values[kv->layout().KIndex(token, d)]), k[static_cast<size_t>(d)]);
      EXPECT_EQ(widen(values[kv->layout().VIndex(token, d)]), v[static_cast<size_t>(d)]);
    }
  }
  double sum = 0;
  const auto* all = reinterpret_cast<const Stored*>(kv->Page(0, 0));
  for (int64_t i = 0; i < 2 * 3 * 4 * kv->layout().page_values(); ++i)
    sum += std::abs(widen(all[i]));
  EXPECT_EQ(sum, 2 * 2 * 210.0);
}

std::vector<Level> Levels() {
  std::vector<Level> levels = {{Isa::kScalar, scalar::MakeRowKernels()},
                               {Isa::kAvx2, avx2::MakeRowKernels()},
                               {Isa::kAvx512, avx512::MakeRowKernels()}};
  std::erase_if(levels, [](const Level& level) { return level.isa > BestIsa(); });
  return levels;
}

TEST(CpuKvStorageTest, StoresEachTokenWhereTheLayoutSays) {
  for (const Level& level : Levels()) {
    ExpectStored<uint16_t>(level.kernels, KvFormat::kBF16, FromBf16);
    ExpectStored<float>(level.kernels, KvFormat::kF32, [](float value) { return value; });
  }
}

float Bf16At(const char* page, int64_t at) {
  uint16_t bits;
  std::memcpy(&bits, page + at, sizeof(bits));
  return FromBf16(bits);
}

int CodeAt(const KvLayout& layout, const char* page, int64_t at, bool upper) {
  const auto byte = static_cast<uint8_t>(page[at]);
  return !layout.halves() ? byte : upper ? byte >> 4 : byte & 15;
}

int FifthAt(const KvLayout& layout, const char* page, int64_t token, int64_t d) {
  if (!layout.halves()) return 0;
  const auto byte = static_cast<uint8_t>(page[layout.KFifths(d) + token * 4 + d % 4]);
  return byte >> (d % 32 / 4) & 1;
}

struct TokenHead {
  std::vector<float> k;
  std::vector<float> v;
};

// A token's k or v against the codes that the reference makes of it; code(d) is the stored one.
template <typename CodeOf>
void ExpectGroups(const std::vector<ref::CodedGroup>& want, const char* scaling, int64_t token,
                  CodeOf code) {
  int64_t d = 0;
  for (const ref::CodedGroup& group : want) {
    ASSERT_EQ(Bf16At(scaling, token * 2), group.scale);
    ASSERT_EQ(Bf16At(scaling, 2 * kBlock + token * 2), group.low);
    for (const uint8_t wanted : group.codes) ASSERT_EQ(code(d++), wanted);
    scaling += kLineBytes;
  }
}

void ExpectCodes(const KvLayout& layout, const char* page, int64_t token, const TokenHead& head) {
  const auto k_code = [&](int64_t d) {
    return CodeAt(layout, page, layout.KCode(token, d), layout.KUpper(d)) +
           16 * FifthAt(layout, page, token, d);
  };
  const auto v_code = [&](int64_t d) {
    return CodeAt(layout, page, layout.VCode(token, d), layout.VUpper(d));
  };
  ExpectGroups(ref::EncodeHead(layout.format, KvPart::kKey, head.k), page + layout.KScales(0),
               token, k_code);
  ExpectGroups(ref::EncodeHead(layout.format, KvPart::kValue, head.v), page + layout.VScales(0),
               token, v_code);
}

TEST(CpuKvStorageTest, CodesAreTheReferencesBitForBitAtEveryLevelWhateverIsStoredNext) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (KvFormat format : {KvFormat::kInt8, KvFormat::kInt4}) {
    for (int64_t head_dim : {8, 20, 64, 80, 128}) {
      const KvLayout layout = KvLayout::Of(format, head_dim);
      std::vector<TokenHead> heads(static_cast<size_t>(kBlock));
      for (size_t token = 0; token < heads.size(); ++token) {
        TokenHead& head = heads[token];
        for (int64_t d = 0; d < head_dim; ++d) {
          const float outlier = d % 7 == 3 ? 20.0f : 1.0f;
          head.k.push_back(token == 6 ? 1.5f : outlier * normal(random) + 3.0f);
          head.v.push_back(token == 7 ? 0.0f : 1e-3f * normal(random));
        }
      }
      for (const Level& level : Levels()) {
        std::vector<char> page(static_cast<size_t>(layout.page_bytes()), 0x5a);
        for (int64_t token : {15, 3, 0, 6, 7, 1, 2, 4, 5, 8, 14, 13, 12, 9, 11, 10}) {
          const TokenHead& head = heads[static_cast<size_t>(token)];
          level.kernels.store_token({layout, head_dim, token}, head.k.data(), head.v.data(),
                                    page.data());
        }
        for (int64_t token = 0; token < kBlock; ++token) {
          ExpectCodes(layout, page.data(), token, heads[static_cast<size_t>(token)]);
        }
      }
    }
  }
}

// A number is off by half a step of its group at most, and by nothing at the group's ends'
// roundings beyond.
TEST(CpuKvStorageTest, WhatIsReadLiesWithinHalfAStepOfWhatWasStored) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (KvFormat format : {KvFormat::kInt8, KvFormat::kInt4}) {
    for (KvPart part : {KvPart::kKey, KvPart::kValue}) {
      std::vector<float> head(64);
      for (float& value : head) value = 5.0f * normal(random) - 2.0f;
      const std::vector<double> stored = ref::StoredHead(format, part, head);
      double error = 0;
      double norm = 0;
      for (size_t i = 0; i < head.size(); ++i) {
        error += std::pow(stored[i] - static_cast<double>(head[i]), 2);
        norm += std::pow(static_cast<double>(head[i]), 2);
      }
      // Turning keeps the proportion of error to norm; the range of a group is at most twice its
      // norm, a step range / top, and rounding outwards widens it by less than 1 %.
      const auto top = static_cast<double>(TopCodeOf(format, part));
      const double half_step = 1.01 * std::sqrt(norm) / top;
      EXPECT_LE(std::sqrt(error), half_step * std::sqrt(64.0));
      EXPECT_GT(error, 0);
    }
  }
}

TEST(CpuKvStorageTest, ANumberThatIsNotFiniteMakesItsGroupNaN) {
  for (KvFormat format : {KvFormat::kInt8, KvFormat::kInt4}) {
    const KvLayout layout = KvLayout::Of(format, 64);
    for (float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      std::vector<float> head(64, 1.0f);
      head[40] = bad;
      for (const Level& level : Levels()) {
        std::vector<char> page(static_cast<size_t>(layout.page_bytes()));
        level.kernels.store_token({layout, 64, 2}, head.data(), head.data(), page.data());
        const int64_t k_group = 40 / layout.GroupSize(KvPart::kKey);
        EXPECT_TRUE(std::isnan(Bf16At(page.data(), layout.KScales(k_group) + 4)));
        EXPECT_TRUE(std::isnan(Bf16At(page.data(), layout.VScales(0) + 4)));
      }
      EXPECT_TRUE(std::isnan(ref::StoredHead(format, KvPart::kKey, head)[40]));
    }
  }
}

// Spilled and brought back into another block: every byte of every layer and head, codes, fifth
// bits and scaling alike, whatever was there.
TEST(CpuKvStorageTest, ABlockComesBackBitForBitIntoAnyBlock) {
  std::mt19937 random(5);
  for (const auto& [format, placement] : {std::pair(KvFormat::kBF16, KvPlacement::kByLayer),
                                          {KvFormat::kInt8, KvPlacement::kByLayer},
                                          {KvFormat::kInt4, KvPlacement::kByLayer},
                                          {KvFormat::kBF16, KvPlacement::kByBlock},
                                          {KvFormat::kInt4, KvPlacement::kByBlock}}) {
    const auto kv = *CpuKvStorage::Create({3, 2, 80, format, placement}, 4);
    ASSERT_EQ(kv->block_stride(), *CpuKvStorage::BlockBytes(kv->shape()));
    ASSERT_EQ(kv->bytes(), kv->num_blocks() * kv->block_stride());
    const auto each_page = [&](int64_t block, auto f) {
      for (int64_t layer = 0; layer < 3; ++layer) {
        for (int64_t head = 0; head < 2; ++head) {
          f(kv->Page(layer, head) + block * kv->block_stride_bytes());
        }
      }
    };
    const auto page_bytes = static_cast<size_t>(kv->page_bytes());
    for (int64_t block = 0; block < 4; ++block) {
      each_page(block, [&](char* page) {
        for (size_t i = 0; i < page_bytes; ++i) page[i] = static_cast<char>(random());
      });
    }
    std::vector<char> before;
    each_page(1, [&](char* page) { before.insert(before.end(), page, page + page_bytes); });
    std::vector<char> neighbour;
    each_page(3, [&](char* page) { neighbour.insert(neighbour.end(), page, page + page_bytes); });
    std::vector<char> saved(static_cast<size_t>(kv->block_bytes()));
    kv->Save(1, saved);
    each_page(1, [&](char* page) { std::memset(page, 0x7f, page_bytes); });
    kv->Restore(2, saved);
    std::vector<char> after;
    each_page(2, [&](char* page) { after.insert(after.end(), page, page + page_bytes); });
    EXPECT_EQ(after, before) << NameOf(format);
    after.clear();
    each_page(3, [&](char* page) { after.insert(after.end(), page, page + page_bytes); });
    EXPECT_EQ(after, neighbour) << NameOf(format);
  }
}

// Bytes of the storage that the system has given memory to.
int64_t ResidentBytes(const CpuKvStorage& kv) {
  constexpr int64_t kSmallPage = 4096;
  const int64_t num_pages = (kv.bytes() + kSmallPage - 1) / kSmallPage;
  std::vector<unsigned char> in_core(static_cast<size_t>(num_pages));
  EXPECT_EQ(mincore(kv.Page(0, 0), static_cast<size_t>(kv.bytes()), in_core.data()), 0);
  return kSmallPage * std::count_if(in_core.begin(), in_core.end(),
                                    [](unsigned char flags) { return (flags & 1) != 0; });
}

TEST(CpuKvStorageTest, PlacedByBlockMemoryComesWithTheFirstWriteAndGoesWithDiscard) {
  const auto kv = *CpuKvStorage::Create({8, 4, 64, KvFormat::kBF16, KvPlacement::kByBlock}, 64);
  EXPECT_EQ(kv->block_stride() % 4096, 0);
  EXPECT_GE(kv->block_stride(), kv->block_bytes());
  EXPECT_LE(kv->block_stride(), kv->block_bytes() + 16384);
  EXPECT_EQ(ResidentBytes(*kv), 0);
  std::vector<char> content(static_cast<size_t>(kv->block_bytes()), 'x');
  const int64_t in_second_page = kHugePage / kv->block_stride() + 1;
  kv->Restore(0, content);
  kv->Restore(in_second_page, content);
  EXPECT_GE(ResidentBytes(*kv), 2 * kv->block_bytes());
  EXPECT_LE(ResidentBytes(*kv), 2 * kHugePage);
  kv->Discard(kHugePage, 2 * kHugePage);
  EXPECT_LE(ResidentBytes(*kv), kHugePage);
  std::vector<char> saved(content.size());
  kv->Save(0, saved);
  EXPECT_EQ(saved, content);
  kv->Save(in_second_page, saved);
  EXPECT_EQ(saved, std::vector<char>(content.size(), 0));
}

// A head's pages of consecutive blocks must not all meet in the same sets of a cache.
TEST(CpuKvStorageTest, BlocksOfAPowerOfTwoLieASmallStepFurtherApart) {
  constexpr int64_t kWayBytes = 128 << 10;
  for (const int64_t num_layers : {16, 30, 32, 64}) {
    const KvShape shape{num_layers, 8, 64, KvFormat::kBF16, KvPlacement::kByBlock};
    KvShape by_layer = shape;
    by_layer.placement = KvPlacement::kByLayer;
    const int64_t stride = *CpuKvStorage::BlockBytes(shape);
    EXPECT_LE(stride, *CpuKvStorage::BlockBytes(by_layer) * 102 / 100);
    std::set<int64_t> places;
    for (int64_t block = 0; block < 32; ++block) places.insert(block * stride % kWayBytes);
    EXPECT_GE(places.size(), 8u) << num_layers;
  }
}

TEST(CpuKvStorageTest, RefusesWhatTheMachineCannotHoldWithoutOverflowing) {
  const int64_t huge = int64_t{1} << 60;
  const auto code_of = [](const KvShape& shape, int64_t num_blocks) {
    return CpuKvStorage::Create(shape, num_blocks).status().code();
  };
  EXPECT_EQ(code_of({64, 64, 128, KvFormat::kBF16}, huge), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code_of({1 << 20, 1 << 20, 1 << 20, KvFormat::kBF16}, 1),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of({1, 1, 1, KvFormat::kInt8}, 0), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace polyad::cpu
