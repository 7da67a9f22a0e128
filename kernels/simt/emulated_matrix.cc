#include "kernels/simt/emulated_matrix.h"

#include <atomic>
#include <bit>

#include "kernels/simt/launch_shape.h"

namespace polyad::simt {
namespace {

std::atomic<int64_t> num_matrix_products = 0;

float HalfOf(uint32_t pair, int half) {
  return std::bit_cast<float>(half == 0 ? pair << 16 : pair & 0xffff0000u);
}

// A fragment register of A covers 8 rows and 8 columns; registers 0 to 3 are the quarters (upper
// left, lower left, upper right, lower right). In each, lane 4 r + c has columns 2 c and 2 c + 1 of
// row r. B's two registers are its upper and lower half, with rows and columns exchanged.
struct Matrices {
  float a[16][16];
  float b[16][8];
};

void Collect(void* const* operands, Matrices& to) {
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    const auto& own = *static_cast<const MmaOperand*>(operands[lane]);
    const int outer = lane / 4;
    for (int half = 0; half < 2; ++half) {
      const int inner = lane % 4 * 2 + half;
      for (int quarter = 0; quarter < 4; ++quarter) {
        to.a[outer + quarter % 2 * 8][inner + quarter / 2 * 8] = HalfOf(own.a[quarter], half);
      }
      for (int lower = 0; lower < 2; ++lower) {
        to.b[inner + lower * 8][outer] = HalfOf(own.b[lower], half);
      }
    }
  }
}

template <bool kTransposed>
void LoadMatrices(void* const* operands) {
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    const auto& own = *static_cast<const LoadMatrixOperand*>(operands[lane]);
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto element = [&](int row, int col) -> uint32_t {
        const auto& source = *static_cast<const LoadMatrixOperand*>(operands[8 * matrix + row]);
        return source.row[col];
      };
      const int outer = lane / 4;
      const int inner = lane % 4 * 2;
      own.to[matrix] = kTransposed ? element(inner, outer) | element(inner + 1, outer) << 16
                                   : element(outer, inner) | element(outer, inner + 1) << 16;
    }
  }
}

}  // namespace

void EmulateMma(void* const* operands) {
  num_matrix_products.fetch_add(1, std::memory_order_relaxed);
  Matrices m;
  Collect(operands, m);
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    const auto& own = *static_cast<const MmaOperand*>(operands[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8;
      const int col = lane % 4 * 2 + i % 2;
      float sum = own.d[i];
      for (int k = 0; k < 16; ++k) sum += m.a[row][k] * m.b[k][col];
      own.d[i] = sum;
    }
  }
}

int64_t NumMatrixProducts() { return num_matrix_products.load(std::memory_order_relaxed); }

void EmulateLoadMatrix(void* const* operands) { LoadMatrices<false>(operands); }
void EmulateLoadMatrixTransposed(void* const* operands) { LoadMatrices<true>(operands); }

}  // namespace polyad::simt
