// y = x W^T: a [m, k], b [n, k]. The forward of a linear, with the low-rank term [x | S] [W | B]^T, bias, GELU and residual.
//
// Reads a, b (bf16, 2 (m k + n k) bytes) and what the epilogue names; writes c (= or +=, include/gemm_epilogue.cuh), 2 m n (k + k2) FLOPs.
// The large tile is for products that fill the device, the small one for the others; `_any` takes operands without alignment.
// `_several` makes products of one x at once, as q, k and v are: alone they do not fill the device, or not the last of its waves.
#include "gemm.cuh"

GEMM_KERNEL(gemm_nt_bf16_128x128, GemmLayout::NT, 128, 128, 64, 64, 4, true)
GEMM_KERNEL(gemm_nt_bf16_64x64, GemmLayout::NT, 64, 64, 32, 32, 4, true)
GEMM_KERNEL(gemm_nt_bf16_64x64_any, GemmLayout::NT, 64, 64, 32, 32, 4, false)
GEMM_SEVERAL_KERNEL(gemm_nt_bf16_128x128_several, GemmLayout::NT, 128, 128, 64, 64, 4, true)
GEMM_SEVERAL_KERNEL(gemm_nt_bf16_64x64_several, GemmLayout::NT, 64, 64, 32, 32, 4, true)
