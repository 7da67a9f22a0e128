#include "engine/runtime/share_memory.h"

#include <algorithm>
#include <vector>

#include "engine/runtime/swap_blocks.h"

namespace polyad {
namespace {

// Pages beyond what is needed that K/V keeps though nothing lies on them: a sequence that ends and
// one that begins need not go to the system twice.
constexpr int64_t kSparePages = 8;

// How often adapters are told what K/V would give: finding out looks at every page.
constexpr int64_t kShowEveryUs = 10'000;

class Sharing {
 public:
  Sharing(EngineState& state, StepRunner& runner, int64_t now_us)
      : state_(state),
        runner_(runner),
        memory_(*state.memory),
        layout_(state.limits.kv_layout),
        now_us_(now_us) {}

  void Run() {
    state_.pool.SetNow(now_us_);
    const int64_t demand = Demand();
    const MemoryLedger::Owed owed = memory_.OwedByKv();
    if (owed.pages > 0) {
      const int64_t given = GiveUp(OnPages(owed.pages));
      state_.pool.Condemn(std::max<int64_t>(OnPages(owed.forced) - given, 0));
    } else {
      state_.pool.Condemn(0);
      GiveUpSpare(demand);
      state_.pool.Grow(demand,
                       [this](int64_t pages) { return memory_.TakeForKv(pages * ratio()); });
      AskForMore(demand);
    }
    if (owed.pages > 0 || now_us_ >= state_.memory_shown_us + kShowEveryUs) Show();
  }

 private:
  // Of the ledger's pages in one of K/V's.
  int64_t ratio() const { return layout_.page_bytes / MemoryLedger::kPageBytes; }
  int64_t OnPages(int64_t of_ledger) const { return (of_ledger + ratio() - 1) / ratio(); }
  int64_t PagesOfLedger(int64_t blocks) const {
    return MemoryLedger::PagesFor(blocks * layout_.block_stride) + ratio();
  }

  // Blocks that sequences lack, and one more for each that runs.
  int64_t Demand() const {
    int64_t blocks = 0;
    int64_t places = state_.limits.scheduler.max_running;
    for (const auto& [id, sequence] : state_.sequences()) {
      if (!sequence->running) continue;
      blocks += sequence->blocks_for_all() - static_cast<int64_t>(sequence->blocks.size());
      blocks += sequence->num_caches();
      --places;
    }
    for (const auto& [id, sequence] : state_.sequences()) {
      if (places <= 0) break;
      if (sequence->running) continue;
      blocks += sequence->blocks_for_all() + sequence->num_caches();
      --places;
    }
    return std::min(blocks, state_.pool.num_blocks());
  }

  // Gives up to so many of K/V's pages back; how many there were.
  int64_t GiveUp(int64_t count) {
    std::vector<int64_t> pages = state_.pool.Shrink(count);
    if (pages.empty()) return 0;
    SaveEvicted(state_, runner_);
    std::sort(pages.begin(), pages.end());
    for (size_t begin = 0; begin < pages.size();) {
      size_t end = begin + 1;
      while (end < pages.size() && pages[end] == pages[end - 1] + 1) ++end;
      runner_.DiscardKv(pages[begin] * layout_.page_bytes,
                        (pages[end - 1] + 1) * layout_.page_bytes);
      begin = end;
    }
    const auto given = static_cast<int64_t>(pages.size());
    memory_.ReturnFromKv(given * ratio());
    return given;
  }

  void GiveUpSpare(int64_t demand) {
    const int64_t on_page = std::max<int64_t>(layout_.page_bytes / layout_.block_stride, 1);
    if (state_.pool.num_unused() <= demand + (kSparePages + 1) * on_page) return;
    const int64_t spare = state_.pool.pages().num_empty() - kSparePages -
                          (demand * layout_.block_stride) / layout_.page_bytes;
    if (spare > 0) GiveUp(spare);
  }

  // What cannot be had otherwise is asked for; what is colder than what would be evicted, too.
  void AskForMore(int64_t demand) {
    const int64_t lacking = demand - state_.pool.num_available();
    if (lacking > 0) return memory_.AskAdapters(PagesOfLedger(lacking));
    const int64_t to_evict = demand - state_.pool.num_unused();
    if (to_evict <= 0 || !memory_.AdaptersAreColderThan(Coldest())) return;
    memory_.AskAdapters(PagesOfLedger(to_evict));
  }

  MemoryLedger::Coldest Coldest() const {
    const BlockPages::Victim victim = state_.pool.pages().ColdestOne();
    const double tokens = static_cast<double>(MemoryLedger::kPageBytes * kBlockTokens) /
                          static_cast<double>(layout_.block_stride);
    return {victim.last_used_us, tokens * state_.swap_cost.us_per_token(), victim.any};
  }

  void Show() {
    state_.memory_shown_us = now_us_;
    memory_.ShowColdestKv(Coldest());
  }

  EngineState& state_;
  StepRunner& runner_;
  MemoryLedger& memory_;
  const BlockPages::Layout layout_;
  const int64_t now_us_;
};

}  // namespace

void ShareMemory(EngineState& state, StepRunner& runner, int64_t now_us) {
  if (state.memory != nullptr) Sharing(state, runner, now_us).Run();
}

}  // namespace polyad
