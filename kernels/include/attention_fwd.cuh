// Forward of attention for the 16 MT queries of a warp, with an online softmax: `begin` loads the queries, each `step` processes
// some keys from shared memory, and `finish` stores the result.
#pragma once
#include "attention.cuh"
#include "math.cuh"

struct AttentionFwd {
    const bf16* q;
    const bf16* k;
    const bf16* v;
    bf16* o;
    float* lse;
    float* part;
    float* stats;
    const int* items;
    int rows, heads, dim, q_stride, k_stride, v_stride;
    float scale_log2;
    int causal;
};

template <int DP, int MT>
struct Forward {
    uint32_t q[MT][DP / 16][4];
    // For the rows g and g + 8 of each tile of 16, with x = q k^T: the largest x so far, the sum of e^(scale (x - top)) over this
    // lane's columns, and the sum of e^(scale (x - top)) v over all keys.
    float top[MT][2], sum[MT][2], o[MT][DP / 8][4];
};

// Loads the queries from the item's row `first` on and clears the accumulators.
template <int DP, int MT>
__device__ inline void begin(Forward<DP, MT>& r, const AttentionFwd& p, const AttentionItem& item, int first) {
    const bf16* q = p.q + (int64_t)item.row * p.q_stride + blockIdx.y * p.dim;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        load_left<DP>(r.q[m], q, p.q_stride, first + 16 * m, item.rows, p.dim);
        r.top[m][0] = r.top[m][1] = MINUS_INFINITY;
        r.sum[m][0] = r.sum[m][1] = 0.f;
#pragma unroll
        for (int j = 0; j < DP / 8; j++) r.o[m][j][0] = r.o[m][j][1] = r.o[m][j][2] = r.o[m][j][3] = 0.f;
    }
}

// Processes KEYS keys: the rows of the tiles from c0 on, which are the item's keys from `at` on.
template <int KEYS, int DP, int MT, int ROWS>
__device__ inline void step(Forward<DP, MT>& r, const HeadTile<ROWS, DP>& ks, const HeadTile<ROWS, DP>& vs, int c0, int at,
                            const AttentionFwd& p, const AttentionItem& item, int first) {
    constexpr int NT = KEYS / 8;
    const int g = lane_id() / 4, t = lane_id() % 4;
    float x[MT][NT][4] = {};
#pragma unroll
    for (int kk = 0; kk < DP / 16; kk++) {
#pragma unroll
        for (int j = 0; j < NT; j += 2) {
            uint32_t b[4];
            rows_as_columns(b, ks, c0 + 8 * j, 16 * kk);
#pragma unroll
            for (int m = 0; m < MT; m++) mma_pair(x[m][j], x[m][j + 1], r.q[m][kk], b);
        }
    }
    // The number of keys that every row of this warp sees. Only later keys need a mask.
    const int fewest = min(item.loop_rows, item.causal_limit + (p.causal ? first : 0));
    if (at + KEYS > fewest) {
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = first + 16 * m + g + 8 * (i / 2);
                const int seen = min(item.loop_rows, item.causal_limit + (p.causal ? row : 0)) - at - 2 * t - i % 2;
#pragma unroll
                for (int j = 0; j < NT; j++) {
                    if (8 * j >= seen) x[m][j][i] = MINUS_INFINITY;
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float high = r.top[m][h];
#pragma unroll
            for (int j = 0; j < NT; j++) high = fmaxf(high, fmaxf(x[m][j][2 * h], x[m][j][2 * h + 1]));
            high = quad_max(high);
            // For a row that has seen no key yet, base = 0 gives 2^(-inf - 0) = 0, where -inf - -inf would be NaN.
            const float base = high == MINUS_INFINITY ? 0.f : high * p.scale_log2;
            const float fade = exp2_fast(fmaf(r.top[m][h], p.scale_log2, -base));
            r.top[m][h] = high;
            float total = 0.f;
#pragma unroll
            for (int j = 0; j < NT; j++) {
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++) {
                    x[m][j][i] = exp2_fast(fmaf(x[m][j][i], p.scale_log2, -base));
                    total += x[m][j][i];
                }
            }
            r.sum[m][h] = fmaf(r.sum[m][h], fade, total);
#pragma unroll
            for (int j = 0; j < DP / 8; j++) r.o[m][j][2 * h] *= fade, r.o[m][j][2 * h + 1] *= fade;
        }
    }
#pragma unroll
    for (int jj = 0; jj < KEYS / 16; jj++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) as_left(a[m], x[m][2 * jj], x[m][2 * jj + 1]);
#pragma unroll
        for (int c = 0; c < DP / 8; c += 2) {
            uint32_t b[4];
            rows_as_depth(b, vs, c0 + 16 * jj, 8 * c);
#pragma unroll
            for (int m = 0; m < MT; m++) mma_pair(r.o[m][c], r.o[m][c + 1], a[m], b);
        }
    }
}

template <int DP, int MT>
__device__ inline void finish(const Forward<DP, MT>& r, const AttentionFwd& p, const AttentionItem& item, int first) {
    const int head = blockIdx.y, g = lane_id() / 4, t = lane_id() % 4, column = head * p.dim;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        const int row = first + 16 * m;
        float total[2], scaled[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            total[h] = quad_sum(r.sum[m][h]);
            scaled[h] = r.top[m][h] == MINUS_INFINITY ? MINUS_INFINITY : r.top[m][h] * p.scale_log2;
        }
        if (p.part == nullptr) {
            const float by[2] = {total[0] == 0.f ? 0.f : reciprocal(total[0]), total[1] == 0.f ? 0.f : reciprocal(total[1])};
            bf16* to = p.o + (int64_t)item.row * p.q_stride + column;
            store_rows<DP>(to, p.q_stride, row, item.rows, p.dim, r.o[m], by[0], by[1]);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int at_row = row + g + 8 * h;
                if (t == 0 && at_row < item.rows) {
                    p.lse[(int64_t)head * p.rows + item.row + at_row] =
                        total[h] == 0.f ? PLUS_INFINITY : scaled[h] + log2f(total[h]);
                }
            }
            continue;
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int at_row = row + g + 8 * h;
            if (at_row >= item.rows) continue;
            const int64_t at = (int64_t)(item.partial_row + at_row) * p.heads + head;
            if (t == 0) p.stats[2 * at] = scaled[h], p.stats[2 * at + 1] = total[h];
#pragma unroll
            for (int j = 0; j < DP / 8; j++) {
                if (8 * j >= p.dim) continue;
                *reinterpret_cast<float2*>(p.part + at * p.dim + 8 * j + 2 * t) =
                    make_float2(r.o[m][j][2 * h], r.o[m][j][2 * h + 1]);
            }
        }
    }
}
