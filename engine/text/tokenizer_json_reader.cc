#include "engine/text/tokenizer_json_reader.h"

#include <cstdint>

#include "engine/text/bpe_model.h"

namespace polyad {

namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxTreeValues = 2'000'000;  // added tokens are ten values each
constexpr size_t kMaxConfigBytes = size_t{4} << 20;

// nlohmann's SAX interface: every callback returns false to stop the parse; `error` says why.
class Handler final : public nlohmann::json_sax<json> {
 public:
  Handler(TokenizerFile* out, bool flat) : out_(out), flat_(flat) {}
  const std::string& error() const { return error_; }

  bool null() override { return Add(json(nullptr)); }
  bool boolean(bool value) override { return Add(json(value)); }
  bool number_integer(number_integer_t value) override {
    return Number(static_cast<int64_t>(value), json(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (InVocab() && value >= kMaxVocab) return Fail("vocab: an id is too large");
    return Number(static_cast<int64_t>(value), json(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return Add(json(value)); }
  bool binary(binary_t&) override { return Fail("binary values"); }

  bool string(string_t& value) override {
    if (InMerges()) return MergeText(value);
    return Add(json(std::move(value)));
  }

  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }

  bool start_object(std::size_t) override { return Open(json::object(), "vocab"); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override { return Open(json::array(), "merges"); }
  bool end_array() override {
    if (InMerges() && flat_depth_ == 2 && pair_.size() != 2) return Fail("merges: expected pairs");
    if (InMerges() && flat_depth_ == 2)
      out_->merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
    pair_.clear();
    return Close();
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    return Fail(absl::StrFormat("not JSON at byte %d", position));
  }

 private:
  enum class Flat { kNone, kVocab, kMerges };

  bool InVocab() const { return flat_part_ == Flat::kVocab; }
  bool InMerges() const { return flat_part_ == Flat::kMerges; }

  bool Fail(std::string why) {
    if (error_.empty()) error_ = std::move(why);
    return false;
  }

  bool Number(int64_t value, json tree_value) {
    if (!InVocab()) return Add(std::move(tree_value));
    if (value < 0 || out_->vocab.size() >= kMaxVocab)
      return Fail("vocab: an id is negative, or too many tokens");
    out_->vocab.emplace_back(std::move(key_), static_cast<int32_t>(value));
    return true;
  }

  // Older files write a merge as "left right", newer ones as ["left", "right"].
  bool MergeText(std::string& value) {
    if (out_->merges.size() >= kMaxMerges) return Fail("merges: too many");
    if (flat_depth_ == 2) {
      if (pair_.size() == 2) return Fail("merges: expected pairs");
      pair_.push_back(std::move(value));
      return true;
    }
    const size_t space = value.find(' ');
    if (space == std::string::npos || value.find(' ', space + 1) != std::string::npos) {
      return Fail("merges: expected \"left right\", got \"" + value + "\"");
    }
    out_->merges.emplace_back(value.substr(0, space), value.substr(space + 1));
    return true;
  }

  bool Add(json value) {
    if (flat_part_ != Flat::kNone)
      return Fail(InVocab() ? "vocab: expected ids" : "merges: expected strings");
    return Place(std::move(value)) != nullptr;
  }

  json* Place(json value) {
    if (++num_values_ > kMaxTreeValues) {
      Fail("too many values");
      return nullptr;
    }
    if (stack_.empty()) {
      out_->root = std::move(value);
      return &out_->root;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }

  bool Open(json container, std::string_view flat_key) {
    if (++depth_ > kMaxDepth) return Fail("nested too deeply");
    if (flat_part_ != Flat::kNone) {
      if (!InMerges() || container.is_object() || flat_depth_ != 1)
        return Fail("vocab or merges: nested too deeply");
      ++flat_depth_;
      return true;
    }
    if (flat_ && depth_ == 3 && model_depth_ == 2 && key_ == flat_key) {
      flat_part_ = container.is_object() ? Flat::kVocab : Flat::kMerges;
      out_->has_vocab = out_->has_vocab || InVocab();
      flat_depth_ = 1;
      return true;
    }
    const bool is_model =
        depth_ == 2 && container.is_object() && stack_.back()->is_object() && key_ == "model";
    json* placed = Place(std::move(container));
    if (placed == nullptr) return false;
    if (is_model) model_depth_ = 2;
    stack_.push_back(placed);
    return true;
  }

  bool Close() {
    if (flat_part_ != Flat::kNone) {
      if (--flat_depth_ == 0) flat_part_ = Flat::kNone;
      --depth_;
      return true;
    }
    if (depth_ == model_depth_) model_depth_ = 0;
    --depth_;
    stack_.pop_back();
    return true;
  }

  TokenizerFile* out_;
  bool flat_;
  std::string error_;
  std::string key_;
  std::vector<json*> stack_;
  std::vector<std::string> pair_;
  size_t depth_ = 0;
  size_t model_depth_ = 0;  // 2 inside the root's "model"
  size_t flat_depth_ = 0;
  size_t num_values_ = 0;
  Flat flat_part_ = Flat::kNone;
};

StatusOr<TokenizerFile> Parse(std::string_view text, bool flat) {
  TokenizerFile file;
  Handler handler(&file, flat);
  if (!json::sax_parse(text.begin(), text.end(), &handler))
    return InvalidArgument("%s", handler.error());
  if (!file.root.is_object()) return InvalidArgument("expected a JSON object");
  return file;
}

}  // namespace

StatusOr<TokenizerFile> ReadTokenizerFile(std::string_view text) { return Parse(text, true); }

StatusOr<json> ReadJsonObject(std::string_view text, const char* what) {
  if (text.size() > kMaxConfigBytes) {
    return InvalidArgument("%s: at most %d bytes, got %d", what, kMaxConfigBytes, text.size());
  }
  StatusOr<TokenizerFile> file = Parse(text, false);
  if (!file.ok()) return Annotate(file.status(), what);
  return std::move(file->root);
}

}  // namespace polyad
