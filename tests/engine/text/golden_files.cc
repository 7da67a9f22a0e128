#include "tests/engine/text/golden_files.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "engine/base/check.h"
#include "engine/text/tokenizer_json.h"

namespace polyad {

using nlohmann::json;

double ThreadCpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::string ReadGoldenFile(const std::string& name) {
  const std::string path = std::string(POLYAD_SOURCE_DIR) + "/tests/golden/text/" + name;
  std::ifstream file(path, std::ios::binary);
  POLYAD_CHECK(file.good(), path.c_str());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string ReadGzippedGoldenFile(const std::string& name) {
  const std::string path = std::string(POLYAD_SOURCE_DIR) + "/tests/golden/text/" + name + ".gz";
  const gzFile file = gzopen(path.c_str(), "rb");
  POLYAD_CHECK(file != nullptr, path.c_str());
  std::string data;
  std::array<char, 65536> piece{};
  while (true) {
    const int size = gzread(file, piece.data(), piece.size());
    POLYAD_CHECK(size >= 0, path.c_str());
    if (size == 0) break;
    data.append(piece.data(), static_cast<size_t>(size));
  }
  POLYAD_CHECK(gzclose(file) == Z_OK, path.c_str());
  return data;
}

uint64_t GoldenReader::Varint() {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    POLYAD_CHECK(at_ < data_.size() && shift < 63, "golden file is short");
    const auto byte = static_cast<unsigned char>(data_[at_++]);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
}

std::string GoldenReader::Text() {
  const uint64_t size = Varint();
  POLYAD_CHECK(size <= data_.size() - at_, "golden file is short");
  std::string text = data_.substr(at_, size);
  at_ += size;
  return text;
}

std::vector<int32_t> GoldenReader::Ids() {
  std::vector<int32_t> ids(Varint());
  for (int32_t& id : ids) id = static_cast<int32_t>(Varint());
  return ids;
}

std::vector<std::string> ReadCorpus() {
  GoldenReader reader(ReadGzippedGoldenFile("corpus.bin"));
  std::vector<std::string> strings(reader.Varint());
  for (std::string& text : strings) text = reader.Text();
  POLYAD_CHECK(reader.AtEnd(), "corpus.bin has more than it says");
  return strings;
}

GgufTokenizerData SmolLm2GgufData() {
  GoldenReader reader(ReadGzippedGoldenFile("smollm2.merges.bin"));
  GgufTokenizerData data{.model = "gpt2", .pre = "smollm", .bos = 1, .eos = 2, .unk = 0, .pad = 2};
  data.add_space_prefix = false;
  const uint64_t num_base = reader.Varint();
  for (uint64_t i = 0; i < num_base; ++i) {
    data.token_types.push_back(static_cast<int32_t>(reader.Varint()));
    data.tokens.push_back(reader.Text());
  }
  const uint64_t num_merges = reader.Varint();
  for (uint64_t i = 0; i < num_merges; ++i) {
    const std::string left = data.tokens[reader.Varint()];
    const std::string right = data.tokens[reader.Varint()];
    data.merges.push_back(left + " " + right);
    data.tokens.push_back(left + right);
    data.token_types.push_back(1);
  }
  return data;
}

std::string SmolLm2Json() {
  const GgufTokenizerData data = SmolLm2GgufData();
  json vocab = json::object();
  json added = json::array();
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    vocab[data.tokens[id]] = id;
    if (data.token_types[id] == 3) {
      added.push_back(
          {{"id", id}, {"content", data.tokens[id]}, {"special", true}, {"normalized", false}});
    }
  }
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const json root = {
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers",
         json::array({{{"type", "Digits"}, {"individual_digits", true}}, byte_level})}}},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", data.merges}}}};
  return root.dump();
}

std::unique_ptr<Tokenizer> LoadGoldenTokenizer(const std::string& name) {
  StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      name == "smollm2" ? LoadTokenizerJson(SmolLm2Json(), "")
                        : LoadTokenizerJson(ReadGoldenFile(name + ".json"), "");
  POLYAD_CHECK(tokenizer.ok(), tokenizer.status().ToString().c_str());
  return std::move(tokenizer).value();
}

GgufTokenizerData GgufDataOf(const std::string& tokenizer_json, const std::string& pre) {
  const json root = json::parse(tokenizer_json);
  GgufTokenizerData data{.model = pre.empty() ? "llama" : "gpt2", .pre = pre};
  const json& model = root["model"];
  const json& added = root["added_tokens"];
  size_t size = model["vocab"].size();
  for (const json& token : added) size = std::max(size, token["id"].get<size_t>() + 1);
  data.tokens.resize(size);
  data.token_types.assign(size, 1);
  for (const auto& [text, id] : model["vocab"].items()) data.tokens[id.get<size_t>()] = text;
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (pre.empty() && data.tokens[id].size() == 6 && data.tokens[id].starts_with("<0x"))
      data.token_types[id] = 6;
    data.scores.push_back(-static_cast<float>(id));
  }
  for (const json& token : added) {
    data.tokens[token["id"].get<size_t>()] = token["content"];
    data.token_types[token["id"].get<size_t>()] = token["special"].get<bool>() ? 3 : 4;
  }
  if (pre.empty()) {
    data.unk = 0;
    data.bos = 1;
    data.add_bos = true;
    return data;
  }
  for (const json& merge : model["merges"]) {
    data.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  return data;
}

}  // namespace polyad
