// The down projection of LoRA (Hu et al., arXiv 2106.09685) for several adapters, each of which applies to some of the rows:
//
//   S[i, j] = scale sum_k drop(x)[i, k] A[j, k] if a range with that scale contains row i and column j, else 0
//
// x [rows, k] bf16, A [rank, k] bf16 (the A of all adapters stacked), S [rows, rank] bf16 (=). With dy for x and B^T for A it
// computes dS = s dy B. Element (i, k) of x has mask value number i K + k, where K is the number of columns of x. Dropout zeroes
// the element if this value is 0; the scale 1 / (1 - p) of the other elements is applied to S. Reads 2 rows k bytes of x;
// 2 rows k rank FLOPs.
//
// Grid: [rank / 16 or rank / 32, rows / 32, 1]. Blocks of the same rows are neighbours in the grid, so that all but the first
// find x in L2.
//
// `ranges` has six words per range: first and end row, first and end column, the bits of the scale (f32), 0.
#include "gemm_thin.cuh"

struct LoraDown {
    const bf16* x;
    const bf16* a;
    bf16* s;
    const uint32_t* ranges;
    DropoutMask mask;
    int rows, k, rank, count;
    int ld_x, ld_a;
};

// The scale of S[row, col]: 0 outside all ranges.
__device__ inline float lora_scale(const uint32_t* ranges, int count, int row, int col) {
    float scale = 0.f;
    for (int j = 0; j < count; j++) {
        const uint32_t* const range = ranges + j * 6;
        const bool here = row >= (int)range[0] && row < (int)range[1] && col >= (int)range[2] && col < (int)range[3];
        scale = here ? __uint_as_float(range[4]) : scale;
    }
    return scale;
}

template <bool ALIGNED, int NT>
__device__ inline void lora_down(const LoraDown& p) {
    constexpr int MT = 2;
    auto& s = shared<ThinShared<MT, NT>>();
    const int row0 = (int)blockIdx.y * MT * 16, col0 = (int)blockIdx.x * NT * 8;
    const ThinOperands operands = {p.x, p.a, p.rows, p.rank, p.k, p.ld_x, p.ld_a};
    const bool dropout = p.mask.p > 0.f;
    const uint64_t rng_offset = dropout ? *p.mask.rng_offset : 0;
    thin_gemm<ALIGNED, MT, NT>(s, operands, row0, 8, col0, [&](uint4& x, int row, int col) {
        if (dropout) drop8(x, p.mask, rng_offset, (uint64_t)row * p.k + col);
    });
    const float keep = 1.f / (1.f - p.mask.p);
    for (int i = (int)threadIdx.x; i < MT * 16 * NT * 8; i += THIN_WARPS * 32) {
        const int r = i / (NT * 8), c = i % (NT * 8), row = row0 + r, col = col0 + c;
        if (row >= p.rows || col >= p.rank) continue;
        const float scale = lora_scale(p.ranges, p.count, row, col);
        p.s[(int64_t)row * p.rank + col] = to_bf16(scale != 0.f ? s.sum[0][r][c] * (scale * keep) : 0.f);
    }
}

KERNEL(lora_down_bf16_16, LoraDown, 256, sizeof(ThinShared<2, 2>), 32, 16) { lora_down<true, 2>(p); }
KERNEL(lora_down_bf16_32, LoraDown, 256, sizeof(ThinShared<2, 4>), 32, 32) { lora_down<true, 4>(p); }
KERNEL(lora_down_bf16_32_any, LoraDown, 256, sizeof(ThinShared<2, 4>), 32, 32) { lora_down<false, 4>(p); }

// lora_select_bf16: s [rows, rank] bf16 = s times the scale of its range, or 0 outside all ranges, in place. It turns x A^T of
// all rows and columns, which the kernel that computed x has produced too (layernorm_lora.cu), into S. Grid:
// [rows rank / 256, 1, 1].
struct LoraSelect {
    bf16* s;
    const uint32_t* ranges;
    int rows, rank, count;
};

KERNEL(lora_select_bf16, LoraSelect, 256, 0, 256) {
    const int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= (int64_t)p.rows * p.rank) return;
    const float scale = lora_scale(p.ranges, p.count, (int)(i / p.rank), (int)(i % p.rank));
    p.s[i] = to_bf16(scale != 0.f ? to_f32(p.s[i]) * scale : 0.f);
}
