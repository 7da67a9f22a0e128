#include "tests/sim/memory_press.h"

#include <algorithm>

namespace polyad {

MemoryPress::MemoryPress(uint64_t seed, int64_t num_blocks, const Clock& clock)
    : dice_(seed + 1'000'003), clock_(clock) {
  const int64_t ratio = dice_.Between(1, 3);
  layout_.page_bytes = ratio * MemoryLedger::kPageBytes;
  layout_.block_stride = dice_.Between(8, 150) << 10;
  const auto pages = [this](int64_t blocks) {
    const int64_t bytes = blocks * layout_.block_stride;
    return (bytes + layout_.page_bytes - 1) / layout_.page_bytes;
  };
  max_request_blocks_ = dice_.Between(num_blocks / 2, num_blocks);
  layout_.num_fixed = pages(max_request_blocks_);
  const int64_t all = pages(num_blocks) + dice_.Below(3);
  memory_ = std::make_shared<MemoryLedger>(all * ratio, layout_.num_fixed * ratio, clock);
  last_present_ = layout_.num_fixed;
}

void MemoryPress::Act() {
  const int64_t most = memory_->max_adapter_pages();
  if (dice_.Chance(5)) memory_->SetAdapters(dice_.Between(0, most), dice_.Between(0, 2 * most));
  if (dice_.Chance(10)) {
    memory_->ShowColdestAdapter({clock_.NowMicros() - dice_.Below(20'000), 0, true});
  }
  if (!need_ && most > 0 && dice_.Chance(30)) need_.emplace(*memory_, dice_.Between(1, most));
  if (need_ && memory_->TakeForAdapters(need_->pages())) {
    placed_.push_back(std::make_unique<MemoryCharge>(memory_, need_->pages()));
    if (has_asked_) ++num_placed;
    StopWaiting();
  } else if (need_ && dice_.Chance(50)) {
    need_->AskKv();
    has_asked_ = true;
  } else if (dice_.Chance(10)) {
    StopWaiting();
  }
  if (!placed_.empty() && dice_.Chance(15)) placed_.pop_back();
}

void MemoryPress::StopWaiting() {
  need_.reset();
  has_asked_ = false;
}

std::string MemoryPress::Check(const EngineLoop& loop) {
  int64_t placed = 0;
  for (const auto& charge : placed_) placed += charge->pages();
  const MemoryLedger::Counts counts = memory_->counts();
  if (counts.adapters != placed) return "an adapter's pages are nobody's";
  if (counts.kv + counts.adapters + counts.free != counts.total) return "pages are lost";
  const EngineLoad load = loop.load();
  const EngineLoad::MemoryBytes& bytes = load.memory_bytes;
  if (bytes.kv < 0 || bytes.kv + bytes.prefix + bytes.adapters + bytes.free != bytes.total) {
    return "the load does not tell all memory";
  }
  const BlockPages& pages = loop.state().pool.pages();
  num_grown += std::max<int64_t>(pages.num_present() - last_present_, 0);
  num_given += std::max<int64_t>(last_present_ - pages.num_present(), 0);
  num_condemned += pages.num_condemned();
  last_present_ = pages.num_present();
  return "";
}

std::string MemoryPress::CheckEnd(EngineLoop& loop) {
  StopWaiting();
  const MemoryLedger::Counts counts = memory_->counts();
  const int64_t rest = counts.total - counts.kv_floor - counts.adapters;
  MemoryLedger::Need need(*memory_, rest);
  need.AskKv();
  loop.Step();
  if (!memory_->TakeForAdapters(rest)) return "K/V keeps what nothing needs";
  memory_->ReturnFromAdapters(rest);
  return Check(loop);
}

}  // namespace polyad
