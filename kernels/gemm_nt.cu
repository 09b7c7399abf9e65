// y = x W^T: a [m, k], b [n, k] in bf16. The forward of a linear, with the low-rank term [x | S] [W | B]^T, bias, GELU and residual.
//
// Reads a and b, 2 (m k + n k) bytes, and what the epilogue names; writes c (= or +=, include/gemm_epilogue.cuh). 2 m n (k + k2) FLOPs.
// The large tile is for GEMMs that fill the device, the small one for the others; `_any` takes operands without alignment.
// `_several` computes up to four GEMMs of one x in one launch, as q, k and v are: alone they do not fill the device, or not its last wave.
// It can also rotate queries and keys, and store keys and values straight to their rows of a cache.
#include "gemm.cuh"

GEMM_KERNEL(gemm_nt_bf16_128x128, ForwardEpilogue, GemmLayout::NT, 128, 128, 64, 64, 4, true, LowRank)
GEMM_KERNEL(gemm_nt_bf16_64x64, ForwardEpilogue, GemmLayout::NT, 64, 64, 32, 32, 4, true, LowRank)
GEMM_KERNEL(gemm_nt_bf16_64x64_any, ForwardEpilogue, GemmLayout::NT, 64, 64, 32, 32, 4, false, LowRank)
GEMM_SEVERAL_KERNEL(gemm_nt_bf16_128x128_several, QkvEpilogue, GemmLayout::NT, 128, 128, 64, 64, 4, true, LowRank)
GEMM_SEVERAL_KERNEL(gemm_nt_bf16_64x64_several, QkvEpilogue, GemmLayout::NT, 64, 64, 32, 32, 4, true, LowRank)
