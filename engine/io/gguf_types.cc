#include "engine/io/gguf_types.h"

namespace polyad {

namespace {

constexpr GgufTensorType kTypes[] = {
    {0, "F32", 1, 4, DType::kF32, false},          {1, "F16", 1, 2, DType::kF16, false},
    {2, "Q4_0", 32, 18, DType::kQ4_0, false},      {3, "Q4_1", 32, 20, DType::kQ4_1, false},
    {6, "Q5_0", 32, 22, std::nullopt, true},       {7, "Q5_1", 32, 24, std::nullopt, true},
    {8, "Q8_0", 32, 34, DType::kQ8_0, false},      {9, "Q8_1", 32, 40, std::nullopt, false},
    {10, "Q2_K", 256, 84, std::nullopt, true},     {11, "Q3_K", 256, 110, std::nullopt, true},
    {12, "Q4_K", 256, 144, std::nullopt, true},    {13, "Q5_K", 256, 176, std::nullopt, true},
    {14, "Q6_K", 256, 210, std::nullopt, true},    {15, "Q8_K", 256, 292, std::nullopt, false},
    {16, "IQ2_XXS", 256, 66, std::nullopt, false}, {17, "IQ2_XS", 256, 74, std::nullopt, false},
    {18, "IQ3_XXS", 256, 98, std::nullopt, false}, {19, "IQ1_S", 256, 50, std::nullopt, false},
    {20, "IQ4_NL", 32, 18, std::nullopt, true},    {21, "IQ3_S", 256, 110, std::nullopt, false},
    {22, "IQ2_S", 256, 82, std::nullopt, false},   {23, "IQ4_XS", 256, 136, std::nullopt, true},
    {24, "I8", 1, 1, DType::kI8, false},           {25, "I16", 1, 2, DType::kI16, false},
    {26, "I32", 1, 4, DType::kI32, false},         {27, "I64", 1, 8, DType::kI64, false},
    {28, "F64", 1, 8, DType::kF64, false},         {29, "IQ1_M", 256, 56, std::nullopt, false},
    {30, "BF16", 1, 2, DType::kBF16, false},       {34, "TQ1_0", 256, 54, std::nullopt, false},
    {35, "TQ2_0", 256, 66, std::nullopt, false},   {39, "MXFP4", 32, 17, std::nullopt, false},
    {40, "NVFP4", 64, 36, std::nullopt, false},    {41, "Q1_0", 128, 18, std::nullopt, false},
};

}  // namespace

const GgufTensorType* FindGgufTensorType(uint32_t number) {
  for (const GgufTensorType& type : kTypes) {
    if (type.number == number) return &type;
  }
  return nullptr;
}

}  // namespace polyad
