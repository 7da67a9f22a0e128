#include "engine/runtime/scheduler.h"

#include <algorithm>

#include "engine/base/check.h"

namespace polyad {
namespace {

bool Expired(const SequenceView& sequence, int64_t now_us) {
  return sequence.deadline_us > 0 && now_us >= sequence.deadline_us;
}

// Who keeps its blocks when there are too few, of one tenant: higher priority, then older.
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
        tenants_(view.tenants.begin(), view.tenants.end()) {}

  StepPlan Make() {
    Expire();
    KeepToShares();
    MakePlace();
    GiveBlocks();
    MakeRoom();
    RunDecodes();
    RunPrefillsAndAdmit();
    return std::move(plan_);
  }

 private:
  struct Tenant : TenantView {
    explicit Tenant(const TenantView& view) : TenantView(view) {}
    int64_t num_running = 0;
    int64_t num_blocks = 0;  // of the running

    bool IsFull() const { return share.max_sequences > 0 && num_running >= share.max_sequences; }
    // One sequence may always run: intake refused what is larger than the share.
    bool HasRoomFor(int64_t blocks) const {
      return share.max_kv_blocks == 0 || num_running == 0 || blocks <= share.max_kv_blocks;
    }
    // For their weights.
    bool HoldsMoreBlocksThan(const Tenant& other) const {
      return num_blocks * other.share.weight > other.num_blocks * share.weight;
    }
  };
  Tenant& TenantOf(const SequenceView& sequence) {
    return tenants_[static_cast<size_t>(sequence.tenant)];
  }

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

  // A tenant whose sequences have grown over its blocks takes back those of its own that are last.
  void KeepToShares() {
    for (const SequenceView* sequence : survivors_) {
      ++TenantOf(*sequence).num_running;
      TenantOf(*sequence).num_blocks += sequence->blocks_held();
    }
    for (size_t i = survivors_.size(); i-- > 0;) {
      const SequenceView& sequence = *survivors_[i];
      Tenant& tenant = TenantOf(sequence);
      if (tenant.num_running == 1 || tenant.HasRoomFor(tenant.num_blocks)) continue;
      Preempt(sequence);
      expired_blocks_ += sequence.exclusive_blocks;
      survivors_.erase(survivors_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  // Where every place is taken, one for whoever goes first, from the tenant that holds most for its
  // weight. It would hold no fewer than the one that enters: so nothing goes back and forth.
  void MakePlace() {
    if (static_cast<int64_t>(survivors_.size()) < view_.limits.max_running) return;
    SkipThoseWithoutShare();
    const auto next = First(waiting_);
    if (next == waiting_.end()) return;
    const Tenant& entering = TenantOf(**next);
    size_t victim = survivors_.size();
    for (size_t i = survivors_.size(); i-- > 0;) {
      const Tenant& tenant = TenantOf(*survivors_[i]);
      const bool may = survivors_[i]->priority <= (*next)->priority &&
                       (tenant.num_running - 1) * entering.share.weight >=
                           (entering.num_running + 1) * tenant.share.weight;
      if (!may) continue;
      const bool holds_more = victim == survivors_.size() || HoldsMore(tenant, *survivors_[victim]);
      if (holds_more) victim = i;
    }
    if (victim == survivors_.size()) return;
    entrant_ = *next;
    expired_blocks_ += survivors_[victim]->exclusive_blocks;
    Preempt(*survivors_[victim]);
    survivors_.erase(survivors_.begin() + static_cast<std::ptrdiff_t>(victim));
  }
  // Whether `tenant` holds more places for its weight than the sequence's does.
  bool HoldsMore(const Tenant& tenant, const SequenceView& than) {
    const Tenant& other = TenantOf(than);
    return tenant.num_running * other.share.weight > other.num_running * tenant.share.weight;
  }

  void Preempt(const SequenceView& sequence) {
    plan_.preemptions.push_back(sequence.id);
    available_ += sequence.exclusive_blocks;
    --TenantOf(sequence).num_running;
    TenantOf(sequence).num_blocks -= sequence.blocks_held();
  }

  // Capacity first: whoever stays has room for all the tokens it knows.
  void GiveBlocks() {
    const auto need_of = [](const SequenceView& sequence) {
      return sequence.blocks_for_all() - sequence.num_blocks;
    };
    int64_t need = 0;
    for (const SequenceView* sequence : survivors_) need += need_of(*sequence);
    while (need > available_) {
      const auto victim = survivors_.begin() + static_cast<std::ptrdiff_t>(ToGiveWay());
      need -= need_of(**victim);
      Preempt(**victim);
      survivors_.erase(victim);
      is_short_ = true;
    }
    available_ -= need;
  }
  // Of the lowest priority, the youngest of the tenant that holds most blocks for its weight, or
  // else whoever came last would lose what it was made room for. A tenant keeps one that runs while
  // another has more of them.
  size_t ToGiveWay() {
    size_t victim = survivors_.size();
    for (size_t i = survivors_.size(); i-- > 0;) {
      if (survivors_[i]->priority != survivors_.back()->priority) break;
      const Tenant& tenant = TenantOf(*survivors_[i]);
      if (tenant.num_running < 2) continue;
      if (victim == survivors_.size() || tenant.HoldsMoreBlocksThan(TenantOf(*survivors_[victim])))
        victim = i;
    }
    return victim == survivors_.size() ? victim - 1 : victim;
  }

  // Where whoever goes first finds a place but too few blocks, they are taken from the tenants that
  // hold most for their weight, while those still hold no fewer for it than the one that enters.
  // That one holds nothing, or would hold at most half of what its weight gives it: the other half
  // comes as sequences end, for what is taken is computed again.
  void MakeRoom() {
    if (is_short_ || static_cast<int64_t>(survivors_.size()) >= view_.limits.max_running) return;
    num_running_ = static_cast<int64_t>(survivors_.size());
    const SequenceView* next = NextToAdmit();
    if (next == nullptr || TakenBy(*next) <= available_ - Headroom(num_running_)) return;
    const Tenant& entering = TenantOf(*next);
    const int64_t entering_blocks = entering.num_blocks + next->blocks_held();
    if (entering.num_running > 0 && 2 * entering_blocks > FairBlocks(entering)) return;
    const std::vector<Tenant> before = tenants_;
    std::vector<const SequenceView*> left = survivors_;
    std::vector<const SequenceView*> victims;
    int64_t missing = next->blocks_for_all() + Headroom(num_running_) - available_;
    while (missing > 0) {
      const auto victim = RichestOf(left, *next, entering_blocks);
      if (victim == left.end()) {
        tenants_ = before;
        return;
      }
      missing -= (*victim)->exclusive_blocks;
      TenantOf(**victim).num_blocks -= (*victim)->blocks_held();
      victims.push_back(*victim);
      left.erase(victim);
    }
    tenants_ = before;
    for (const SequenceView* victim : victims) Preempt(*victim);
    survivors_ = std::move(left);
    entrant_ = next;
    has_made_room_ = true;
  }
  int64_t FairBlocks(const Tenant& tenant) const {
    int64_t weights = 0;
    for (const Tenant& other : tenants_) weights += other.share.weight;
    return view_.num_blocks * tenant.share.weight / weights;
  }
  // The youngest of the tenant that holds most blocks for its weight, of those that may give one up
  // to `entering`.
  std::vector<const SequenceView*>::iterator RichestOf(std::vector<const SequenceView*>& sequences,
                                                       const SequenceView& entering,
                                                       int64_t entering_blocks) {
    auto richest = sequences.end();
    for (auto i = sequences.end(); i != sequences.begin();) {
      const SequenceView& sequence = **--i;
      const Tenant& tenant = TenantOf(sequence);
      const bool may =
          sequence.priority <= entering.priority && sequence.exclusive_blocks > 0 &&
          (tenant.num_blocks - sequence.blocks_held()) * TenantOf(entering).share.weight >=
              entering_blocks * tenant.share.weight;
      if (!may) continue;
      if (richest == sequences.end() || tenant.HoldsMoreBlocksThan(TenantOf(**richest))) {
        richest = i;
      }
    }
    return richest;
  }

  void RunDecodes() {
    for (const SequenceView* sequence : survivors_) {
      if (sequence->num_tokens - sequence->num_computed == 1)
        Run(*sequence, sequence->num_computed);
    }
    has_decodes_ = !plan_.work.empty();
  }

  void RunPrefillsAndAdmit() {
    std::vector<const SequenceView*> prefills;
    for (const SequenceView* sequence : survivors_) {
      if (sequence->num_tokens - sequence->num_computed > 1) prefills.push_back(sequence);
    }
    num_running_ = static_cast<int64_t>(survivors_.size());
    bool may_admit = !is_short_;  // or else the blocks just freed are owed to those who stayed
    while (token_budget_ > 0) {
      const auto prefill = First(prefills);
      const SequenceView* next = may_admit ? NextToAdmit() : nullptr;
      if (next != nullptr && (prefill == prefills.end() || GoesFirst(*next, **prefill))) {
        may_admit = Admit(*next) && !has_made_room_;
      } else if (prefill != prefills.end()) {
        Run(**prefill, (*prefill)->num_computed);
        prefills.erase(prefill);
      } else {
        return;
      }
    }
  }

  // Null where nobody waits or every place is taken.
  const SequenceView* NextToAdmit() {
    if (num_running_ >= view_.limits.max_running) return nullptr;
    if (entrant_ != nullptr) return entrant_;
    SkipThoseWithoutShare();
    const auto next = First(waiting_);
    return next == waiting_.end() ? nullptr : *next;
  }

  // A tenant whose first in line would go beyond its share has nobody in line.
  void SkipThoseWithoutShare() {
    for (auto next = First(waiting_); next != waiting_.end(); next = First(waiting_)) {
      const SequenceView& sequence = **next;
      const Tenant& tenant = TenantOf(sequence);
      const int64_t held = tenant.num_blocks + sequence.blocks_held();
      if (!tenant.IsFull() && tenant.HasRoomFor(held + tenant.num_running)) return;
      std::erase_if(waiting_, [index = sequence.tenant](const SequenceView* other) {
        return other->tenant == index;
      });
    }
  }

  // Of the available blocks.
  static int64_t TakenBy(const SequenceView& sequence) {
    return sequence.blocks_for_all() - sequence.cached_blocks + sequence.unheld_cached_blocks;
  }

  // False where there is no room: then nobody overtakes it.
  bool Admit(const SequenceView& sequence) {
    // Blocks just taken back may be of its cached prefix: then all of that is no longer held.
    const int64_t taken = has_made_room_ ? sequence.blocks_for_all() : TakenBy(sequence);
    const int64_t kept_back = has_made_room_ ? 0 : expired_blocks_;
    if (taken > available_ - kept_back - Headroom(num_running_)) return false;
    const int64_t spilled = std::min(sequence.spilled_blocks, restore_budget_);
    if (!Run(sequence, (sequence.cached_blocks + spilled) * kBlockTokens)) return false;
    available_ -= taken;
    restore_budget_ -= spilled;
    plan_.admissions.push_back({sequence.id, sequence.cached_blocks, spilled});
    ++num_running_;
    ++TenantOf(sequence).num_running;
    TenantOf(sequence).num_blocks += sequence.blocks_held();
    std::erase(waiting_, &sequence);
    entrant_ = nullptr;
    return true;
  }

  // Blocks left free for the running to grow into, so that admitting one does not preempt another
  // at once.
  int64_t Headroom(int64_t num_running) const {
    return std::min(num_running, view_.num_blocks / 32);
  }

  std::vector<const SequenceView*>::iterator First(std::vector<const SequenceView*>& sequences) {
    return std::min_element(
        sequences.begin(), sequences.end(),
        [this](const SequenceView* a, const SequenceView* b) { return GoesFirst(*a, *b); });
  }

  bool GoesFirst(const SequenceView& a, const SequenceView& b) const {
    if (a.priority != b.priority) return a.priority > b.priority;
    const int64_t served_a = tenants_[static_cast<size_t>(a.tenant)].served;
    const int64_t served_b = tenants_[static_cast<size_t>(b.tenant)].served;
    return served_a != served_b ? served_a < served_b : a.id < b.id;
  }

  // Plans as many tokens from `first` on as the budgets allow, or all that must run together; false
  // where that is none.
  bool Run(const SequenceView& sequence, int64_t first) {
    int64_t end = first + std::min(sequence.num_tokens - first, token_budget_);
    if (has_decodes_ && sequence.max_beside_decodes > 0) {
      end = std::min(end, first + sequence.max_beside_decodes);
    }
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
    Tenant& tenant = TenantOf(sequence);
    tenant.served += tenant.share.ChargeOf((end - first) * sequence.token_cost);
    plan_.work.push_back({sequence.id, first, end - first});
    return true;
  }

  const SchedulerView& view_;
  StepPlan plan_;
  std::vector<const SequenceView*> survivors_;  // running, neither expired nor preempted
  std::vector<const SequenceView*> waiting_;
  int64_t available_;
  const SequenceView* entrant_ = nullptr;  // for whom a place or room was made
  bool has_made_room_ = false;             // in blocks: nobody else enters in this step
  int64_t num_running_ = 0;
  bool is_short_ = false;  // of blocks for those who run
  // Freed by this plan's expirations and shares: the cached prefix of a waiting sequence may be
  // among them and was counted as held by another, so admissions leave them for the next step.
  int64_t expired_blocks_ = 0;
  bool has_decodes_ = false;
  int64_t token_budget_;
  int64_t restore_budget_;
  int64_t scoring_budget_;  // rows of prompt logits; every running sequence keeps a row for its own
                            // next token
  std::vector<Tenant> tenants_;
};

}  // namespace

StepPlan Plan(const SchedulerView& view) {
  POLYAD_CHECK(view.limits.max_step_tokens >= view.limits.max_running, "every decode fits a step");
  POLYAD_CHECK(view.limits.max_sample_rows > view.limits.max_running, "a prompt can be scored");
  return Planner(view).Make();
}

}  // namespace polyad
