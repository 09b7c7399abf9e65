// dW = dy^T x: a [k, m], b [k, n]. The gradient of a linear's weight, added to f32.
//
// Reads a, b (bf16, 2 (m k + n k) bytes) and what the epilogue names; writes c (= or +=, include/gemm_epilogue.cuh), 2 m n (k + k2) FLOPs.
// The large tile is for products that fill the device, the small one for the others; `_any` takes operands without alignment.
#include "gemm.cuh"

GEMM_KERNEL(gemm_tn_bf16_128x128, GemmLayout::TN, 128, 128, 64, 64, 4, true)
GEMM_KERNEL(gemm_tn_bf16_64x64, GemmLayout::TN, 64, 64, 32, 32, 4, true)
GEMM_KERNEL(gemm_tn_bf16_64x64_any, GemmLayout::TN, 64, 64, 32, 32, 4, false)
