#include "engine/runtime/step_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
           std::shared_ptr<const AdapterVersion> adapter, bool scores = false) {
    auto request = std::make_shared<Request>();
    request->prompt_tokens = std::move(prompt);
    request->adapter = std::move(adapter);
    if (scores) request->output.prompt_logprobs = 0;
    Arrive arrive;
    arrive.number = number;
    arrive.request = std::move(request);
    state_.AddRequest(std::move(arrive), 0);
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

}  // namespace
}  // namespace polyad
