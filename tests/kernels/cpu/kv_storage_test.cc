#include "kernels/cpu/kv_storage.h"

#include <cmath>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/number_format.h"
#include "kernels/cpu/row_kernels.h"

namespace polyad::cpu {
namespace {

TEST(KvLayoutTest, EveryNumberOfAPageHasAPlaceOfItsOwn) {
  for (bool bf16 : {false, true}) {
    const KvLayout layout{bf16, 48};
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

struct Level {
  Isa isa;
  RowKernels kernels;
};

// Stores token 5 of block 3 for one layer and head of many; every number must be where the layout
// says, nothing else.
template <typename Stored>
void ExpectStored(const RowKernels& kernels, bool bf16, float (*widen)(Stored)) {
  const auto kv = *CpuKvStorage::Create({2, 3, 20}, 4, bf16);
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
    kernels.store_token({bf16, 20, 32, token}, k.data(), v.data(), page);
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

TEST(CpuKvStorageTest, StoresEachTokenWhereTheLayoutSays) {
  const Level levels[] = {{Isa::kScalar, scalar::MakeRowKernels()},
                          {Isa::kAvx2, avx2::MakeRowKernels()},
                          {Isa::kAvx512, avx512::MakeRowKernels()}};
  for (const Level& level : levels) {
    if (level.isa > BestIsa()) continue;
    ExpectStored<uint16_t>(level.kernels, true, FromBf16);
    ExpectStored<float>(level.kernels, false, [](float value) { return value; });
  }
}

TEST(CpuKvStorageTest, RefusesWhatTheMachineCannotHoldWithoutOverflowing) {
  const int64_t huge = int64_t{1} << 60;
  EXPECT_EQ(CpuKvStorage::Create({64, 64, 128}, huge, true).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CpuKvStorage::Create({1 << 20, 1 << 20, 1 << 20}, 1, true).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CpuKvStorage::Create({0, 1, 1}, 1, true).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CpuKvStorage::Create({1, 1, 1}, 0, true).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace polyad::cpu
