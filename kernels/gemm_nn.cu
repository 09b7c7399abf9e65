// dx = dy W: a [m, k], b [k, n] in bf16. The gradient of a linear's input, with the low-rank term mask * (dS A), the derivative of GELU
// and a sum.
//
// Reads a and b, 2 (m k + n k) bytes, and what the epilogue names; writes c (= or +=, include/gemm_epilogue.cuh). 2 m n (k + k2) FLOPs.
// The large tile is for GEMMs that fill the device, the small one for the others; `_any` takes operands without alignment.
#include "gemm.cuh"

GEMM_KERNEL(gemm_nn_bf16_128x128, InputGradEpilogue, GemmLayout::NN, 128, 128, 64, 64, 4, true, LowRankDropout)
GEMM_KERNEL(gemm_nn_bf16_64x64, InputGradEpilogue, GemmLayout::NN, 64, 64, 32, 32, 4, true, LowRankDropout)
GEMM_KERNEL(gemm_nn_bf16_64x64_any, InputGradEpilogue, GemmLayout::NN, 64, 64, 32, 32, 4, false, LowRankDropout)
