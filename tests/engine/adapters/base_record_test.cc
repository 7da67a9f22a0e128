#include "engine/adapters/base_record.h"

#include "engine/adapters/family_table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/adapters/adapter_bytes.h"
#include "tests/engine/adapters/tiny_spec.h"

namespace polyad {
namespace {

using testing::HasSubstr;

const std::string kDigest(64, 'a');
const std::string kPlain = R"({"peft_type":"LORA","r":4,"lora_alpha":8})";
const std::string kLoftq =
    R"({"peft_type":"LORA","r":4,"lora_alpha":8,"init_lora_weights":"loftq",)"
    R"("loftq_config":{"loftq_bits":4,"loftq_iter":1}})";
const std::string kLoftqSetBack =
    R"({"peft_type":"LORA","r":4,"lora_alpha":8,"init_lora_weights":true,)"
    R"("loftq_config":{"loftq_bits":4,"loftq_iter":1}})";

// Nothing but a digest: a check alone reads it, and no weights.
class NamedBase final : public BaseWeights {
 public:
  explicit NamedBase(uint8_t byte) { digest_.fill(byte); }
  StatusOr<std::vector<float>> Matrix(SiteRef) const override { return NotFound("no weights"); }
  StatusOr<std::vector<float>> Bias(SiteRef) const override { return NotFound("no weights"); }
  StatusOr<NormVectors> Norm(int64_t, NormSite) const override { return NotFound("no weights"); }
  StatusOr<Digest> WeightsDigest() const override { return digest_; }

 private:
  Digest digest_;
};

Status Lower(const std::string& config, const std::string& recorded, const BaseWeights* base) {
  const std::string site = "base_model.model.model.layers.0.self_attn.q_proj";
  const std::vector<TestTensor> tensors = {
      FloatTensor(site + ".lora_A.weight", 4, 32, 0.1f, 0.01f),
      FloatTensor(site + ".lora_B.weight", 32, 4, -0.2f, 0.03f)};
  StatusOr<AdapterSource> source = AdapterSource::FromBytes(config, SafetensorsBytes(tensors));
  if (!source.ok()) return source.status();
  source->set_base_digest(recorded);
  const ModelSpec spec = TinySpec();
  return LowerAdapter(*source, {spec, base}).status();
}

TEST(BaseRecord, HoldsADigestAndAName) {
  const auto digest = ParseBaseRecord(R"({"name":"b","weights_sha256":")" + kDigest + "\"}");
  ASSERT_TRUE(digest.ok()) << digest.status();
  EXPECT_EQ(*digest, kDigest);
}

TEST(BaseRecord, IsRefusedWhereItSaysLessOrMore) {
  const std::string good = "\"weights_sha256\":\"" + kDigest + "\"";
  for (const std::string& text :
       {std::string("{"), std::string("[]"), std::string("{}"), std::string(R"({"name":"b"})"),
        std::string(R"({"weights_sha256":"ab"})"),
        "{\"weights_sha256\":\"" + std::string(64, 'A') + "\"}", "{\"name\":3," + good + "}",
        "{\"revision\":\"main\"," + good + "}", "{" + good + "," + good + "}",
        std::string(5000, ' ')}) {
    const auto digest = ParseBaseRecord(text);
    ASSERT_FALSE(digest.ok()) << text;
    EXPECT_THAT(std::string(digest.status().message()), HasSubstr("polyad_base.json")) << text;
  }
}

TEST(BaseRecord, AnAdapterIsServedOverTheBaseItNamesAlone) {
  const NamedBase own(0xaa), other(0xab);
  EXPECT_TRUE(Lower(kPlain, kDigest, &own).ok());
  const Status refused = Lower(kPlain, kDigest, &other);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("SHA-256"));
  EXPECT_EQ(Lower(kPlain, kDigest, nullptr).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Lower(kPlain, "", &other).ok());
}

TEST(BaseRecord, ALoftqAdapterNeedsOne) {
  const NamedBase own(0xaa), other(0xab);
  EXPECT_EQ(Lower(kLoftq, "", &own).code(), absl::StatusCode::kUnimplemented);
  const Status nothing_said = Lower(kLoftqSetBack, "", &own);
  EXPECT_EQ(nothing_said.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(nothing_said.message()), HasSubstr("loftq_config"));
  for (const std::string& config : {kLoftq, kLoftqSetBack}) {
    EXPECT_TRUE(Lower(config, kDigest, &own).ok()) << Lower(config, kDigest, &own);
    EXPECT_EQ(Lower(config, kDigest, &other).code(), absl::StatusCode::kFailedPrecondition);
  }
}

}  // namespace
}  // namespace polyad
