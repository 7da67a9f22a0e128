#include "engine/cache/block_pages.h"

#include <algorithm>
#include <tuple>

#include "engine/base/check.h"

namespace polyad {

BlockPages::BlockPages(int64_t num_blocks, const Layout& layout)
    : layout_(layout), num_blocks_(num_blocks) {
  if (layout.page_bytes == 0) return;
  POLYAD_CHECK(layout.block_stride > 0 && layout.num_fixed >= 0, "a layout of blocks on pages");
  const int64_t bytes = num_blocks * layout.block_stride;
  pages_.resize(static_cast<size_t>((bytes + layout.page_bytes - 1) / layout.page_bytes));
  POLYAD_CHECK(layout.num_fixed <= num_pages(), "pages for good are some of all");
  for (int64_t page = 0; page < layout.num_fixed; ++page) Bring(page);
}

BlockPages::Range BlockPages::PagesOf(int64_t block) const {
  if (pages_.empty()) return {};
  const int64_t begin = block * layout_.block_stride;
  return {begin / layout_.page_bytes, (begin + layout_.block_stride - 1) / layout_.page_bytes + 1};
}

BlockPages::Range BlockPages::BlocksOf(int64_t page) const {
  const int64_t begin = page * layout_.page_bytes;
  const int64_t end = (begin + layout_.page_bytes - 1) / layout_.block_stride + 1;
  return {begin / layout_.block_stride, std::min(end, num_blocks_)};
}

bool BlockPages::IsUsable(int64_t block) const {
  const Range range = PagesOf(block);
  for (int64_t page = range.begin; page < range.end; ++page) {
    if (!At(page).present || At(page).condemned) return false;
  }
  return true;
}

void BlockPages::CountHeld(int64_t block, int64_t change) {
  const Range range = PagesOf(block);
  for (int64_t page = range.begin; page < range.end; ++page) {
    At(page).num_held += static_cast<int32_t>(change);
  }
}

void BlockPages::CountCached(int64_t block, int64_t change, bool is_soft_prompt) {
  const Range range = PagesOf(block);
  for (int64_t page = range.begin; page < range.end; ++page) {
    At(page).num_cached += static_cast<int32_t>(change);
    if (is_soft_prompt) At(page).num_soft_prompt += static_cast<int32_t>(change);
  }
}

void BlockPages::Touch(int64_t block, int64_t now_us) {
  const Range range = PagesOf(block);
  for (int64_t page = range.begin; page < range.end; ++page) At(page).last_used_us = now_us;
}

std::vector<int64_t> BlockPages::NextToBring() {
  while (first_absent_ < num_pages() && At(first_absent_).present) ++first_absent_;
  std::vector<int64_t> absent;
  if (first_absent_ == num_pages()) return absent;
  const Range range = PagesOf(BlocksOf(first_absent_).begin);
  for (int64_t page = range.begin; page < range.end; ++page) {
    if (!At(page).present) absent.push_back(page);
  }
  return absent;
}

void BlockPages::Bring(int64_t page) {
  POLYAD_CHECK(!At(page).present, "a page comes once");
  At(page).present = true;
  ++num_present_;
}

void BlockPages::Drop(int64_t page) {
  Page& dropped = At(page);
  POLYAD_CHECK(page >= layout_.num_fixed && dropped.present, "a page that may go");
  POLYAD_CHECK(dropped.num_held == 0 && dropped.num_cached == 0, "nothing lies on it any more");
  if (dropped.condemned) --num_condemned_;
  dropped = {};
  --num_present_;
  first_absent_ = std::min(first_absent_, page);
}

std::vector<int64_t> BlockPages::Coldest(int64_t count) const {
  std::vector<int64_t> may_go;
  for (int64_t page = layout_.num_fixed; page < num_pages(); ++page) {
    if (MayGo(At(page))) may_go.push_back(page);
  }
  const auto first = static_cast<size_t>(std::min(count, static_cast<int64_t>(may_go.size())));
  const auto rank = [this](int64_t page) {
    const Page& one = At(page);
    return std::tuple(!one.condemned, one.num_cached > 0, one.num_soft_prompt > 0,
                      one.num_cached > 0 ? one.last_used_us : 0, -page);
  };
  std::partial_sort(may_go.begin(), may_go.begin() + static_cast<std::ptrdiff_t>(first),
                    may_go.end(), [&](int64_t a, int64_t b) { return rank(a) < rank(b); });
  may_go.resize(first);
  return may_go;
}

BlockPages::Victim BlockPages::ColdestOne() const {
  const std::vector<int64_t> coldest = Coldest(1);
  if (coldest.empty()) return {};
  const Page& page = At(coldest.front());
  return {page.num_cached > 0 ? page.last_used_us : 0, true};
}

int64_t BlockPages::num_empty() const {
  return std::count_if(pages_.begin() + static_cast<std::ptrdiff_t>(layout_.num_fixed),
                       pages_.end(),
                       [this](const Page& page) { return MayGo(page) && page.num_cached == 0; });
}

std::vector<int64_t> BlockPages::Condemn(int64_t count) {
  std::vector<int64_t> changed;
  int64_t left = count;
  for (int64_t page = num_pages() - 1; page >= layout_.num_fixed; --page) {
    if (!At(page).present) continue;
    const bool condemned = left > 0;
    left -= condemned ? 1 : 0;
    if (At(page).condemned == condemned) continue;
    At(page).condemned = condemned;
    num_condemned_ += condemned ? 1 : -1;
    changed.push_back(page);
  }
  return changed;
}

void BlockPages::CheckInvariants() const {
  int64_t present = 0;
  int64_t condemned = 0;
  for (int64_t page = 0; page < num_pages(); ++page) {
    const Page& one = At(page);
    if (one.present) ++present;
    if (one.condemned) ++condemned;
    POLYAD_CHECK(one.present || page >= first_absent_, "absent pages come after the first");
    POLYAD_CHECK(one.present || page >= layout_.num_fixed, "what is there for good is there");
    POLYAD_CHECK(one.present || (one.num_held == 0 && one.num_cached == 0 && !one.condemned),
                 "nothing lies on an absent page");
    POLYAD_CHECK(
        one.num_held >= 0 && one.num_cached >= one.num_soft_prompt && one.num_soft_prompt >= 0,
        "what lies on a page is counted");
  }
  POLYAD_CHECK(present == num_present_ && condemned == num_condemned_, "pages are counted");
}

}  // namespace polyad
