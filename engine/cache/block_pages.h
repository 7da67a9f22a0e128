#pragma once

// Which pages of memory the K/V blocks of a pool lie on, where memory comes and goes by the page:
// block b takes bytes [b * stride, (b + 1) * stride), pages have a size of their own, so a block
// may lie on several pages and a page under several blocks. Counts what the pool tells it of its
// blocks, page by page. The first pages are there for good. A pool whose memory is all there has no
// pages at all. Engine thread only.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace polyad {

class BlockPages {
 public:
  struct Layout {
    int64_t block_stride = 0;  // bytes
    int64_t page_bytes = 0;    // 0: memory does not come and go
    int64_t num_fixed = 0;     // pages that are there for good, the first ones
  };
  BlockPages(int64_t num_blocks, const Layout& layout);

  struct Range {
    int64_t begin = 0;
    int64_t end = 0;
  };
  Range PagesOf(int64_t block) const;  // that it lies on, partly too
  Range BlocksOf(int64_t page) const;  // that lie on it, partly too
  bool IsUsable(int64_t block) const;  // its pages are there and not condemned
  bool any() const { return !pages_.empty(); }
  int64_t num_pages() const { return static_cast<int64_t>(pages_.size()); }
  int64_t num_present() const { return num_present_; }
  bool IsPresent(int64_t page) const { return At(page).present; }

  // What becomes of a block: held by somebody, cached for nobody.
  void CountHeld(int64_t block, int64_t change);
  void CountCached(int64_t block, int64_t change, bool is_soft_prompt);
  void Touch(int64_t block, int64_t now_us);  // it entered the cache

  // Absent pages of the lowest block that lacks some; empty: every block has its pages.
  std::vector<int64_t> NextToBring();
  void Bring(int64_t page);
  void Drop(int64_t page);  // CHECK: nothing is held or cached there

  // Pages that could be given up, with nothing held on them: condemned first, then empty ones, then
  // those whose blocks entered the cache longest ago; soft prompts last. At most `count`.
  std::vector<int64_t> Coldest(int64_t count) const;
  // Whether there is one, and when it was last used.
  struct Victim {
    int64_t last_used_us = 0;
    bool any = false;
  };
  Victim ColdestOne() const;
  int64_t num_empty() const;  // present but for good, with nothing on them

  // Makes the last `count` present pages such that their blocks are used no more once they are let
  // go; fewer than before pardons some. The pages that changed.
  std::vector<int64_t> Condemn(int64_t count);
  int64_t num_condemned() const { return num_condemned_; }

  void CheckInvariants() const;

 private:
  struct Page {
    bool present = false;
    bool condemned = false;
    int32_t num_held = 0;
    int32_t num_cached = 0;
    int32_t num_soft_prompt = 0;  // of the cached
    int64_t last_used_us = 0;
  };
  Page& At(int64_t page) { return pages_[static_cast<size_t>(page)]; }
  const Page& At(int64_t page) const { return pages_[static_cast<size_t>(page)]; }
  bool MayGo(const Page& page) const { return page.present && page.num_held == 0; }

  const Layout layout_;
  const int64_t num_blocks_;
  std::vector<Page> pages_;
  int64_t num_present_ = 0;
  int64_t num_condemned_ = 0;
  int64_t first_absent_ = 0;  // every page before it is present
};

}  // namespace polyad
