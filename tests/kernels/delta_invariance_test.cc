// The promise of kernels/api/backend.h for every adapter op at every level and mode: a row's bits
// depend on the row and its own ops alone, not on its batch mates, where its segment begins and
// ends, or the number of threads.

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "kernels/cpu/cpu_features.h"
#include "tests/kernels/delta_specs.h"
#include "tests/kernels/op_inputs.h"

namespace polyad::test {
namespace {

constexpr int64_t kRows = 70;  // tiles of 16, pairs of tiles, passes of 64, and a rest
constexpr int64_t kOtherColumns = 24;

struct Setting {
  std::string isa;
  ComputeMode mode;
};

std::vector<Setting> Settings() {
  std::vector<Setting> settings;
  for (cpu::Isa isa : {cpu::Isa::kScalar, cpu::Isa::kAvx2, cpu::Isa::kAvx512, cpu::Isa::kAmx}) {
    if (isa > cpu::BestIsa()) continue;
    settings.push_back({std::string(cpu::NameOf(isa)), ComputeMode::kF32});
    settings.push_back({std::string(cpu::NameOf(isa)), ComputeMode::kAuto});
  }
  return settings;
}

// An op, packed for all backends of one level and mode.
struct Subject {
  Subject(const DeltaSpec& spec, Backend& backend)
      : name(spec.name), stage(spec.stage), widths(WidthsOf(spec)) {
    DeltaTensors tensors(false);
    PackShare share;
    op = *backend.PackDelta(spec.make(tensors), share);
  }

  std::string name;
  DeltaStage stage;
  DeltaWidths widths;
  std::unique_ptr<PackedDelta> op;
};

// Rows [first_row, first_row + num_rows) of the subject's rows, and its segments, on one backend.
class Call {
 public:
  Call(Backend& backend, const Subject& subject, int64_t first_row, int64_t num_rows)
      : backend_(backend),
        stage_(subject.stage),
        widths_(subject.widths),
        columns_(stage_ == DeltaStage::kEmbedding ? widths_.out : widths_.out + kOtherColumns),
        x_(backend, num_rows, widths_.in, Rows(widths_.in, first_row, num_rows)),
        y_(num_rows, columns_, Rows(columns_, first_row, num_rows)) {
    for (int64_t row = 0; row < num_rows; ++row) {
      ids_.push_back(static_cast<int32_t>((first_row + row) * 5 % 11));
    }
  }

  void Run(const std::vector<DeltaSegment>& segments) {
    switch (stage_) {
      case DeltaStage::kApply:
        return backend_.Apply(segments, x_.rows(), y_.view());
      case DeltaStage::kInput:
        return backend_.TransformInput(segments, x_.rows());
      case DeltaStage::kOutput:
        return backend_.TransformOutput(segments, y_.view());
      case DeltaStage::kEmbedding:
        return backend_.TransformEmbedding(segments, ids_, y_.view());
    }
  }

  // What the op changed, row by row, without the columns beside.
  std::vector<float> Changed(int64_t row_begin, int64_t row_end) {
    std::vector<float> bits;
    const std::vector<double> x = x_.Values();
    for (int64_t row = row_begin; row < row_end; ++row) {
      if (stage_ == DeltaStage::kInput) {
        const auto begin = x.begin() + row * widths_.in;
        bits.insert(bits.end(), begin, begin + widths_.in);
      } else {
        bits.insert(bits.end(), y_.view().Row(row), y_.view().Row(row) + widths_.out);
      }
    }
    return bits;
  }

 private:
  // Row r is the same in every call.
  static std::vector<float> Rows(int64_t cols, int64_t first, int64_t count) {
    static const std::vector<float> pile = RandomValues(4099, 70);
    std::vector<float> rows(static_cast<size_t>(count * cols));
    for (int64_t i = 0; i < count * cols; ++i) {
      rows[static_cast<size_t>(i)] = pile[static_cast<size_t>(first * cols + i) % pile.size()];
    }
    return rows;
  }

  Backend& backend_;
  const DeltaStage stage_;
  const DeltaWidths widths_;
  const int64_t columns_;
  ActivationBuffer x_;
  FloatBuffer y_;
  std::vector<int32_t> ids_;
};

class DeltaInvarianceTest : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    one_ = *MakeBackend("cpu", {GetParam().mode, 1, GetParam().isa});
    two_ = *MakeBackend("cpu", {GetParam().mode, 2, GetParam().isa});
  }
  std::vector<Subject> Subjects() {
    std::vector<Subject> subjects;
    for (const DeltaSpec& spec : DeltaSpecs()) subjects.emplace_back(spec, *one_);
    return subjects;
  }
  // Each row alone in its own call.
  std::vector<float> EachAlone(const Subject& subject, float scale) {
    std::vector<float> alone;
    for (int64_t row = 0; row < kRows; ++row) {
      Call call(*one_, subject, row, 1);
      call.Run({{0, 1, 0, subject.op.get(), scale}});
      const std::vector<float> bits = call.Changed(0, 1);
      alone.insert(alone.end(), bits.begin(), bits.end());
    }
    return alone;
  }

  std::unique_ptr<Backend> one_;
  std::unique_ptr<Backend> two_;
};

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_P(DeltaInvarianceTest, RowsOfOneSegmentHaveTheBitsOfRowsAlone) {
  for (const Subject& subject : Subjects()) {
    const std::vector<float> alone = EachAlone(subject, 1.0f);
    for (Backend* backend : {one_.get(), two_.get()}) {
      Call call(*backend, subject, 0, kRows);
      call.Run({{0, kRows, 0, subject.op.get()}});
      EXPECT_TRUE(SameBits(call.Changed(0, kRows), alone)) << subject.name;
    }
  }
}

TEST_P(DeltaInvarianceTest, RowsAmongOtherAdaptersHaveTheBitsOfRowsAlone) {
  PackShare share;
  const std::vector<float> ones(kOtherColumns, 1.0f);
  const auto beside = *one_->PackDelta(Bias{ones}, share);  // on the columns to the right
  for (const Subject& subject : Subjects()) {
    const std::vector<float> alone = EachAlone(subject, 0.75f);
    std::vector<DeltaSegment> segments;
    for (int64_t row = 0; row < kRows;) {
      const int64_t end = std::min(kRows, row + 1 + row % 5);
      if (subject.stage == DeltaStage::kApply && row % 2 == 0) {
        segments.push_back({row, end, subject.widths.out, beside.get()});
      }
      segments.push_back({row, end, 0, subject.op.get(), 0.75f});
      row = end;
    }
    for (Backend* backend : {one_.get(), two_.get()}) {
      Call call(*backend, subject, 0, kRows);
      call.Run(segments);
      EXPECT_TRUE(SameBits(call.Changed(0, kRows), alone)) << subject.name;
    }
  }
}

TEST_P(DeltaInvarianceTest, EveryOpChangesItsRowsAndNoOther) {
  for (const Subject& subject : Subjects()) {
    if (subject.name == "sparse_nothing") continue;
    Call before(*one_, subject, 0, kRows);
    Call after(*one_, subject, 0, kRows);
    after.Run({{11, 50, 0, subject.op.get()}});
    EXPECT_EQ(after.Changed(0, 11), before.Changed(0, 11)) << subject.name;
    EXPECT_NE(after.Changed(11, 50), before.Changed(11, 50)) << subject.name;
    EXPECT_EQ(after.Changed(50, kRows), before.Changed(50, kRows)) << subject.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, DeltaInvarianceTest, testing::ValuesIn(Settings()),
                         [](const testing::TestParamInfo<Setting>& test) {
                           return test.param.isa +
                                  (test.param.mode == ComputeMode::kF32 ? "_f32" : "_auto");
                         });

}  // namespace
}  // namespace polyad::test
