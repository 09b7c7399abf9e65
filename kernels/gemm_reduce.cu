// The second half of GEMMs that were split along k, and sums over rows: the gradient of a bias.
//
// gemm_reduce_f32: partial [splits, batch, m, n] f32 -> c, through the epilogue of the GEMM (include/gemm_epilogue.cuh), the splits
// added in order. Reads 4 splits m n bytes. Grid: [m n / 2048 elements of rows padded to 8, 1, batch].
#include "gemm_epilogue.cuh"

// The sums over all splits of eight columns of a row, of which `count` are inside.
struct SplitSums {
    const Gemm& p;
    const float* from;
    int count;
    __device__ Floats8 operator()(int columns) const {
        const int64_t plane = (int64_t)p.batch * p.m * p.n;
        const float* at = from + columns;
        Floats8 sum = load8(at, count, p.n % 4 == 0);
        for (int s = 1; s < p.splits; s++) {
            at += plane;
            const Floats8 x = load8(at, count, p.n % 4 == 0);
#pragma unroll
            for (int e = 0; e < 8; e++) sum.v[e] += x.v[e];
        }
        return sum;
    }
};

KERNEL(gemm_reduce_f32, Gemm, 256, 0, 256, 8) {
    const int chunks = (p.n + 7) / 8, batch = (int)blockIdx.z;
    const int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= (int64_t)p.m * chunks) return;
    const int row = (int)(i / chunks), col = (int)(i % chunks) * 8, len = min(8, p.n - col);
    const SplitSums sums = {p, p.partial + ((int64_t)batch * p.m + row) * p.n + col, len};
    gemm_finish(p, batch, row, col, len, sums, ReduceEpilogue{});
}

// column_sums_bf16: x [rows, n] bf16 -> partial [splits, n] f32 =, split s the sum over rows s rows / splits .. (s + 1) rows / splits,
// which gemm_reduce_f32 adds. Reads 2 rows n bytes. A warp sums 64 columns of every eighth row. Grid: [n / 64, splits, 1].
struct ColumnSums {
    const bf16* x;
    float* partial;
    int rows, n, splits;
};
struct ColumnSumsShared {
    float sum[8][64];
};

KERNEL(column_sums_bf16, ColumnSums, 256, sizeof(ColumnSumsShared), 64) {
    auto& s = shared<ColumnSumsShared>();
    const int split = (int)blockIdx.y, col = (int)blockIdx.x * 64 + lane_id() * 2;
    const int from = (int)((int64_t)p.rows * split / p.splits), to = (int)((int64_t)p.rows * (split + 1) / p.splits);
    const bool pairs = p.n % 2 == 0;
    float lo = 0.f, hi = 0.f;
    for (int row = from + warp_id(); row < to && col < p.n; row += 8) {
        const bf16* const at = p.x + (int64_t)row * p.n + col;
        if (pairs) {
            const bf16x2 x = *reinterpret_cast<const bf16x2*>(at);
            lo += to_f32(x.lo);
            hi += to_f32(x.hi);
        } else {
            lo += to_f32(at[0]);
            if (col + 1 < p.n) hi += to_f32(at[1]);
        }
    }
    s.sum[warp_id()][lane_id() * 2] = lo;
    s.sum[warp_id()][lane_id() * 2 + 1] = hi;
    __syncthreads();
    const int c = (int)blockIdx.x * 64 + (int)threadIdx.x;
    if (threadIdx.x < 64 && c < p.n) {
        float sum = 0.f;
#pragma unroll
        for (int w = 0; w < 8; w++) sum += s.sum[w][threadIdx.x];
        p.partial[(int64_t)split * p.n + c] = sum;
    }
}
