#pragma once

// The Gram matrices X' X of what a model's products are fed on a text, for a range of layers: what
// a change of a weight does to its outputs is measured by them. An observer in the exact mode. One
// thread; the backend outlives it.

#include <cstdint>
#include <map>
#include <utility>

#include "engine/adapters/dense_math.h"
#include "engine/base/status.h"
#include "engine/model/input_observer.h"
#include "kernels/api/backend.h"

namespace polyad {

class InputGrams final : public InputObserver {
 public:
  InputGrams(Backend& backend, int64_t layer_begin, int64_t layer_end)
      : backend_(backend), layer_begin_(layer_begin), layer_end_(layer_end) {}

  void OnInput(int64_t layer, SiteGroup group, const ActivationRows& x) override;
  // What went wrong while observing.
  Status status() const { return status_; }
  // [in, in], the mean over the rows seen.
  Matrix Mean(int64_t layer, SiteGroup group) const;

 private:
  struct Gram {
    Matrix sum;
    int64_t rows = 0;
  };
  Backend& backend_;
  const int64_t layer_begin_;
  const int64_t layer_end_;
  std::map<std::pair<int64_t, SiteGroup>, Gram> grams_;
  Status status_;
};

}  // namespace polyad
