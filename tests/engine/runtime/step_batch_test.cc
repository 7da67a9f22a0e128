#include "engine/runtime/step_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/adapters/adapter_version.h"
#include "engine/request/sampling_params.h"
#include "engine/runtime/commit.h"

namespace polyad {
namespace {

using ::testing::ElementsAre;

class StepBatchTest : public ::testing::Test {
 protected:
  StepBatchTest() : state_(Limits()) {}

  static EngineLimits Limits() {
    EngineLimits limits;
    limits.num_blocks = 16;
    limits.max_context = 100;
    return limits;
  }

  static std::shared_ptr<const AdapterVersion> Adapter(int64_t id) {
    AdapterVersion::Identity identity;
    identity.id = AdapterVersionId(id);
    return std::make_shared<AdapterVersion>(identity, 1);
  }

  void Add(int64_t number, std::vector<int32_t> prompt,
           std::shared_ptr<const AdapterVersion> adapter, bool scores = false,
           int64_t adapter_begin = 0, int64_t rope_choice = 0) {
    auto request = std::make_shared<Request>();
    request->rope_choice = rope_choice;
    request->adapter_begin = adapter_begin;
    request->prompt_tokens = std::move(prompt);
    request->adapter = std::move(adapter);
    if (scores) request->output.prompt_logprobs = 0;
    Arrive arrive;
    arrive.number = number;
    arrive.request = std::move(request);
    state_.AddRequest(std::move(arrive), 0);
  }
  static std::shared_ptr<const AdapterVersion> WithPrompt(int64_t id, int64_t num_tokens,
                                                          bool stores_kv, bool shifts = true) {
    AdapterVersion::Identity identity;
    identity.id = AdapterVersionId(id);
    auto version = std::make_shared<AdapterVersion>(identity, 1);
    auto prompt = std::make_shared<SoftPrompt>();
    prompt->num_tokens = num_tokens;
    prompt->stores_kv = stores_kv;
    prompt->shifts_positions = shifts;
    version->SetSoftPrompt(std::move(prompt));
    return version;
  }
  static SequenceId Id(int64_t number) { return SequenceId(number * kMaxChoices); }

  // Admits them all and runs `counts` tokens of each.
  FlatStep FlattenAll(const std::vector<std::pair<int64_t, int64_t>>& counts) {
    StepPlan plan;
    for (const auto& [number, count] : counts) {
      plan.admissions.push_back({Id(number), 0});
      plan.work.push_back({Id(number), 0, count});
    }
    ApplyPlan(plan, state_, 0);
    return Flatten(plan, state_);
  }

  EngineState state_;
};

TEST_F(StepBatchTest, SequencesCarryWhatTheyTurnByAndStandTogether) {
  AdapterVersion::Identity identity;
  identity.id = AdapterVersionId(3);
  auto scaled = std::make_shared<AdapterVersion>(identity, 1);
  scaled->SetRope(std::make_shared<const RopeTables>(), 50);
  Add(1, {11}, nullptr, false, 0, 1);
  Add(2, {21}, nullptr);
  Add(3, {31}, scaled, false, 0, 2);
  Add(4, {41}, nullptr, false, 0, 1);
  const StepBatch batch = FlattenAll({{1, 1}, {2, 1}, {3, 1}, {4, 1}}).batch;
  EXPECT_THAT(batch.token_ids, ElementsAre(21, 11, 41, 31));
  EXPECT_EQ(batch.sequences[0].rope, nullptr);
  EXPECT_EQ(batch.sequences[1].rope_choice, 1);
  EXPECT_EQ(batch.sequences[2].rope_choice, 1);
  EXPECT_EQ(batch.sequences[3].rope, scaled->rope());
  EXPECT_EQ(batch.sequences[3].rope_choice, 2);
  EXPECT_EQ(batch.segments.size(), 2u);
}

TEST_F(StepBatchTest, SortsRowsByAdapterWithTheBaseFirst) {
  const auto seven = Adapter(7);
  Add(1, {11, 12}, seven);
  Add(2, {21}, nullptr);
  Add(3, {31}, Adapter(3));
  Add(4, {41, 42}, seven);
  const FlatStep flat = FlattenAll({{1, 2}, {2, 1}, {3, 1}, {4, 2}});
  EXPECT_THAT(flat.batch.token_ids, ElementsAre(21, 31, 11, 12, 41, 42));
  EXPECT_THAT(flat.batch.positions, ElementsAre(0, 0, 0, 1, 0, 1));
  ASSERT_EQ(flat.batch.segments.size(), 3u);
  EXPECT_EQ(flat.batch.segments[0].adapter, nullptr);
  EXPECT_EQ(flat.batch.segments[2].adapter, seven.get());
  EXPECT_EQ(flat.batch.segments[2].row_begin, 2);
  EXPECT_EQ(flat.batch.segments[2].row_end, 6);
  EXPECT_THAT(flat.batch.sample_rows, ElementsAre(0, 1, 3, 5));
}

TEST_F(StepBatchTest, ASequenceThatIsReadWholeIsASegmentOfItsOwn) {
  AdapterVersion::Identity identity;
  identity.id = AdapterVersionId(9);
  const auto gated = std::make_shared<AdapterVersion>(identity, 1);
  gated->SetReadsWholePrompt();
  Add(1, {11, 12}, gated);
  Add(2, {21}, gated);
  const FlatStep flat = FlattenAll({{1, 2}, {2, 1}});
  ASSERT_EQ(flat.batch.segments.size(), 2u);
  EXPECT_EQ(flat.batch.segments[0].row_end, 2);
  EXPECT_EQ(flat.batch.segments[1].row_begin, 2);
  EXPECT_EQ(flat.batch.segments[1].row_end, 3);
  EXPECT_EQ(flat.batch.segments[1].adapter, gated.get());
  EXPECT_EQ(state_.View(0).running[0].whole_until, 2);
}

TEST_F(StepBatchTest, AFirstPassHasATableOfItsOwnBlocks) {
  AdapterVersion::Identity identity;
  identity.id = AdapterVersionId(9);
  const auto weighed = std::make_shared<AdapterVersion>(identity, 1);
  weighed->SetScalingPass({});
  Add(1, std::vector<int32_t>(20, 5), weighed);
  Add(2, {1}, nullptr);
  const FlatStep flat = FlattenAll({{1, 18}, {2, 1}});
  EXPECT_EQ(flat.batch.sequences[0].first_pass_begin, flat.batch.sequences[0].first_pass_end);
  const StepSequence& rows = flat.batch.sequences[1];
  ASSERT_EQ(rows.block_end - rows.block_begin, 2);
  ASSERT_EQ(rows.first_pass_end - rows.first_pass_begin, 2);
  std::vector<int32_t> blocks = flat.batch.block_ids;
  EXPECT_EQ(flat.batch.slots[18],
            blocks[static_cast<size_t>(rows.block_begin) + 1] * kBlockTokens + 1);
  std::sort(blocks.begin(), blocks.end());
  EXPECT_EQ(std::unique(blocks.begin(), blocks.end()), blocks.end());
  EXPECT_EQ(blocks.size(), 5u);
  state_.CheckInvariants();
  state_.Preempt(*state_.Find(Id(1)));
  state_.CheckInvariants();
  EXPECT_EQ(state_.pool.num_available(), 15);
}

TEST_F(StepBatchTest, ASlotIsItsBlocksPlace) {
  Add(1, std::vector<int32_t>(20, 5), nullptr);
  const FlatStep flat = FlattenAll({{1, 18}});
  const StepSequence& rows = flat.batch.sequences[0];
  EXPECT_EQ(rows.context_end, 18);
  EXPECT_EQ(rows.block_end - rows.block_begin, 2);
  EXPECT_EQ(flat.batch.slots[17], flat.batch.block_ids[1] * kBlockTokens + 1);
  EXPECT_TRUE(flat.batch.sample_rows.empty());  // two prompt tokens are still to come
}

TEST_F(StepBatchTest, AScoredPromptWantsTheLogitsOfEveryRow) {
  Add(1, {1, 2, 3, 4}, nullptr, /*scores=*/true);
  EXPECT_THAT(FlattenAll({{1, 3}}).batch.sample_rows, ElementsAre(0, 1, 2));
}

TEST_F(StepBatchTest, EmbeddedVirtualTokensAreRowsAtTheHead) {
  const auto seven = WithPrompt(7, 2, /*stores_kv=*/false);
  Add(1, {11, 12}, seven, /*scores=*/true);
  const FlatStep flat = FlattenAll({{1, 4}});
  EXPECT_THAT(flat.batch.token_ids, ElementsAre(0, 0, 11, 12));
  EXPECT_THAT(flat.batch.positions, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(flat.batch.sample_rows, ElementsAre(2, 3));  // none of a virtual token
  ASSERT_EQ(flat.batch.prompts.size(), 1u);
  EXPECT_EQ(flat.batch.prompts[0].prompt, seven->soft_prompt());
  EXPECT_EQ(flat.batch.prompts[0].row_begin, 0);
  EXPECT_EQ(flat.batch.prompts[0].row_end, 2);
  EXPECT_TRUE(flat.batch.prefixes.empty());
}

TEST_F(StepBatchTest, AStoredPrefixHasSlotsAndNoRows) {
  const auto seven = WithPrompt(7, 18, /*stores_kv=*/true);
  Add(1, {11, 12}, seven);
  const FlatStep flat = FlattenAll({{1, 20}});
  EXPECT_THAT(flat.batch.token_ids, ElementsAre(11, 12));
  EXPECT_THAT(flat.batch.positions, ElementsAre(18, 19));
  ASSERT_EQ(flat.batch.prefixes.size(), 1u);
  EXPECT_EQ(flat.batch.prefix_slots.size(), 18u);
  EXPECT_EQ(flat.batch.prefix_slots[17], flat.batch.block_ids[1] * kBlockTokens + 1);
  EXPECT_EQ(flat.batch.slots[0], flat.batch.block_ids[1] * kBlockTokens + 2);
  EXPECT_EQ(flat.batch.sequences[0].context_end, 20);
}

TEST_F(StepBatchTest, AChunkOfStoresAloneIsNoSequence) {
  Add(1, {11, 12}, WithPrompt(7, 18, /*stores_kv=*/true));
  Add(2, {21}, nullptr);
  const FlatStep flat = FlattenAll({{1, 10}, {2, 1}});
  EXPECT_THAT(flat.batch.token_ids, ElementsAre(21));
  EXPECT_EQ(flat.batch.sequences.size(), 1u);
  EXPECT_EQ(flat.batch.segments.size(), 1u);
  EXPECT_EQ(flat.batch.prefix_slots.size(), 10u);
  EXPECT_EQ(flat.items.size(), 2u);
}

TEST_F(StepBatchTest, TextBesideAnUnshiftedPrefixStartsAtPositionZero) {
  Add(1, {11, 12}, WithPrompt(7, 3, /*stores_kv=*/true, /*shifts=*/false));
  const FlatStep flat = FlattenAll({{1, 5}});
  EXPECT_THAT(flat.batch.positions, ElementsAre(0, 1));
  EXPECT_EQ(flat.batch.sequences[0].context_end, 5);
}

TEST_F(StepBatchTest, RowsBeforeAnInvocationAreTheBases) {
  const auto seven = Adapter(7);
  Add(1, {11, 12, 13}, seven, false, /*adapter_begin=*/2);
  Add(2, {21, 22}, seven, false, /*adapter_begin=*/1);
  Add(3, {31, 32}, seven, false, /*adapter_begin=*/9);
  const FlatStep flat = FlattenAll({{1, 3}, {2, 2}, {3, 2}});
  EXPECT_THAT(flat.batch.token_ids, ElementsAre(31, 32, 11, 12, 13, 21, 22));
  std::vector<std::pair<const AdapterVersion*, int64_t>> segments;
  for (const StepSegment& segment : flat.batch.segments) {
    segments.emplace_back(segment.adapter, segment.row_end);
  }
  EXPECT_THAT(segments, ElementsAre(std::pair(nullptr, 4), std::pair(seven.get(), 5),
                                    std::pair(nullptr, 6), std::pair(seven.get(), 7)));
}

}  // namespace
}  // namespace polyad
