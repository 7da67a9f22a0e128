#include "engine/runtime/scheduler.h"

#include <algorithm>

#include "engine/base/check.h"

namespace polyad {
namespace {

bool Expired(const SequenceView& sequence, int64_t now_us) {
  return sequence.deadline_us > 0 && now_us >= sequence.deadline_us;
}

// Who keeps its blocks when there are too few: higher priority, then older.
bool Precedes(const SequenceView* a, const SequenceView* b) {
  return a->priority != b->priority ? a->priority > b->priority : a->id < b->id;
}

class Planner {
 public:
  explicit Planner(const SchedulerView& view)
      : view_(view),
        available_(view.available_blocks),
        token_budget_(view.limits.max_step_tokens),
        restore_budget_(view.limits.max_restored_blocks),
        scoring_budget_(view.limits.max_sample_rows - view.limits.max_running),
        served_(view.tenant_served) {}

  StepPlan Make() {
    Expire();
    GiveBlocks();
    RunDecodes();
    RunPrefills();
    Admit();
    return std::move(plan_);
  }

 private:
  void Expire() {
    for (const SequenceView& sequence : view_.running) {
      if (Expired(sequence, view_.now_us)) {
        plan_.expirations.push_back(sequence.id);
        available_ += sequence.exclusive_blocks;
        expired_blocks_ += sequence.exclusive_blocks;
      } else {
        survivors_.push_back(&sequence);
      }
    }
    std::sort(survivors_.begin(), survivors_.end(), Precedes);
    for (const SequenceView& sequence : view_.waiting) {
      if (Expired(sequence, view_.now_us)) {
        plan_.expirations.push_back(sequence.id);
      } else {
        waiting_.push_back(&sequence);
      }
    }
  }

  // Capacity first: whoever stays has room for all the tokens it knows.
  void GiveBlocks() {
    for (size_t i = 0; i < survivors_.size(); ++i) {
      const int64_t need = survivors_[i]->blocks_for_all() - survivors_[i]->num_blocks;
      while (need > available_ && i < survivors_.size()) {
        const SequenceView& victim = *survivors_.back();
        plan_.preemptions.push_back(victim.id);
        available_ += victim.exclusive_blocks;
        survivors_.pop_back();
      }
      if (i < survivors_.size()) available_ -= need;
    }
  }

  void RunDecodes() {
    for (const SequenceView* sequence : survivors_) {
      if (sequence->num_tokens - sequence->num_computed == 1)
        Run(*sequence, sequence->num_computed);
    }
  }

  void RunPrefills() {
    std::vector<const SequenceView*> prefills;
    for (const SequenceView* sequence : survivors_) {
      if (sequence->num_tokens - sequence->num_computed > 1) prefills.push_back(sequence);
    }
    std::stable_sort(
        prefills.begin(), prefills.end(),
        [this](const SequenceView* a, const SequenceView* b) { return GoesFirst(*a, *b); });
    for (const SequenceView* sequence : prefills) Run(*sequence, sequence->num_computed);
  }

  void Admit() {
    if (!plan_.preemptions.empty()) return;  // the blocks just freed are owed to those who stayed
    auto num_running = static_cast<int64_t>(survivors_.size());
    while (!waiting_.empty() && num_running < view_.limits.max_running && token_budget_ > 0) {
      const auto next = std::min_element(
          waiting_.begin(), waiting_.end(),
          [this](const SequenceView* a, const SequenceView* b) { return GoesFirst(*a, *b); });
      const SequenceView& sequence = **next;
      const int64_t fresh = sequence.blocks_for_all() - sequence.cached_blocks;
      const int64_t taken = fresh + sequence.unheld_cached_blocks;
      if (taken > available_ - expired_blocks_ - Headroom(num_running)) return;
      const int64_t spilled = std::min(sequence.spilled_blocks, restore_budget_);
      if (!Run(sequence, (sequence.cached_blocks + spilled) * kBlockTokens)) return;
      available_ -= taken;
      restore_budget_ -= spilled;
      plan_.admissions.push_back({sequence.id, sequence.cached_blocks, spilled});
      ++num_running;
      waiting_.erase(next);
    }
  }

  // Blocks left free for the running to grow into, so that admitting one does not preempt another
  // at once.
  int64_t Headroom(int64_t num_running) const {
    return std::min(num_running, view_.num_blocks / 32);
  }

  bool GoesFirst(const SequenceView& a, const SequenceView& b) const {
    if (a.priority != b.priority) return a.priority > b.priority;
    const int64_t served_a = served_[static_cast<size_t>(a.tenant)];
    const int64_t served_b = served_[static_cast<size_t>(b.tenant)];
    return served_a != served_b ? served_a < served_b : a.id < b.id;
  }

  // Plans as many tokens from `first` on as the budgets allow, or all that must run together; false
  // where that is none.
  bool Run(const SequenceView& sequence, int64_t first) {
    int64_t end = first + std::min(sequence.num_tokens - first, token_budget_);
    if (sequence.whole_until > 0) {
      const int64_t whole_end = std::max(sequence.whole_until, first + 1);
      if (end < whole_end) return false;
      end = whole_end;
    }
    const int64_t scored_begin = std::max(first, sequence.first_logits);
    const bool scores_prompt = sequence.first_logits < sequence.num_tokens - 1;
    if (scores_prompt) {
      if (sequence.whole_until > 0 && end > scored_begin + scoring_budget_) return false;
      end = std::min(end, scored_begin + scoring_budget_);
      scoring_budget_ -= std::max<int64_t>(0, end - scored_begin);
    }
    if (end <= first) return false;
    token_budget_ -= end - first;
    served_[static_cast<size_t>(sequence.tenant)] += (end - first) * sequence.token_cost;
    plan_.work.push_back({sequence.id, first, end - first});
    return true;
  }

  const SchedulerView& view_;
  StepPlan plan_;
  std::vector<const SequenceView*> survivors_;  // running, neither expired nor preempted
  std::vector<const SequenceView*> waiting_;
  int64_t available_;
  // Freed by this plan's expirations: the cached prefix of a waiting sequence may be among them and
  // was counted as held by another, so admissions leave them for the next step.
  int64_t expired_blocks_ = 0;
  int64_t token_budget_;
  int64_t restore_budget_;
  int64_t scoring_budget_;  // rows of prompt logits; every running sequence keeps a row for its own
                            // next token
  std::vector<int64_t> served_;
};

}  // namespace

StepPlan Plan(const SchedulerView& view) {
  POLYAD_CHECK(view.limits.max_step_tokens >= view.limits.max_running, "every decode fits a step");
  POLYAD_CHECK(view.limits.max_sample_rows > view.limits.max_running, "a prompt can be scored");
  return Planner(view).Make();
}

}  // namespace polyad
