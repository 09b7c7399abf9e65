// LayerNorm and the linear behind it in one kernel: y = n W^T with n = (x - mean) rstd, for x [rows, k], W [m, k], y [rows, m].
//   norm_linear_fwd     a block for each row: n in shared memory, then a dot product for each column of y. Saves stats [rows, 2].
//   norm_linear_bwd_x   dn = dy W,  dx = rstd (dn - mean(dn) - n mean(dn n)); a block for each row
//   norm_linear_bwd_w   dW += dy^T n; a block for each row of W, rows of x added in order. All f32.
// n never reaches global memory: forward moves 4 (rows k + m k + rows m) bytes, where two kernels move 8 rows k more.
#include "reduce.cuh"
constexpr int THREADS = 128, MAX_K = 2048;

struct NormLinear {
    const float *x, *w, *dy;
    float *y, *dx, *dw, *stats;  // stats: mean and 1 / sqrt(variance + 1e-5) of each row
    int rows, k, m;
};
struct Row { float n[MAX_K], scratch[THREADS / 32]; };

// Without its barrier for the test that shows what the emulator says of a race.
template <bool BARRIER>
__device__ inline void forward(const NormLinear& p) {
    Row& s = shared<Row>();
    const float* x = p.x + (size_t)blockIdx.x * p.k;
    float sum = 0.f, squares = 0.f;
    for (int i = threadIdx.x; i < p.k; i += THREADS) sum += x[i];
    const float mean = block_sum<THREADS>(sum, s.scratch) / p.k;
    for (int i = threadIdx.x; i < p.k; i += THREADS) squares += (x[i] - mean) * (x[i] - mean);
    const float rstd = rsqrtf(block_sum<THREADS>(squares, s.scratch) / p.k + 1e-5f);
    for (int i = threadIdx.x; i < p.k; i += THREADS) s.n[i] = (x[i] - mean) * rstd;
    if (threadIdx.x == 0) p.stats[2 * blockIdx.x] = mean, p.stats[2 * blockIdx.x + 1] = rstd;
    if (BARRIER) __syncthreads();
    for (int j = threadIdx.x; j < p.m; j += THREADS) {
        float dot = 0.f;
        for (int i = 0; i < p.k; i++) dot = fmaf(s.n[i], p.w[(size_t)j * p.k + i], dot);
        p.y[(size_t)blockIdx.x * p.m + j] = dot;
    }
}
KERNEL(norm_linear_fwd, NormLinear, THREADS, sizeof(Row), MAX_K) { forward<true>(p); }
KERNEL(norm_linear_fwd_race, NormLinear, THREADS, sizeof(Row), MAX_K) { forward<false>(p); }
KERNEL(norm_linear_bwd_x, NormLinear, THREADS, sizeof(Row), MAX_K) {
    Row& s = shared<Row>();
    const size_t row = blockIdx.x;
    const float mean = p.stats[2 * row], rstd = p.stats[2 * row + 1];
    float sum = 0.f, dot = 0.f;
    for (int i = threadIdx.x; i < p.k; i += THREADS) {  // a thread reads back only what it wrote: no barrier
        float dn = 0.f;
        for (int j = 0; j < p.m; j++) dn = fmaf(p.dy[row * p.m + j], p.w[(size_t)j * p.k + i], dn);
        s.n[i] = dn;
        sum += dn;
        dot += dn * (p.x[row * p.k + i] - mean) * rstd;
    }
    sum = block_sum<THREADS>(sum, s.scratch) / p.k;
    dot = block_sum<THREADS>(dot, s.scratch) / p.k;
    for (int i = threadIdx.x; i < p.k; i += THREADS)
        p.dx[row * p.k + i] = rstd * (s.n[i] - sum - (p.x[row * p.k + i] - mean) * rstd * dot);
}

KERNEL(norm_linear_bwd_w, NormLinear, THREADS, 0) {
    for (int i = threadIdx.x; i < p.k; i += THREADS) {
        float sum = 0.f;
        for (size_t row = 0; row < p.rows; row++)
            sum += p.dy[row * p.m + blockIdx.x] * (p.x[row * p.k + i] - p.stats[2 * row]) * p.stats[2 * row + 1];
        p.dw[(size_t)blockIdx.x * p.k + i] += sum;
    }
}
