// Products of activations with weights in float32 or bfloat16: conversion, packing and division of the work around
// gemm(). Shared by Matmul and the linear head.
#pragma once

#include <vector>

#include "ops/compute.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/workspace.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace sparsam::cpu {

constexpr DType factor_type(Compute compute) { return compute == Compute::bf16 ? DType::bf16 : DType::f32; }

// Equal parts of at most about `largest`, multiples of `multiple`, of which every thread gets equally many.
i64 part_size(i64 total, i64 largest, i64 multiple);

// A weight as the factor B (w, or w^T if `transposed`), converted and, when `rows` make it pay, packed in the arena.
GemmOperand prepare_weight(const Matrix& w, bool transposed, i64 rows, Compute compute, Workspace& workspace);
// The same for each `block` rows of w.
std::vector<GemmOperand> prepare_blocks(const Matrix& w, i64 block, bool transposed, i64 rows, Compute compute,
                                        Workspace& workspace);

// y (N, n) = x (N, k) B + bias, or += with `accumulate`, where B is w or w^T.
struct RowProduct {
  In<float, 2> x;
  Matrix w;
  bool transposed = false;
  Out<float, 2> y;
  bool accumulate = false;
  const float* bias = nullptr;
  Compute compute;
};
void multiply_rows(const RowProduct& product, Workspace& workspace);

// dw (m, n) += dy^T x for dy (N, m) and x (N, n).
void add_outer_product(In<float, 2> dy, In<float, 2> x, Out<float, 2> dw, Compute compute, Workspace& workspace);

}  // namespace sparsam::cpu
