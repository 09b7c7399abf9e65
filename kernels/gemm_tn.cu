// dW = dy^T x: a [k, m], b [k, n] in bf16. The gradient of a linear's weight, added to f32.
//
// Reads a and b, 2 (m k + n k) bytes, and what the epilogue names; writes c (= or +=, include/gemm_epilogue.cuh). 2 m n k FLOPs.
// The large tile is for GEMMs that fill the device, the small one for the others; `_any` takes operands without alignment.
#include "gemm.cuh"

GEMM_KERNEL(gemm_tn_bf16_128x128, WeightGradEpilogue, GemmLayout::TN, 128, 128, 64, 64, 4, true)
GEMM_KERNEL(gemm_tn_bf16_64x64, WeightGradEpilogue, GemmLayout::TN, 64, 64, 32, 32, 4, true)
GEMM_KERNEL(gemm_tn_bf16_64x64_any, WeightGradEpilogue, GemmLayout::TN, 64, 64, 32, 32, 4, false)
