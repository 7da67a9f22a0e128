#pragma once

// Products of one call, which blocks do what. A segment is some outputs of one weight for some
// rows; segments of any weights, formats and lengths make one plan, a launch for each format and
// form that occurs. What becomes of v = sum_i W[o, i] x[t, i] + bias[o], then act(v), then
// factor[o] v, is the segment's sink. Forms for few rows and for many add up in the same order
// (product.cuh), so a row's bits do not depend on which one it fell to. Segments and items are
// copied to the device by the caller. Pure.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/weight_tiles.h"
#include "kernels/cuda/work_items.h"

namespace polyad::cuda {

enum class ProductSink : uint8_t {
  kSet,         // y[t, y_column + o] = v
  kAdd,         // += w_t v
  kHidden,      // hidden[t, o] = v, rounded; zeros up to the next multiple of 16 columns
  kActivations  // hidden[t, o] += w_t v, rounded: into rows that are there
};

// Device memory throughout. Row t of the call is row t - row_begin of x and of hidden.
struct ProductSegment {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t first_out = 0;  // of the weight; o counts from here
  int32_t out = 0;
  int32_t y_column = 0;
  WeightTiles weight;
  const float* exact_weight = nullptr;  // [weight.out, weight.in], for the exact form
  const simt::Bf16* x = nullptr;        // rows as device_rows.h says, to whole tiles of 16
  const float* exact_x = nullptr;
  int64_t x_stride = 0;
  const float* bias = nullptr;    // [weight.out] or null
  int32_t activation = -1;        // an ActivationKind; -1: none
  const float* factor = nullptr;  // [1] or [weight.out], or null
  int32_t factor_step = 0;        // 1 where it has one for each output
  ProductSink sink = ProductSink::kSet;
  simt::Bf16* hidden = nullptr;
  float* exact_hidden = nullptr;
  int64_t hidden_stride = 0;
  float scale = 1.0f;                // w_t is this times
  const float* row_scale = nullptr;  // [row_end - row_begin] or null
};

inline constexpr int kProductFewRows = 8;    // rows of an item of the form for few
inline constexpr int kProductManyRows = 64;  // and for many
inline constexpr int kProductFewOut = 16;    // outputs of an item
inline constexpr int kProductManyOut = 64;
inline constexpr int kProductExactOut = 4;  // one row of them

enum class ProductForm : uint8_t { kFew, kMany, kExact };

struct ProductLaunch {
  ProductForm form;
  WeightFormat format;
  int64_t first_item;
  int64_t num_items;
};

struct ProductPlan {
  std::vector<WorkItem> items;
  std::vector<ProductLaunch> launches;  // in order
};

ProductPlan PlanProducts(std::span<const ProductSegment> segments, bool exact);

}  // namespace polyad::cuda
