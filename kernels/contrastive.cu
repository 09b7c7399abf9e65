// Image-caption loss (CLIP, arXiv 2103.00020) and its gradients, where images may share a caption. z [b, c] = scale x y^T for b
// images x and c captions y, all normalised to length 1. Image i has caption l_i, caption k has n_k images, and c' captions have
// n_k > 0. With lse for log-sum-exp, over a row of z for each image and over a column for each caption with images:
//
//   loss = sum_i (lse(z[i, :]) - z[i, l_i]) / (2 b) + sum_k (lse(z[:, k]) - mean of z[i, k] over l_i = k) / (2 c')
//
// Inputs and their gradients are bf16 or f32. Everything in between is f32, [b, c] or [rows, d], small beside the network.
//
//   contrastive_unit_{bf16,f32}   u [n, d] f32 = x / length, length [n] f32 = max(|x|, 1e-12)
//   contrastive_gemm_f32       GEMM out [m, n] f32 = scale sum_k a(i, k) b(k, j), any strides; 2 m n k FLOPs
//   contrastive_lines_f32         lines [b + c, 3] f32 = {max, sum exp(z - max), term of the loss} of each row of z [b, c], then
//                                 of each column
//   contrastive_grad_f32          dz [b, c] f32 = (softmax_row - [l_i = k]) / (2 b) +
//                                 (softmax_column - [l_i = k] / n_k) / (2 c'), the second term only where n_k > 0; dots [b] f32 =
//                                 sum_k z dz
//   contrastive_back_{bf16,f32}   dx [n, d] = (du - u (u.du)) / length
//   contrastive_sum_f32           result [2] f32 = {loss, sum of dots}; the second is the gradient of log(scale)
#include "reduce.cuh"
#include "row.cuh"

constexpr int UNIT_THREADS = 128;
struct ContrastiveScratch {
    float scratch[32];
};

template <class T>
struct ContrastiveUnit {
    const T* x;
    float* u;
    float* length;
    int d;
};
template <class T>
__device__ inline void contrastive_unit(const ContrastiveUnit<T>& p) {
    auto& s = shared<ContrastiveScratch>();
    const size_t row = (size_t)blockIdx.x * p.d;
    float squares = 0.f;
    for (int i = threadIdx.x; i < p.d; i += UNIT_THREADS) {
        const float x = to_f32(p.x[row + i]);
        squares += x * x;
    }
    const float length = fmaxf(sqrtf(block_sum<UNIT_THREADS>(squares, s.scratch)), 1e-12f);
    for (int i = threadIdx.x; i < p.d; i += UNIT_THREADS) p.u[row + i] = to_f32(p.x[row + i]) / length;
    if (threadIdx.x == 0) p.length[blockIdx.x] = length;
}
KERNEL(contrastive_unit_bf16, ContrastiveUnit<bf16>, UNIT_THREADS, sizeof(ContrastiveScratch)) { contrastive_unit(p); }
KERNEL(contrastive_unit_f32, ContrastiveUnit<float>, UNIT_THREADS, sizeof(ContrastiveScratch)) { contrastive_unit(p); }

template <class T>
struct ContrastiveBack {
    const float* du;
    const float* u;
    const float* length;
    T* dx;
    int d;
};
template <class T>
__device__ inline void contrastive_back(const ContrastiveBack<T>& p) {
    auto& s = shared<ContrastiveScratch>();
    const size_t row = (size_t)blockIdx.x * p.d;
    float along = 0.f;
    for (int i = threadIdx.x; i < p.d; i += UNIT_THREADS) along += p.u[row + i] * p.du[row + i];
    along = block_sum<UNIT_THREADS>(along, s.scratch);
    const float length = p.length[blockIdx.x];
    for (int i = threadIdx.x; i < p.d; i += UNIT_THREADS) {
        store(p.dx[row + i], (p.du[row + i] - p.u[row + i] * along) / length);
    }
}
KERNEL(contrastive_back_bf16, ContrastiveBack<bf16>, UNIT_THREADS, sizeof(ContrastiveScratch)) { contrastive_back(p); }
KERNEL(contrastive_back_f32, ContrastiveBack<float>, UNIT_THREADS, sizeof(ContrastiveScratch)) { contrastive_back(p); }

struct ContrastiveGemm {
    const float* a;
    const float* b;
    float* out;
    int m, n, k;
    int a_row, a_col, b_row, b_col;  // a(i, k) = a[i a_row + k a_col], b(k, j) = b[k b_row + j b_col]
    float scale;
};
constexpr int GEMM_SIDE = 32;
struct ContrastiveTiles {
    float a[GEMM_SIDE][GEMM_SIDE + 1];  // [i][k]
    float b[GEMM_SIDE][GEMM_SIDE + 1];  // [k][j]
};
// Tiles of 32x32; thread (y, x) of 16x16 computes rows y, y + 16 and columns x, x + 16.
KERNEL(contrastive_gemm_f32, ContrastiveGemm, 256, sizeof(ContrastiveTiles), GEMM_SIDE, GEMM_SIDE) {
    auto& s = shared<ContrastiveTiles>();
    const int i0 = blockIdx.y * GEMM_SIDE, j0 = blockIdx.x * GEMM_SIDE;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    float sum[2][2] = {};
    for (int k0 = 0; k0 < p.k; k0 += GEMM_SIDE) {
        for (int e = threadIdx.x; e < GEMM_SIDE * GEMM_SIDE; e += 256) {
            const int slow = e / GEMM_SIDE, fast = e % GEMM_SIDE;
            // Coalesced loads: neighbouring threads read along the dimension that is contiguous.
            const int ai = p.a_col == 1 ? slow : fast, ak = p.a_col == 1 ? fast : slow;
            const int bk = p.b_col == 1 ? slow : fast, bj = p.b_col == 1 ? fast : slow;
            const bool a_in = i0 + ai < p.m && k0 + ak < p.k, b_in = j0 + bj < p.n && k0 + bk < p.k;
            s.a[ai][ak] = a_in ? p.a[(size_t)(i0 + ai) * p.a_row + (size_t)(k0 + ak) * p.a_col] : 0.f;
            s.b[bk][bj] = b_in ? p.b[(size_t)(k0 + bk) * p.b_row + (size_t)(j0 + bj) * p.b_col] : 0.f;
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < GEMM_SIDE; k++) {
            const float a0 = s.a[y][k], a1 = s.a[y + 16][k], b0 = s.b[k][x], b1 = s.b[k][x + 16];
            sum[0][0] = fmaf(a0, b0, sum[0][0]);
            sum[0][1] = fmaf(a0, b1, sum[0][1]);
            sum[1][0] = fmaf(a1, b0, sum[1][0]);
            sum[1][1] = fmaf(a1, b1, sum[1][1]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const int i = i0 + y + 16 * r, j = j0 + x + 16 * c;
            if (i < p.m && j < p.n) p.out[(size_t)i * p.n + j] = sum[r][c] * p.scale;
        }
    }
}

struct ContrastiveLines {
    const float* z;
    const uint32_t* labels;  // [b], the caption of each image
    const uint32_t* counts;  // [c], the number of images of each caption
    float* lines;            // [b + c, 3]
    int b, c;
    float by_image, by_caption;  // 1 / (2 b) and 1 / (2 c')
};
KERNEL(contrastive_lines_f32, ContrastiveLines, UNIT_THREADS, sizeof(ContrastiveScratch)) {
    auto& s = shared<ContrastiveScratch>();
    const bool column = (int)blockIdx.x >= p.b;
    const int line = column ? blockIdx.x - p.b : blockIdx.x;
    const int n = column ? p.b : p.c, step = column ? p.c : 1;
    const float* z = p.z + (column ? (size_t)line : (size_t)line * p.c);

    float top = -3.402823466e38f;
    for (int i = threadIdx.x; i < n; i += UNIT_THREADS) top = fmaxf(top, z[(size_t)i * step]);
    top = warp_max(top);
    if (lane_id() == 0) s.scratch[warp_id()] = top;
    __syncthreads();
    for (int w = 0; w < UNIT_THREADS / 32; w++) top = fmaxf(top, s.scratch[w]);
    __syncthreads();

    const uint32_t own = column ? (uint32_t)line : p.labels[line];
    float sum = 0.f, hits = 0.f;
    for (int i = threadIdx.x; i < n; i += UNIT_THREADS) {
        const float below = z[(size_t)i * step] - top;
        sum += expf(below);
        if ((column ? p.labels[i] : (uint32_t)i) == own) hits += below;
    }
    sum = block_sum<UNIT_THREADS>(sum, s.scratch);
    hits = block_sum<UNIT_THREADS>(hits, s.scratch);
    if (threadIdx.x == 0) {
        const float images = column ? (float)p.counts[line] : 1.f;
        const float loss = images > 0.f ? logf(sum) - hits / images : 0.f;
        float* out = p.lines + 3 * (size_t)blockIdx.x;
        out[0] = top;
        out[1] = sum;
        out[2] = loss * (column ? p.by_caption : p.by_image);
    }
}

struct ContrastiveGrad {
    const float* z;
    const uint32_t* labels;
    const uint32_t* counts;
    const float* lines;
    float* dz;
    float* dots;
    int b, c;
    float by_image, by_caption;
};
KERNEL(contrastive_grad_f32, ContrastiveGrad, UNIT_THREADS, sizeof(ContrastiveScratch)) {
    auto& s = shared<ContrastiveScratch>();
    const int row = blockIdx.x, label = (int)p.labels[row];
    const float top = p.lines[3 * row], sum = p.lines[3 * row + 1];
    float dot = 0.f;
    for (int k = threadIdx.x; k < p.c; k += UNIT_THREADS) {
        const float z = p.z[(size_t)row * p.c + k], hit = k == label ? 1.f : 0.f;
        float dz = p.by_image * (expf(z - top) / sum - hit);
        if (p.counts[k] > 0) {
            const float* column = p.lines + 3 * ((size_t)p.b + k);
            dz += p.by_caption * (expf(z - column[0]) / column[1] - hit / (float)p.counts[k]);
        }
        p.dz[(size_t)row * p.c + k] = dz;
        dot += z * dz;
    }
    dot = block_sum<UNIT_THREADS>(dot, s.scratch);
    if (threadIdx.x == 0) p.dots[row] = dot;
}

struct ContrastiveSum {
    const float* lines;
    const float* dots;
    float* result;
    int b, c;
};
KERNEL(contrastive_sum_f32, ContrastiveSum, UNIT_THREADS, sizeof(ContrastiveScratch)) {
    auto& s = shared<ContrastiveScratch>();
    float loss = 0.f, dot = 0.f;
    for (int i = threadIdx.x; i < p.b + p.c; i += UNIT_THREADS) loss += p.lines[3 * i + 2];
    for (int i = threadIdx.x; i < p.b; i += UNIT_THREADS) dot += p.dots[i];
    loss = block_sum<UNIT_THREADS>(loss, s.scratch);
    dot = block_sum<UNIT_THREADS>(dot, s.scratch);
    if (threadIdx.x == 0) {
        p.result[0] = loss;
        p.result[1] = dot;
    }
}
