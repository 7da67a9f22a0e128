#include "engine/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/base/check.h"
#include "engine/model/philox.h"
#include "kernels/api/draw_weights.h"

namespace polyad {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr size_t kLanes = kDrawLanes;
constexpr size_t kSumBlock = kDrawBlock;

// weights[i] = exp((row[i] - largest) * scale). Sums are kept per kSumBlock values, added up as
// kernels/api/draw_weights.h says, so that a draw can skip whole blocks; returns the sum of the
// blocks in order.
double Exponentiate(std::span<const float> row, float largest, float scale, float* weights,
                    std::vector<double>& block_sums) {
  block_sums.clear();
  double total = 0;
  for (size_t begin = 0; begin < row.size(); begin += kSumBlock) {
    const size_t end = std::min(row.size(), begin + kSumBlock);
    float lanes[kLanes] = {};
    size_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        weights[i + lane] = ExpNegative((row[i + lane] - largest) * scale);
        lanes[lane] += weights[i + lane];
      }
    }
    double sum = 0;
    for (const float lane : lanes) sum += lane;
    for (; i < end; ++i) {
      weights[i] = ExpNegative((row[i] - largest) * scale);
      sum += weights[i];
    }
    block_sums.push_back(sum);
    total += sum;
  }
  return total;
}

// The largest value; a NaN anywhere comes back as NaN.
float Largest(std::span<const float> row) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, kMasked);
  int32_t nans[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= row.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float value = row[i + lane];
      nans[lane] |= value != value;
      lanes[lane] = value > lanes[lane] ? value : lanes[lane];
    }
  }
  for (; i < row.size(); ++i) {
    nans[0] |= row[i] != row[i];
    lanes[0] = row[i] > lanes[0] ? row[i] : lanes[0];
  }
  if (std::any_of(nans, nans + kLanes, [](int32_t seen) { return seen != 0; })) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  return *std::max_element(lanes, lanes + kLanes);
}

// A temperature so small that the division overflows is greedy.
float ScaleOf(const SamplingParams& params) {
  return std::min(1.0f / params.temperature, std::numeric_limits<float>::max());
}

double UniformOf(const SampleInput& input, const SamplingParams& params) {
  const auto position = static_cast<int64_t>(input.prompt.size() + input.output.size());
  return UniformAt(params.seed, input.choice, position);
}

Status NotFinite(float largest) {
  return Internal("logits: expected a finite largest value, got %f", largest);
}

Status NothingLeft(const SampleInput& input, float largest) {
  if (input.mask.empty()) return NotFinite(largest);
  return FailedPrecondition(
      "constraint: expected a token that it and the request's other fields allow, got none");
}

}  // namespace

DrawArgs DrawOf(const SampleInput& input, const SamplingParams& params) {
  DrawArgs draw;
  draw.scale = ScaleOf(params);
  draw.min_p = params.min_p;
  draw.top_k = params.top_k;
  draw.top_p = params.top_p;
  draw.uniform = UniformOf(input, params);
  return draw;
}

Sampler::Sampler(int64_t vocab_size)
    : row_(static_cast<size_t>(vocab_size)),
      weights_(static_cast<size_t>(vocab_size)),
      counts_(static_cast<size_t>(vocab_size), 0) {}

StatusOr<int32_t> Sampler::Sample(const SampleInput& input, const SamplingParams& params) {
  POLYAD_CHECK(input.logits.size() == row_.size(), "a row has the vocabulary's width");
  if (const float largest = Largest(input.logits); !std::isfinite(largest)) {
    return NotFinite(largest);
  }
  Restrict(input, params);
  Penalise(input, params);
  if (params.greedy()) {
    const float largest = Largest(row_);
    if (!std::isfinite(largest)) return NothingLeft(input, largest);
    return static_cast<int32_t>(std::find(row_.begin(), row_.end(), largest) - row_.begin());
  }
  const int32_t token = Draw(params, UniformOf(input, params));
  if (token < 0) return NothingLeft(input, kMasked);
  return token;
}

void Sampler::Restrict(const SampleInput& input, const SamplingParams& params) {
  if (params.allowed_token_ids.empty()) {
    std::copy(input.logits.begin(), input.logits.end(), row_.begin());
  } else {
    std::fill(row_.begin(), row_.end(), kMasked);
    for (const int32_t id : params.allowed_token_ids) {
      row_[static_cast<size_t>(id)] = input.logits[static_cast<size_t>(id)];
    }
  }
  if (!input.mask.empty()) ApplyMask(input);
  for (const int32_t id : input.forbidden) row_[static_cast<size_t>(id)] = kMasked;
  for (const auto& [id, bias] : params.logit_bias) row_[static_cast<size_t>(id)] += bias;
}

void Sampler::ApplyMask(const SampleInput& input) {
  POLYAD_CHECK(input.mask.size() * 64 >= row_.size(), "a mask has the vocabulary's width");
  beside_.clear();
  for (const int32_t id : input.beside_mask) beside_.push_back(row_[static_cast<size_t>(id)]);
  for (size_t word = 0; word * 64 < row_.size(); ++word) {
    const uint64_t bits = input.mask[word];
    if (bits == ~uint64_t{0}) continue;
    const size_t end = std::min(row_.size(), word * 64 + 64);
    for (size_t id = word * 64; id < end; ++id) {
      row_[id] = (bits >> (id % 64) & 1) != 0 ? row_[id] : kMasked;
    }
  }
  for (size_t i = 0; i < beside_.size(); ++i) {
    row_[static_cast<size_t>(input.beside_mask[i])] = beside_[i];
  }
}

void Sampler::Penalise(const SampleInput& input, const SamplingParams& params) {
  if (params.repetition_penalty != 1.0f) {
    const auto penalise_once = [&](int32_t id) {
      if (counts_[static_cast<size_t>(id)]++ > 0) return;
      float& logit = row_[static_cast<size_t>(id)];
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    };
    for (const int32_t id : input.prompt) penalise_once(id);
    for (const int32_t id : input.output) penalise_once(id);
    for (const int32_t id : input.prompt) counts_[static_cast<size_t>(id)] = 0;
    for (const int32_t id : input.output) counts_[static_cast<size_t>(id)] = 0;
  }
  if (params.frequency_penalty == 0.0f && params.presence_penalty == 0.0f) return;
  for (const int32_t id : input.output) ++counts_[static_cast<size_t>(id)];
  for (const int32_t id : input.output) {
    int32_t& count = counts_[static_cast<size_t>(id)];
    if (count == 0) continue;  // seen earlier in this loop
    row_[static_cast<size_t>(id)] -=
        params.frequency_penalty * static_cast<float>(count) + params.presence_penalty;
    count = 0;
  }
}

// Returns -1 where nothing may be chosen.
int32_t Sampler::Draw(const SamplingParams& params, double uniform) {
  const float largest = Largest(row_);
  if (!std::isfinite(largest)) return -1;
  double total = Exponentiate(row_, largest, ScaleOf(params), weights_.data(), block_sums_);
  const bool plain = params.top_k <= 0 && params.top_p >= 1.0f && params.min_p <= 0.0f;
  if (plain) return DrawFromAll(uniform * total);
  GatherCandidates(params);
  KeepTop(params, total);
  total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  double target = uniform * total;
  for (const Candidate& candidate : candidates_) {
    target -= candidate.weight;
    if (target < 0) return candidate.token_id;
  }
  return candidates_.back().token_id;
}

// Walks the ids in order to the one where the running weight passes `target`.
int32_t Sampler::DrawFromAll(double target) {
  size_t block = 0;
  while (block + 1 < block_sums_.size() && target >= block_sums_[block])
    target -= block_sums_[block++];
  int32_t last = -1;  // rounding may run past the end: then the last possible id
  const size_t end = std::min(weights_.size(), (block + 1) * kSumBlock);
  for (size_t i = block * kSumBlock; i < end; ++i) {
    if (weights_[i] <= 0.0f) continue;
    last = static_cast<int32_t>(i);
    target -= weights_[i];
    if (target < 0) break;
  }
  if (last >= 0) return last;
  const auto likeliest = std::max_element(weights_.begin(), weights_.end());
  return static_cast<int32_t>(likeliest - weights_.begin());
}

// min-p: the largest weight is 1, so the threshold is min_p itself.
void Sampler::GatherCandidates(const SamplingParams& params) {
  candidates_.clear();
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] > 0.0f && weights_[i] >= params.min_p) {
      candidates_.push_back({static_cast<int32_t>(i), weights_[i]});
    }
  }
}

// Leaves the candidates of top-k and then top-p, likeliest first. Sorts no more of them than it
// needs: a growing head is sorted until it reaches p.
void Sampler::KeepTop(const SamplingParams& params, double total) {
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token_id < b.token_id;
  };
  size_t limit = candidates_.size();
  if (params.top_k > 0) limit = std::min(limit, static_cast<size_t>(params.top_k));
  const bool cut_by_p = params.top_p < 1.0f;
  if (params.top_k > 0 || params.min_p > 0.0f) {
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(limit),
                      candidates_.end(), likelier);
    candidates_.resize(limit);
    if (!cut_by_p) return;
    total = 0;  // top-p counts within what is left
    for (const Candidate& candidate : candidates_) total += candidate.weight;
  }
  const double wanted = static_cast<double>(params.top_p) * total;
  double reached = 0;
  size_t kept = 0;
  for (size_t head = std::min<size_t>(64, limit), sorted = 0; kept < limit;
       head = std::min(limit, head * 8)) {
    std::partial_sort(candidates_.begin() + static_cast<ptrdiff_t>(sorted),
                      candidates_.begin() + static_cast<ptrdiff_t>(head), candidates_.end(),
                      likelier);
    sorted = head;
    while (kept < head && reached < wanted) reached += candidates_[kept++].weight;
    if (reached >= wanted) break;
  }
  candidates_.resize(std::max<size_t>(kept, 1));
}

StatusOr<TokenLogprob> Sampler::Score(std::span<const float> logits, int32_t token,
                                      int32_t num_top) {
  const float largest = Largest(logits);
  if (!std::isfinite(largest)) return NotFinite(largest);
  const double total = Exponentiate(logits, largest, 1.0f, weights_.data(), block_sums_);
  const double log_total = std::log(total);
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) -
                              static_cast<double>(largest) - log_total);
  };
  TokenLogprob scored;
  scored.token_id = token;
  scored.logprob = logprob(token);
  const float own = logits[static_cast<size_t>(token)];
  int32_t num_better = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    num_better += logits[i] > own || (logits[i] == own && i < static_cast<size_t>(token));
  }
  scored.rank = 1 + num_better;
  if (num_top <= 0) return scored;
  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto end =
      order_.begin() + std::min<ptrdiff_t>(num_top, static_cast<ptrdiff_t>(order_.size()));
  std::partial_sort(order_.begin(), end, order_.end(), [&](int32_t a, int32_t b) {
    const float left = logits[static_cast<size_t>(a)];
    const float right = logits[static_cast<size_t>(b)];
    return left != right ? left > right : a < b;
  });
  for (auto id = order_.begin(); id != end; ++id) scored.top.push_back({*id, logprob(*id)});
  return scored;
}

}  // namespace polyad
