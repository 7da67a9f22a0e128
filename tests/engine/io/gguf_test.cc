#include "engine/io/gguf.h"

#include <bit>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/io/float_bits.h"
#include "engine/io/gguf_groups.h"
#include "engine/io/gguf_types.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/io/file_builders.h"

namespace polyad {
namespace {

using ::testing::HasSubstr;

StatusOr<GgufFile> Parse(const std::string& bytes) {
  return GgufFile::FromFile(RandomAccessFile::FromBytes(bytes, "x.gguf"));
}

struct Refusal {
  const char* name;
  std::string bytes;
  absl::StatusCode code;
  const char* message;
};

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kExhausted = absl::StatusCode::kResourceExhausted;
constexpr absl::StatusCode kUnserved = absl::StatusCode::kUnimplemented;

const std::string kEight(8, '\1');

std::string ListOf(uint32_t type, uint64_t count, const std::string& elements) {
  return Raw(type) + Raw(count) + elements;
}

std::vector<Refusal> PreambleRefusals() {
  return {
      {"empty", "", kInvalid, "ends inside its header"},
      {"three bytes", "GGU", kInvalid, "ends inside its header"},
      {"old magic", "GGML" + std::string(20, '\0'), kInvalid, "magic 'GGUF', got 'GGML'"},
      {"a zip", std::string("PK\3\4") + std::string(20, '\0'), kInvalid, "magic"},
      {"version 0", GgufBuilder(0).Build(), kUnserved, "expected 2 or 3, got 0"},
      {"version 1", GgufBuilder(1).Build(), kUnserved, "expected 2 or 3, got 1"},
      {"version 4", GgufBuilder(4).Build(), kUnserved, "expected 2 or 3, got 4"},
      {"big-endian", GgufBuilder(0x03000000).Build(), kUnserved, "big-endian"},
      {"counts are cut off", "GGUF" + Raw(uint32_t{3}) + Raw(uint64_t{0}), kInvalid, "ends inside"},
      {"2^64-1 tensors", GgufBuilder().Counts(~uint64_t{0}, 0).Build(), kExhausted, "tensors"},
      {"too many tensors", GgufBuilder().Counts(100'001, 0).Build(), kExhausted, "100000 tensors"},
      {"2^63 pairs", GgufBuilder().Counts(0, uint64_t{1} << 63).Build(), kExhausted, "pairs"},
      {"too many pairs", GgufBuilder().Counts(0, 65537).Build(), kExhausted, "65536 key/value"},
      {"fewer pairs than counted", GgufBuilder().U32("a", 1).Counts(0, 9).Header(), kInvalid,
       "ends inside"},
      {"fewer tensors than counted", GgufBuilder().Tensor("t", {2}, 0, 0).Counts(9, 0).Header(),
       kInvalid, "ends inside"},
  };
}

std::vector<Refusal> PairRefusals() {
  const std::string huge = Raw(~uint64_t{0});
  return {
      {"key of 2^64-1 bytes", GgufBuilder().Counts(0, 1).Header() + huge, kExhausted, "a key"},
      {"key past the limit", GgufBuilder().U32(std::string(1025, 'k'), 1).Build(), kExhausted,
       "at most 1024 bytes"},
      {"key past the end", GgufBuilder().Counts(0, 1).Header() + Raw(uint64_t{100}) + "abc",
       kInvalid, "ends inside"},
      {"duplicate key", GgufBuilder().U32("a", 1).U32("a", 2).Build(), kInvalid,
       "duplicate key 'a'"},
      {"type 13", GgufBuilder().Pair("a", 13, kEight).Build(), kInvalid, "13 is no value type"},
      {"type 2^32-1", GgufBuilder().Pair("a", ~uint32_t{0}, kEight).Build(), kInvalid,
       "no value type"},
      {"bool of 2", GgufBuilder().Pair("a", 7, "\2").Build(), kInvalid, "bool of 0 or 1"},
      {"string of 2^64-1 bytes", GgufBuilder().Pair("a", 8, huge).Build(), kExhausted, "a string"},
      {"string past the limit", GgufBuilder().Pair("a", 8, Raw(uint64_t{17} << 20)).Build(),
       kExhausted, "at most 16777216 bytes"},
      {"string past the end", GgufBuilder().Pair("a", 8, Raw(uint64_t{1} << 20)).Build(), kInvalid,
       "ends inside"},
      {"list of 2^64-1", GgufBuilder().Pair("a", 9, ListOf(4, ~uint64_t{0}, "")).Build(),
       kExhausted, "list elements"},
      {"list past the limit", GgufBuilder().Pair("a", 9, ListOf(0, uint64_t{1} << 24, "")).Build(),
       kExhausted, "list elements"},
      {"list past the end", GgufBuilder().Pair("a", 9, ListOf(4, 1 << 20, kEight)).Build(),
       kInvalid, "ends inside"},
      {"list of lists", GgufBuilder().Pair("a", 9, ListOf(9, 1, ListOf(4, 1, "abcd"))).Build(),
       kUnserved, "lists of lists"},
      {"list of an unknown type", GgufBuilder().Pair("a", 9, ListOf(99, 1, kEight)).Build(),
       kInvalid, "99 is no value type"},
      {"list with a string past the end",
       GgufBuilder().Pair("a", 9, ListOf(8, 1, Raw(uint64_t{1} << 20))).Build(), kInvalid,
       "ends inside"},
      {"list of u64 past int64", GgufBuilder().Pair("a", 9, ListOf(10, 1, huge)).Build(), kInvalid,
       "out of range"},
      {"alignment 0", GgufBuilder().U32("general.alignment", 0).Build(), kInvalid, "alignment"},
      {"alignment 48", GgufBuilder().U32("general.alignment", 48).Build(), kInvalid,
       "power of two"},
      {"alignment 2^31", GgufBuilder().U32("general.alignment", 1u << 31).Build(), kInvalid,
       "alignment"},
      {"alignment is a string", GgufBuilder().String("general.alignment", "32").Build(), kInvalid,
       "got the string '32'"},
  };
}

std::vector<Refusal> TensorRefusals() {
  const std::string data(128, '\0');
  const uint64_t big = uint64_t{1} << 40;
  return {
      {"no dimensions", GgufBuilder().Tensor("t", {}, 0, 0).Build(data), kInvalid,
       "1 to 4 dimensions"},
      {"five dimensions", GgufBuilder().Tensor("t", {1, 1, 1, 1, 1}, 0, 0).Build(data), kInvalid,
       "1 to 4 dimensions"},
      {"dimension 0", GgufBuilder().Tensor("t", {0}, 0, 0).Build(data), kInvalid, "got 0"},
      {"dimension 2^64-1", GgufBuilder().Tensor("t", {~uint64_t{0}}, 0, 0).Build(data), kInvalid,
       "1 to 2^40"},
      {"elements overflow", GgufBuilder().Tensor("t", {big, big}, 0, 0).Build(data), kInvalid,
       "does not hold rows"},
      {"bytes overflow", GgufBuilder().Tensor("t", {big, uint64_t{1} << 22}, 28, 0).Build(data),
       kInvalid, "too large"},
      {"2^32 elements in a small file",
       GgufBuilder().Tensor("t", {uint64_t{1} << 32}, 0, 0).Build(data), kInvalid, "past the file"},
      {"row of half a block", GgufBuilder().Tensor("t", {16}, 2, 0).Build(data), kInvalid,
       "Q4_0 blocks of 32"},
      {"row of odd blocks", GgufBuilder().Tensor("t", {288, 1}, 12, 0).Build(data), kInvalid,
       "Q4_K blocks of 256"},
      {"rows that share a block", GgufBuilder().Tensor("t", {16, 2}, 8, 0).Build(data), kInvalid,
       "Q8_0 blocks of 32"},
      {"type 5", GgufBuilder().Tensor("t", {32}, 5, 0).Build(data), kUnserved,
       "tensor type 5 is not known"},
      {"type 2^32-1", GgufBuilder().Tensor("t", {32}, ~uint32_t{0}, 0).Build(data), kUnserved,
       "is not known"},
      {"offset unaligned", GgufBuilder().Tensor("t", {2}, 0, 4).Build(data), kInvalid,
       "multiple of 32"},
      {"offset 2^64-32", GgufBuilder().Tensor("t", {2}, 0, ~uint64_t{31}).Build(data), kInvalid,
       "multiple of 32 inside the file"},
      {"offset past the end", GgufBuilder().Tensor("t", {2}, 0, 128).Build(data), kInvalid,
       "past the file"},
      {"one byte too long", GgufBuilder().Tensor("t", {32}, 0, 0).Build(data.substr(1)), kInvalid,
       "past the file"},
      {"no data at all", GgufBuilder().Tensor("t", {32}, 0, 0).Build(), kInvalid, "past the file"},
      {"listed twice", GgufBuilder().Tensor("t", {2}, 0, 0).Tensor("t", {2}, 0, 32).Build(data),
       kInvalid, "listed twice"},
      {"overlap", GgufBuilder().Tensor("a", {16}, 0, 0).Tensor("b", {2}, 0, 32).Build(data),
       kInvalid, "'a' and 'b' overlap"},
      {"the same bytes twice",
       GgufBuilder().Tensor("a", {2}, 0, 0).Tensor("b", {2}, 0, 0).Build(data), kInvalid,
       "overlap"},
      {"name of 2^64-1 bytes", GgufBuilder().Counts(1, 0).Header() + Raw(~uint64_t{0}), kExhausted,
       "a tensor name"},
      {"long name", GgufBuilder().Tensor(std::string(257, 'n'), {2}, 0, 0).Build(data), kExhausted,
       "at most 256 bytes"},
  };
}

void ExpectRefused(const std::vector<Refusal>& cases) {
  for (const Refusal& refusal : cases) {
    SCOPED_TRACE(refusal.name);
    const auto file = Parse(refusal.bytes);
    ASSERT_FALSE(file.ok());
    EXPECT_EQ(file.status().code(), refusal.code) << file.status();
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(refusal.message));
  }
}

TEST(GgufTest, RefusesHostilePreambles) { ExpectRefused(PreambleRefusals()); }
TEST(GgufTest, RefusesHostilePairs) { ExpectRefused(PairRefusals()); }
TEST(GgufTest, RefusesHostileTensors) { ExpectRefused(TensorRefusals()); }

std::string HonestFile(uint32_t version = 3) {
  std::string data;
  for (int i = 0; i < 128; ++i) data += static_cast<char>(i);
  return GgufBuilder(version)
      .String("general.architecture", "llama")
      .U32("n", 7)
      .F32("f", 0.5f)
      .Pair("b", 7, "\1")
      .Pair("neg", 11, Raw(int64_t{-3}))
      .Pair("far", 10, Raw(~uint64_t{0}))
      .Pair("words", 9, ListOf(8, 2, GgufBuilder::Text("x") + GgufBuilder::Text("")))
      .Pair("numbers", 9, ListOf(5, 2, Raw(int32_t{-1}) + Raw(int32_t{2})))
      .Pair("reals", 9, ListOf(6, 1, Raw(1.5f)))
      .Pair("flags", 9, ListOf(7, 2, std::string("\0\1", 2)))
      .Tensor("a", {2, 3}, 0, 32)
      .Tensor("q", {32}, 2, 0)
      .Tensor("odd", {256}, 16, 64)
      .Build(data + std::string(2, '\0'));
}

TEST(GgufTest, RefusesEveryTruncation) {
  const std::string bytes = HonestFile();
  ASSERT_TRUE(Parse(bytes).ok()) << Parse(bytes).status();
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(Parse(bytes.substr(0, size)).ok()) << size;
  }
}

TEST(GgufTest, ReadsBothVersions) {
  for (const uint32_t version : {2u, 3u}) {
    const auto file = Parse(HonestFile(version));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(*file->metadata().String("general.architecture"), "llama");
    EXPECT_EQ(file->tensors().size(), 3u);
  }
}

TEST(GgufTest, ReadsEveryKindOfValue) {
  const auto file = Parse(HonestFile());
  ASSERT_TRUE(file.ok());
  const GgufMetadata& metadata = file->metadata();
  EXPECT_EQ(*metadata.Int("n", 0, 10), 7);
  EXPECT_EQ(*metadata.Number("f", 0, 1), 0.5);
  EXPECT_TRUE(*metadata.BoolOr("b", false));
  EXPECT_EQ(*metadata.Int("neg", -5, 5), -3);
  EXPECT_EQ(*metadata.Strings("words"), (std::vector<std::string>{"x", ""}));
  EXPECT_EQ(*metadata.Ints("numbers"), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(*metadata.Numbers("reals"), (std::vector<double>{1.5}));
  EXPECT_EQ(*metadata.Ints("flags"), (std::vector<int64_t>{0, 1}));
  EXPECT_TRUE(metadata.Strings("absent")->empty());
}

TEST(GgufTest, NamesWhatAValueIsNot) {
  const auto file = Parse(HonestFile());
  ASSERT_TRUE(file.ok());
  const GgufMetadata& metadata = file->metadata();
  EXPECT_EQ(metadata.Int("n", 8, 10).status().message(),
            "x.gguf: key 'n': expected an integer in [8, 10], got 7");
  EXPECT_THAT(std::string(metadata.Int("far", 0, 1).status().message()), HasSubstr("past 2^63"));
  EXPECT_THAT(std::string(metadata.Int("none", 0, 1).status().message()), HasSubstr("got nothing"));
  EXPECT_FALSE(metadata.Int("f", 0, 1).ok());
  EXPECT_FALSE(metadata.Strings("numbers").ok());
  EXPECT_FALSE(metadata.BoolOr("n", true).ok());
}

TEST(GgufTest, ShapesAreOutermostFirst) {
  const auto file = Parse(HonestFile());
  ASSERT_TRUE(file.ok());
  const auto tensor = file->Read("a");
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->shape, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(tensor->dtype, DType::kF32);
  ASSERT_EQ(tensor->bytes.size(), 24);
  for (int i = 0; i < 24; ++i) EXPECT_EQ(tensor->bytes.data()[i], 32 + i);
}

TEST(GgufTest, KeepsBlocksThatKernelsTake) {
  const auto file = Parse(HonestFile());
  ASSERT_TRUE(file.ok());
  const auto tensor = file->Read("q");
  ASSERT_TRUE(tensor.ok());
  EXPECT_EQ(tensor->dtype, DType::kQ4_0);
  EXPECT_EQ(tensor->bytes.size(), 18);
}

TEST(GgufTest, RefusesAnUndecodedTypeOnlyWhenItIsRead) {
  const auto file = Parse(HonestFile());
  ASSERT_TRUE(file.ok());
  const auto tensor = file->Read("odd");
  EXPECT_EQ(tensor.status().code(), kUnserved);
  EXPECT_EQ(tensor.status().message(), "x.gguf: tensor 'odd': type IQ2_XXS is not supported");
  EXPECT_EQ(file->Read("absent").status().code(), absl::StatusCode::kNotFound);
}

TEST(GgufTest, HonoursItsAlignment) {
  std::string data(96, '\0');
  data[64] = 9;
  const auto file =
      Parse(GgufBuilder().U32("general.alignment", 64).Tensor("t", {4}, 24, 64).Build(data, 64));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Read("t")->bytes.data()[0], 9);
}

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

struct DequantGolden {
  uint32_t type = 0;
  std::string name;
  std::string block;
  std::vector<float> values;
};

std::vector<DequantGolden> ReadGoldens() {
  std::ifstream file(POLYAD_SOURCE_DIR "/tests/engine/io/gguf_dequant_goldens.txt");
  std::vector<DequantGolden> goldens;
  std::string block;
  std::string values;
  for (DequantGolden golden; file >> golden.type >> golden.name >> block >> values;) {
    golden.block = FromHex(block);
    const std::string bits = FromHex(values);
    golden.values.resize(bits.size() / 4);
    std::memcpy(golden.values.data(), bits.data(), bits.size());
    goldens.push_back(golden);
  }
  return goldens;
}

TEST(GgufDequantTest, MatchesTheReferenceBitForBit) {
  const std::vector<DequantGolden> goldens = ReadGoldens();
  ASSERT_EQ(goldens.size(), 18u);
  for (const DequantGolden& golden : goldens) {
    const auto elements = static_cast<uint64_t>(golden.values.size());
    const auto file = Parse(GgufBuilder()
                                .Tensor("t", {elements, 3}, golden.type, 0)
                                .Build(golden.block + golden.block + golden.block));
    ASSERT_TRUE(file.ok()) << file.status();
    const auto tensor = file->Read("t");
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    ASSERT_EQ(tensor->dtype, DType::kGrouped);
    const auto floats = ToFloats(*tensor);
    ASSERT_TRUE(floats.ok());
    ASSERT_EQ(floats->size(), 3 * elements);
    for (size_t i = 0; i < floats->size(); ++i) {
      ASSERT_EQ((*floats)[i], golden.values[i % elements]) << golden.name << " element " << i;
    }
  }
}

TEST(GgufDequantTest, CodesStayAsNarrowAsTheirType) {
  for (const DequantGolden& golden : ReadGoldens()) {
    const GroupedRows groups =
        ReadGgufGroups(golden.type, reinterpret_cast<const uint8_t*>(golden.block.data()), 1,
                       static_cast<int64_t>(golden.values.size()));
    for (const uint8_t code : groups.codes) ASSERT_LT(code, 1 << groups.bits) << golden.name;
  }
}

TEST(GgufDequantTest, EveryDecodableTypeHasAGolden) {
  for (uint32_t number = 0; number < 64; ++number) {
    const GgufTensorType* type = FindGgufTensorType(number);
    if (type == nullptr || !type->decodable) continue;
    bool found = false;
    for (const DequantGolden& golden : ReadGoldens()) found = found || golden.type == number;
    EXPECT_TRUE(found) << type->name;
  }
}

}  // namespace
}  // namespace polyad
