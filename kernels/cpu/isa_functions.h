#pragma once

// The row functions of one instruction set, shared between the sources compiled per level
// (row_kernels.h says which).

#include "kernels/cpu/row_kernels.h"

#ifndef POLYAD_ISA
#define POLYAD_ISA scalar
#endif

namespace polyad::cpu::POLYAD_ISA {

void Norm(const NormRow& args, const float* x, void* y);
float InverseRms(const float* x, int64_t cols, float eps);  // 1 / sqrt(mean(x^2) + eps)
void Rotate(const RotateHead& args, float* head);
void StoreToken(const PageToken& at, const float* k, const float* v, void* page);
void Activate(const ActivateRow& args, const float* x, void* y);
int64_t ArgMax(const float* x, int64_t cols);
void AddRow(const float* x, float* y, int64_t cols);
SiteKernels MakeSiteKernels();
void AddSparse(const SparseGroups& matrix, const SiteTask& task, float* transposed);
SignLevel SignLevelOf();
void AddSigns(const SignPanels& signs, const SignRow& row, int32_t* tables);
AttentionKernels MakeAttentionKernels();
AttentionKernels MakeCodedAttentionKernels();
void DecodeGroupedPanel(const GroupedPanel& panel, uint16_t* out);
void DecodeGroupedScaling(const GroupedPanel& panel, float offset, float* scales, float* minima);

}  // namespace polyad::cpu::POLYAD_ISA
