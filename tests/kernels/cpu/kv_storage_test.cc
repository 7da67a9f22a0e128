#include "kernels/cpu/kv_storage.h"

#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/number_format.h"

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

TEST(CpuKvStorageTest, StoresEachTokenWhereItsLayerHeadAndSlotSay) {
  const auto kv = *CpuKvStorage::Create({2, 3, 20}, 4, /*bf16=*/true);
  EXPECT_EQ(kv->layout().padded_dim, 32);
  EXPECT_EQ(kv->bytes(), 2 * 3 * 4 * (2 * 32 * kBlock * 2));
  std::vector<float> k(20);
  std::vector<float> v(20);
  for (size_t d = 0; d < 20; ++d) {
    k[d] = static_cast<float>(d) + 1;
    v[d] = -static_cast<float>(d) - 1;
  }
  kv->StoreToken(1, 2, 3 * kBlock + 5, k.data(), v.data());
  const auto* page = reinterpret_cast<const uint16_t*>(kv->Page(1, 2) + 3 * kv->block_stride_bytes());
  double sum = 0;
  for (int64_t i = 0; i < kv->layout().page_values(); ++i) sum += std::abs(FromBf16(page[i]));
  EXPECT_EQ(sum, 2 * 210.0);
  for (int64_t d = 0; d < 20; ++d) {
    EXPECT_EQ(FromBf16(page[kv->layout().KIndex(5, d)]), k[static_cast<size_t>(d)]);
    EXPECT_EQ(FromBf16(page[kv->layout().VIndex(5, d)]), v[static_cast<size_t>(d)]);
  }
}

TEST(CpuKvStorageTest, RefusesWhatTheMachineCannotHoldWithoutOverflowing) {
  const int64_t huge = int64_t{1} << 60;
  EXPECT_EQ(CpuKvStorage::Create({64, 64, 128}, huge, true).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CpuKvStorage::Create({1 << 20, 1 << 20, 1 << 20}, 1, true).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CpuKvStorage::Create({0, 1, 1}, 1, true).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CpuKvStorage::Create({1, 1, 1}, 0, true).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace polyad::cpu
