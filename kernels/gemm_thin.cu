// y = x W^T for a few rows of x: a token at a time. a = x [m, k], b = W [n, k]; m up to 32 a block, W read once.
//
// Reads 2 n k bytes of W; the same epilogue as the tiled products (include/gemm_epilogue.cuh), without the low-rank term, splits and
// batches. Blocks take 16 rows of W and 8 or 32 of x. Grid: [n / 16, m / 8 or m / 32, 1]. `_several` makes products of one x at once,
// with the blocks of all in a row.
#include "gemm_epilogue.cuh"
#include "gemm_thin.cuh"

template <int NT>
__device__ inline void thin(const Gemm& p, int tile) {
    auto& s = shared<ThinShared<1, NT>>();
    const int n0 = tile * 16, m0 = (int)blockIdx.y * NT * 8;
    const ThinOperands operands = {p.b, p.a, p.n, p.m, p.k, p.ldb, p.lda};
    thin_product<true, 1, NT>(s, operands, n0, m0, [](uint4&, int, int) {});
    // A thread finishes eight columns of a row of y.
    const int i = (int)threadIdx.x, row = i / 2, c = i % 2 * 8;
    const int len = min(8, p.n - n0 - c);
    if (i < NT * 8 * 2 && m0 + row < p.m && len > 0) {
        Floats8 x;
#pragma unroll
        for (int e = 0; e < 8; e++) x.v[e] = s.sum[0][c + e][row];
        gemm_finish(p, 0, m0 + row, n0 + c, len, x);
    }
}

template <int NT>
__device__ inline void thin(const GemmSeveral& p) {
    const int tile = (int)blockIdx.x, i = gemm_of_tile(p, tile);
    thin<NT>(p.of[i], tile - p.first[i]);
}

KERNEL(gemm_thin_bf16_8, Gemm, 256, sizeof(ThinShared<1, 1>), 16, 8) { thin<1>(p, (int)blockIdx.x); }
KERNEL(gemm_thin_bf16_32, Gemm, 256, sizeof(ThinShared<1, 4>), 16, 32) { thin<4>(p, (int)blockIdx.x); }
KERNEL(gemm_thin_bf16_8_several, GemmSeveral, 256, sizeof(ThinShared<1, 1>), 16, 8) { thin<1>(p); }
KERNEL(gemm_thin_bf16_32_several, GemmSeveral, 256, sizeof(ThinShared<1, 4>), 16, 32) { thin<4>(p); }
