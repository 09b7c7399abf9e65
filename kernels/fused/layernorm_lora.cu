// LayerNorm fused with the LoRA down projection of its result, for the LoRA linears that follow.
//
//   y = LN(x), stats as in layernorm_fwd;  S [rows, n] = y A^T, for A [n, cols], n <= tile[1]
//
// x, y, A and S are bf16; weight, bias and stats are f32. Writes y, stats and S (=).
//
// A separate kernel for S would read y again: 53 MB at 20560 x 1280, which takes 14 % of the time of the GEMM that follows. Here
// the rows of y are already in the block. The warps normalise 16 rows and keep them in shared memory as bf16. Then the warps
// split the k dimension: each multiplies the 16 rows by its own columns of A, which it keeps in registers for all tiles, and the
// sums of the warps are added in order. Bytes as layernorm_fwd, plus 2 n per row; 2 n cols FLOPs per row on the tensor cores.
//
// cols is a multiple of 8 and at most tile[0]; x, y, weight, bias and A are aligned to 16 bytes. Grid: at most
// ceil(rows / tile[2]) blocks, one per multiprocessor, each of which takes tiles of 16 rows in turn.
#include "ptx.cuh"
#include "reduce.cuh"
#include "vec.cuh"

struct LayerNormLora {
    const bf16* x;
    bf16* y;
    const float* weight;
    const float* bias;
    float* stats;
    const bf16* a;
    bf16* s;
    int rows, cols, n;
    float eps;
};

constexpr int TILE_ROWS = 16, EIGHTS = 5, COLS = 8 * 32 * EIGHTS;
constexpr int PITCH = COLS + 8;  // 16 bytes more than a multiple of 128, so that the 8 rows of an ldmatrix are in different banks

// N = 48 needs twice the registers per thread, so its block has half the threads.
template <int N>
struct Tile {
    static constexpr int WARPS = N == 16 ? 16 : 8, THREADS = 32 * WARPS;
    static constexpr int ROWS = TILE_ROWS / WARPS;    // rows per warp: warp, warp + WARPS, ...
    static constexpr int STEPS = COLS / 16 / WARPS;   // k-steps of 16 columns per warp, in the same order
    bf16 y[TILE_ROWS][PITCH];
    float sum[WARPS][TILE_ROWS][N];
};

// A row in registers, with zeros beyond the last row and column.
struct Row {
    uint4 eight[EIGHTS];
};
__device__ inline void load_row(Row& to, const bf16* from, int row, const LayerNormLora& p) {
#pragma unroll
    for (int k = 0; k < EIGHTS; k++) {
        const int at = 8 * (32 * k + lane_id());
        to.eight[k] = make_uint4(0, 0, 0, 0);
        if (row < p.rows && at < p.cols) to.eight[k] = *reinterpret_cast<const uint4*>(from + (uint64_t)row * p.cols + at);
    }
}
__device__ inline void unpack(float (&x)[8], const uint4& u) {
    const uint32_t pair[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(pair[i] << 16);
        x[2 * i + 1] = __uint_as_float(pair[i] & 0xffff0000u);
    }
}
__device__ inline uint4 pack(const float (&x)[8]) {
    return make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

// Normalises a row into y and into the shared tile, which is padded with zero columns to a multiple of 16.
__device__ inline void normalise(const LayerNormLora& p, int row, const Row& x, bf16* tile) {
    const float n = 1.f / (float)p.cols;
    const uint64_t start = (uint64_t)row * p.cols;
    const bool real = row < p.rows;
    float v[8], sum = 0.f, squares = 0.f;
#pragma unroll
    for (int k = 0; k < EIGHTS; k++) {
        unpack(v, x.eight[k]);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += v[i];
    }
    const float mean = warp_sum(sum) * n;
#pragma unroll
    for (int k = 0; k < EIGHTS; k++) {
        const bool inside = 8 * (32 * k + lane_id()) < p.cols;
        unpack(v, x.eight[k]);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float d = inside ? v[i] - mean : 0.f;
            squares = fmaf(d, d, squares);
        }
    }
    const float rstd = rsqrtf(warp_sum(squares) * n + p.eps);
    if (real && lane_id() == 0) {
        p.stats[2 * (uint64_t)row] = mean;
        p.stats[2 * (uint64_t)row + 1] = rstd;
    }
    __syncwarp();  // keeps the compiler from loading weight and bias before the sums, for which there are no registers
#pragma unroll
    for (int k = 0; k < EIGHTS; k++) {
        const int at = 8 * (32 * k + lane_id());
        uint4 y = make_uint4(0, 0, 0, 0);
        if (real && at < p.cols) {
            float w[8], b[8];
            load8(w, p.weight + at);
            load8(b, p.bias + at);
            unpack(v, x.eight[k]);
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = fmaf((v[i] - mean) * rstd, w[i], b[i]);
            y = pack(v);
            *reinterpret_cast<uint4*>(p.y + start + at) = y;
        }
        if (at < p.cols + 8) *reinterpret_cast<uint4*>(tile + at) = y;
    }
}

template <int N>
__device__ inline void run(const LayerNormLora& p) {
    constexpr int WARPS = Tile<N>::WARPS, ROWS = Tile<N>::ROWS, STEPS = Tile<N>::STEPS;
    auto& s = shared<Tile<N>>();
    const int warp = warp_id(), lane = lane_id(), g = lane / 4, t = lane % 4;
    // The B fragments of A^T [16 columns of A, 8 rows of A]: each register holds two adjacent columns.
    uint32_t a[STEPS][N / 8][2];
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = 8 * j + g, col = 16 * (step * WARPS + warp) + 8 * half + 2 * t;
                a[step][j][half] = 0;
                if (row < p.n && col < p.cols) {
                    a[step][j][half] = *reinterpret_cast<const uint32_t*>(p.a + (uint64_t)row * p.cols + col);
                }
            }
        }
    }
    const int stride = gridDim.x * TILE_ROWS;
    Row x[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) load_row(x[i], p.x, blockIdx.x * TILE_ROWS + warp + i * WARPS, p);
    for (int first = blockIdx.x * TILE_ROWS; first < p.rows; first += stride) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int row = warp + i * WARPS;
            normalise(p, first + row, x[i], s.y[row]);
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) load_row(x[i], p.x, first + stride + warp + i * WARPS, p);  // in flight during the MMAs
        __syncthreads();
        float acc[N / 8][4] = {};
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            const int col = 16 * (step * WARPS + warp);
            if (col < p.cols) {
                uint32_t y[4];
                ldmatrix_x4(y, &s.y[lane % 16][col + 8 * (lane / 16)]);
#pragma unroll
                for (int j = 0; j < N / 8; j++) mma_bf16(acc[j], y, a[step][j]);
            }
        }
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) s.sum[warp][g + 8 * (i / 2)][8 * j + 2 * t + i % 2] = acc[j][i];
        }
        __syncthreads();
#pragma unroll 1
        for (int i = threadIdx.x; i < TILE_ROWS * N; i += 32 * WARPS) {
            const int row = i / N, column = i % N;
            float sum = 0.f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) sum += s.sum[w][row][column];
            if (first + row < p.rows && column < p.n) p.s[(uint64_t)(first + row) * p.n + column] = to_bf16(sum);
        }
    }
}

KERNEL(layernorm_lora_fwd_bf16_16, LayerNormLora, Tile<16>::THREADS, sizeof(Tile<16>), COLS, 16, TILE_ROWS) { run<16>(p); }
KERNEL(layernorm_lora_fwd_bf16_48, LayerNormLora, Tile<48>::THREADS, sizeof(Tile<48>), COLS, 48, TILE_ROWS) { run<48>(p); }
