// y = x W^T for few rows of x, as when one token is decoded: a GEMV, or a GEMM with a small M. a = x [m, k], b = W [n, k] in bf16.
//
// Reads 2 n k bytes of W once for up to 32 rows of x. The epilogue is that of the tiled GEMMs (include/gemm_epilogue.cuh); there is no
// low-rank term, split of k or batch. A block has 16 rows of W and 8 or 32 of x. Grid: [n / 16, m / 8 or m / 32, 1]. `_several` computes up to
// four GEMMs of one x in one launch, with the blocks of all in a row.
#include "gemm_epilogue.cuh"
#include "gemm_thin.cuh"

// The 16 rows of W, and so the columns of y, of a block: eight from `first` and eight from `second`. They are neighbours, except that
// where heads are rotated the two groups are rotated with each other.
struct ThinColumns {
    int first, second;
    __device__ ThinColumns(const Gemm& p, int tile) : first(tile * 16), second(tile * 16 + 8) {
        if (p.angles == nullptr) return;
        const int per_head = p.head_dim / 16, rotated = p.rot / 16, head = tile / per_head, i = tile % per_head;
        if (i < rotated) {
            first = head * p.head_dim + i * 8;
            second = first + p.rot / 2;
        }
    }
};

// The sums of the eight columns of a thread, or of the other eight of its block.
template <class Shared>
struct ThinSums {
    const Shared& s;
    int row, column;
    __device__ Floats8 operator()(int columns) const {
        Floats8 x;
#pragma unroll
        for (int e = 0; e < 8; e++) x.v[e] = s.sum[0][(columns == 0 ? column : column ^ 8) + e][row];
        return x;
    }
};

template <int NT, class Epilogue>
__device__ inline void thin(const Gemm& p, int tile, const Epilogue& epilogue) {
    using Shared = ThinShared<1, NT>;
    auto& s = shared<Shared>();
    const ThinColumns columns(p, tile);
    const int m0 = (int)blockIdx.y * NT * 8;
    const ThinOperands operands = {p.b, p.a, p.n, p.m, p.k, p.ldb, p.lda};
    thin_gemm<true, 1, NT>(s, operands, columns.first, columns.second - columns.first, m0, [](uint4&, int, int) {});
    // A thread finishes eight columns of a row of y.
    const int i = (int)threadIdx.x, row = i / 2, c = i % 2 * 8;
    const int col = c == 0 ? columns.first : columns.second, len = min(8, p.n - col);
    if (i < NT * 8 * 2 && m0 + row < p.m && len > 0) {
        gemm_finish(p, 0, m0 + row, col, len, ThinSums<Shared>{s, row, c}, epilogue);
    }
}

template <int NT>
__device__ inline void thin(const GemmSeveral& p) {
    const int tile = (int)blockIdx.x, i = gemm_of_tile(p, tile);
    thin<NT>(p.of[i], tile - p.first[i], QkvEpilogue{});
}

KERNEL(gemm_thin_bf16_8, Gemm, 256, sizeof(ThinShared<1, 1>), 16, 8) { thin<1>(p, (int)blockIdx.x, ForwardEpilogue{}); }
KERNEL(gemm_thin_bf16_32, Gemm, 256, sizeof(ThinShared<1, 4>), 16, 32) { thin<4>(p, (int)blockIdx.x, ForwardEpilogue{}); }
KERNEL(gemm_thin_bf16_8_several, GemmSeveral, 256, sizeof(ThinShared<1, 1>), 16, 8) { thin<1>(p); }
KERNEL(gemm_thin_bf16_32_several, GemmSeveral, 256, sizeof(ThinShared<1, 4>), 16, 32) { thin<4>(p); }
