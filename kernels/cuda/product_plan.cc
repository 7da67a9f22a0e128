#include "kernels/cuda/product_plan.h"

#include <algorithm>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/fragment_matrix.h"

namespace polyad::cuda {
namespace {

bool IsIntoOutput(const ProductSegment& segment) {
  return segment.sink == ProductSink::kSet || segment.sink == ProductSink::kAdd;
}

// Rows of hidden memory are a segment's own: they overlap nobody's.
OutputArea AreaOf(const ProductSegment& segment) {
  const int64_t first = IsIntoOutput(segment) ? segment.y_column : 0;
  const int64_t end = IsIntoOutput(segment) ? segment.y_column + segment.out : 0;
  return {segment.row_begin, segment.row_end, first, end};
}

ProductForm FormOf(const ProductSegment& segment, bool exact) {
  if (exact) return ProductForm::kExact;
  const bool few = segment.row_end - segment.row_begin <= kProductFewRows;
  return few ? ProductForm::kFew : ProductForm::kMany;
}

// The items of one segment; tiles are counted from the tile of 16 that first_out lies in.
void AddProductItems(int32_t index, const ProductSegment& segment, ProductForm form,
                     std::vector<WorkItem>& items) {
  const OutputArea rows{segment.row_begin, segment.row_end, 0, 0};
  if (form == ProductForm::kExact) {
    return AddItems(index, rows, 1, DivideUp(segment.out, kProductExactOut), items);
  }
  const int64_t width = segment.first_out % kTile + segment.out;
  if (form == ProductForm::kFew) {
    return AddItems(index, rows, kProductFewRows, DivideUp(width, kProductFewOut), items);
  }
  AddItems(index, rows, kProductManyRows, DivideUp(width, kProductManyOut), items);
}

}  // namespace

ProductPlan PlanProducts(std::span<const ProductSegment> segments, bool exact) {
  std::vector<OutputArea> areas;
  for (const ProductSegment& segment : segments) areas.push_back(AreaOf(segment));
  const std::vector<int> waves = WavesOf(areas);
  const int last = waves.empty() ? -1 : *std::max_element(waves.begin(), waves.end());
  ProductPlan plan;
  for (int wave = 0; wave <= last; ++wave) {
    for (const ProductForm form : {ProductForm::kFew, ProductForm::kMany, ProductForm::kExact}) {
      for (int format = 0; format < kNumWeightFormats; ++format) {
        ProductLaunch launch{form, static_cast<WeightFormat>(format),
                             static_cast<int64_t>(plan.items.size()), 0};
        for (size_t i = 0; i < segments.size(); ++i) {
          const ProductSegment& segment = segments[i];
          if (waves[i] != wave || FormOf(segment, exact) != form ||
              segment.weight.format != launch.format) {
            continue;
          }
          AddProductItems(static_cast<int32_t>(i), segment, form, plan.items);
        }
        launch.num_items = static_cast<int64_t>(plan.items.size()) - launch.first_item;
        if (launch.num_items > 0) plan.launches.push_back(launch);
      }
    }
  }
  return plan;
}

}  // namespace polyad::cuda
