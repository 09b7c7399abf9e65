// LayerNorm (arXiv 1607.06450) over rows of `cols` elements. Backward can add dres, the residual connection's gradient.
//
//   layernorm_fwd   y = (x - mean) rstd weight + bias, stats [rows, 2] = {mean, rstd}, rstd = 1 / sqrt(var + eps), in two passes
//                   in f32. Writes y and stats (=). Backward needs x and stats. bf16: 4 bytes per element; about 8 FLOPs.
//   layernorm_bwd   dx = rstd (g - mean(g) - xhat mean(g xhat)) [+ dres], with g = dy weight and xhat = (x - mean) rstd. Writes
//                   dx (=), which may be dy or dres. bf16: 6 bytes per element, 8 with dres; about 10 FLOPs.
//   layernorm_bwd_affine   partial [pieces, 2, cols] f32 = {sum of dy xhat, sum of dy} over the rows of each piece, the partial
//                          gradients of weight and bias; `sum_rows_f32` adds the pieces in order. Runs only if weight or bias is
//                          trained. bf16: 4 bytes per element; 5 FLOPs.
//
// weight, bias, stats and partial are f32; x, y, dy, dres and dx are bf16 or f32. A row is held in registers, by one warp up to
// 1280 columns (40 elements per lane), by four warps up to 5120, and is accessed in 16-byte vectors: cols must be a multiple of 8
// and every address a multiple of 16 bytes. `_any` takes all other rows, an element at a time, and rereads them in each pass.
//
// Grids: at most ceil(rows / tile[1]) blocks, each of which takes rows in turn; tile[0] is the largest `cols` of a variant (0 for
// `_any`, which has no limit). layernorm_bwd_affine: (ceil(cols / tile[0]), pieces), where piece i has the groups i, i + pieces,
// ... of tile[1] consecutive rows.
#include "columns.cuh"
#include "reduce.cuh"
#include "vec.cuh"

template <class T>
struct LayerNormFwd {
    const T* x;
    T* y;
    const float* weight;
    const float* bias;
    float* stats;
    int rows, cols;
    float eps;
};
template <class T>
struct LayerNormBwd {
    const T* dy;
    const T* x;
    const float* stats;
    const float* weight;
    const T* dres;
    T* dx;
    int rows, cols;
};
template <class T>
struct LayerNormAffine {
    const T* dy;
    const T* x;
    const float* stats;
    float* partial;
    int rows, cols;
};

// Vectors of eight elements per thread: enough for 1280 columns in one warp and for 5120 in four.
constexpr int EIGHTS = 5, WARPS = 4;

struct Scratch {
    float of_warp[WARPS];
};

// The threads that share a row: one warp, with WARPS rows per block, or the whole block, with one row.
template <int THREADS>
struct Team {
    static constexpr int ROWS = 32 * WARPS / THREADS;

    __device__ static int thread() { return threadIdx.x % THREADS; }
    __device__ static int first_row() { return blockIdx.x * ROWS + threadIdx.x / THREADS; }
    __device__ static int stride() { return gridDim.x * ROWS; }
    // The first column of the thread's vector number k.
    __device__ static int column(int k) { return 8 * (k * THREADS + thread()); }
    __device__ static float sum(float x) {
        if constexpr (THREADS == 32) {
            return warp_sum(x);
        } else {
            return block_sum<THREADS>(x, shared<Scratch>().of_warp);
        }
    }
};

template <int THREADS, class T>
__device__ inline void forward_rows(const LayerNormFwd<T>& p) {
    using team = Team<THREADS>;
    const float n = 1.f / (float)p.cols;
    for (int row = team::first_row(); row < p.rows; row += team::stride()) {
        const uint64_t start = (uint64_t)row * p.cols;
        float x[EIGHTS][8];
#pragma unroll
        for (int k = 0; k < EIGHTS; k++) {
            const int at = team::column(k);
            load_up_to8<true>(x[k], p.x + start + at, p.cols - at);
        }
        float sum = 0.f, squares = 0.f;
#pragma unroll
        for (int k = 0; k < EIGHTS; k++) {
#pragma unroll
            for (int i = 0; i < 8; i++) sum += x[k][i];
        }
        const float mean = team::sum(sum) * n;
#pragma unroll
        for (int k = 0; k < EIGHTS; k++) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float d = team::column(k) < p.cols ? x[k][i] - mean : 0.f;
                squares = fmaf(d, d, squares);
            }
        }
        const float rstd = rsqrtf(team::sum(squares) * n + p.eps);
        if (team::thread() == 0) reinterpret_cast<float2*>(p.stats)[row] = make_float2(mean, rstd);
#pragma unroll
        for (int k = 0; k < EIGHTS; k++) {
            const int at = team::column(k), left = p.cols - at;
            float w[8], b[8];
            load_up_to8<true>(w, p.weight + at, left);
            load_up_to8<true>(b, p.bias + at, left);
#pragma unroll
            for (int i = 0; i < 8; i++) x[k][i] = fmaf((x[k][i] - mean) * rstd, w[i], b[i]);
            store_up_to8<true>(p.y + start + at, x[k], left);
        }
    }
}

template <int THREADS, class T>
__device__ inline void backward_rows(const LayerNormBwd<T>& p) {
    using team = Team<THREADS>;
    const float n = 1.f / (float)p.cols;
    for (int row = team::first_row(); row < p.rows; row += team::stride()) {
        const uint64_t start = (uint64_t)row * p.cols;
        const float mean = p.stats[2 * (uint64_t)row], rstd = p.stats[2 * (uint64_t)row + 1];
        float g[EIGHTS][8], x[EIGHTS][8], sum_g = 0.f, sum_gx = 0.f;
#pragma unroll
        for (int k = 0; k < EIGHTS; k++) {
            const int at = team::column(k), left = p.cols - at;
            load_up_to8<true>(g[k], p.dy + start + at, left);
            load_up_to8<true>(x[k], p.x + start + at, left);
        }
#pragma unroll
        for (int k = 0; k < EIGHTS; k++) {
            const int at = team::column(k);
            float w[8];
            load_up_to8<true>(w, p.weight + at, p.cols - at);
#pragma unroll
            for (int i = 0; i < 8; i++) {  // beyond the row g is 0 and adds nothing to the sums
                g[k][i] *= w[i];
                x[k][i] = (x[k][i] - mean) * rstd;
                sum_g += g[k][i];
                sum_gx = fmaf(g[k][i], x[k][i], sum_gx);
            }
        }
        sum_g = team::sum(sum_g) * n;
        sum_gx = team::sum(sum_gx) * n;
#pragma unroll
        for (int k = 0; k < EIGHTS; k++) {
#pragma unroll
            for (int i = 0; i < 8; i++) g[k][i] = rstd * (g[k][i] - sum_g - x[k][i] * sum_gx);
        }
        if (p.dres) {
#pragma unroll
            for (int k = 0; k < EIGHTS; k++) {
                const int at = team::column(k);
                float r[8];
                load_up_to8<true>(r, p.dres + start + at, p.cols - at);
#pragma unroll
                for (int i = 0; i < 8; i++) g[k][i] += r[i];
            }
        }
#pragma unroll
        for (int k = 0; k < EIGHTS; k++) {
            const int at = team::column(k);
            store_up_to8<true>(p.dx + start + at, g[k], p.cols - at);
        }
    }
}

// Rows too wide for registers, unaligned or not a multiple of eight elements: one element at a time, read again in each pass.
template <class T>
__device__ inline void forward_any(const LayerNormFwd<T>& p) {
    using team = Team<32 * WARPS>;
    const float n = 1.f / (float)p.cols;
    for (int row = blockIdx.x; row < p.rows; row += gridDim.x) {
        const uint64_t start = (uint64_t)row * p.cols;
        const auto x = [&](int at) { return to_f32(p.x[start + at]); };
        float sum = 0.f, squares = 0.f;
        for (int at = threadIdx.x; at < p.cols; at += 32 * WARPS) sum += x(at);
        const float mean = team::sum(sum) * n;
        for (int at = threadIdx.x; at < p.cols; at += 32 * WARPS) squares = fmaf(x(at) - mean, x(at) - mean, squares);
        const float rstd = rsqrtf(team::sum(squares) * n + p.eps);
        if (threadIdx.x == 0) {
            p.stats[2 * (uint64_t)row] = mean;
            p.stats[2 * (uint64_t)row + 1] = rstd;
        }
        for (int at = threadIdx.x; at < p.cols; at += 32 * WARPS) {
            store(p.y[start + at], fmaf((x(at) - mean) * rstd, p.weight[at], p.bias[at]));
        }
    }
}
template <class T>
__device__ inline void backward_any(const LayerNormBwd<T>& p) {
    using team = Team<32 * WARPS>;
    const float n = 1.f / (float)p.cols;
    for (int row = blockIdx.x; row < p.rows; row += gridDim.x) {
        const uint64_t start = (uint64_t)row * p.cols;
        const float mean = p.stats[2 * (uint64_t)row], rstd = p.stats[2 * (uint64_t)row + 1];
        const auto g = [&](int at) { return to_f32(p.dy[start + at]) * p.weight[at]; };
        const auto x = [&](int at) { return (to_f32(p.x[start + at]) - mean) * rstd; };
        float sum_g = 0.f, sum_gx = 0.f;
        for (int at = threadIdx.x; at < p.cols; at += 32 * WARPS) {
            sum_g += g(at);
            sum_gx = fmaf(g(at), x(at), sum_gx);
        }
        sum_g = team::sum(sum_g) * n;
        sum_gx = team::sum(sum_gx) * n;
        for (int at = threadIdx.x; at < p.cols; at += 32 * WARPS) {
            const float d = rstd * (g(at) - sum_g - x(at) * sum_gx);
            store(p.dx[start + at], p.dres ? d + to_f32(p.dres[start + at]) : d);
        }
    }
}

constexpr int PIECE_STEP = COLUMN_WARPS;

template <bool WIDE, class T>
__device__ inline void affine(const LayerNormAffine<T>& p) {
    auto& s = shared<ColumnSums>();
    const int first = blockIdx.x * COLUMN_TILE, at = first + 8 * lane_id(), left = p.cols - at;
    float weight[8] = {}, bias[8] = {}, dy[8], x[8];
#pragma unroll 2
    for (int row = blockIdx.y * PIECE_STEP + warp_id(); row < p.rows; row += gridDim.y * PIECE_STEP) {
        const uint64_t start = (uint64_t)row * p.cols + at;
        load_up_to8<WIDE>(dy, p.dy + start, left);
        load_up_to8<WIDE>(x, p.x + start, left);
        const float mean = p.stats[2 * (uint64_t)row], rstd = p.stats[2 * (uint64_t)row + 1];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            weight[i] = fmaf(dy[i], (x[i] - mean) * rstd, weight[i]);
            bias[i] += dy[i];
        }
    }
    const float sum_weight = sum_over_warps(s, weight), sum_bias = sum_over_warps(s, bias);
    const int column = first + threadIdx.x;
    if (column < p.cols) {
        float* partial = p.partial + 2 * (uint64_t)blockIdx.y * p.cols + column;
        partial[0] = sum_weight;
        partial[p.cols] = sum_bias;
    }
}

template <class T>
__device__ inline void affine_any(const LayerNormAffine<T>& p) {
    if (p.cols % 8 == 0 && aligned16(p.dy) && aligned16(p.x)) {
        affine<true>(p);
    } else {
        affine<false>(p);
    }
}

constexpr int THREADS = 32 * WARPS, OF_WARP = 8 * EIGHTS * 32, OF_BLOCK = OF_WARP * WARPS, SHARED = sizeof(Scratch);

KERNEL(layernorm_fwd_bf16_warp, LayerNormFwd<bf16>, THREADS, 0, OF_WARP, WARPS) { forward_rows<32>(p); }
KERNEL(layernorm_fwd_f32_warp, LayerNormFwd<float>, THREADS, 0, OF_WARP, WARPS) { forward_rows<32>(p); }
KERNEL(layernorm_fwd_bf16_block, LayerNormFwd<bf16>, THREADS, SHARED, OF_BLOCK, 1) { forward_rows<THREADS>(p); }
KERNEL(layernorm_fwd_f32_block, LayerNormFwd<float>, THREADS, SHARED, OF_BLOCK, 1) { forward_rows<THREADS>(p); }
KERNEL(layernorm_fwd_bf16_any, LayerNormFwd<bf16>, THREADS, SHARED, 0, 1) { forward_any(p); }
KERNEL(layernorm_fwd_f32_any, LayerNormFwd<float>, THREADS, SHARED, 0, 1) { forward_any(p); }

KERNEL(layernorm_bwd_bf16_warp, LayerNormBwd<bf16>, THREADS, 0, OF_WARP, WARPS) { backward_rows<32>(p); }
KERNEL(layernorm_bwd_f32_warp, LayerNormBwd<float>, THREADS, 0, OF_WARP, WARPS) { backward_rows<32>(p); }
KERNEL(layernorm_bwd_bf16_block, LayerNormBwd<bf16>, THREADS, SHARED, OF_BLOCK, 1) { backward_rows<THREADS>(p); }
KERNEL(layernorm_bwd_f32_block, LayerNormBwd<float>, THREADS, SHARED, OF_BLOCK, 1) { backward_rows<THREADS>(p); }
KERNEL(layernorm_bwd_bf16_any, LayerNormBwd<bf16>, THREADS, SHARED, 0, 1) { backward_any(p); }
KERNEL(layernorm_bwd_f32_any, LayerNormBwd<float>, THREADS, SHARED, 0, 1) { backward_any(p); }

KERNEL(layernorm_bwd_affine_bf16, LayerNormAffine<bf16>, COLUMN_THREADS, sizeof(ColumnSums), COLUMN_TILE, PIECE_STEP) { affine_any(p); }
KERNEL(layernorm_bwd_affine_f32, LayerNormAffine<float>, COLUMN_THREADS, sizeof(ColumnSums), COLUMN_TILE, PIECE_STEP) { affine_any(p); }
