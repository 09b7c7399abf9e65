// The share of each query's attention that falls on each segment of its keys: with p = softmax(scale q k^T),
//   y[head, query, n] = sum of p over the keys bounds[n] <= j < bounds[n + 1] of the query's span.
//
//   attention_segment_sums_bf16_*   q [rows, heads dim], k [keys, heads dim] bf16, whose rows are q_stride and k_stride elements
//                                   apart; bounds [segments + 1] u32, ascending, counted from the span's first key;
//                                   y [heads, rows, segments] f32 =, 0 for a query that sees no key. Loops over the keys twice:
//                                   first for the maximum and the denominator of the softmax, then for the sums.
//
// Reads 2 bytes per element of q, and k twice for each tile of queries (2 bytes per element each time); writes 4 bytes per
// element of y. 4 dim FLOPs per head and pair of a query and a visible key.
//
// Grid: (items, heads). An item has at most tile[0] queries, and keys are loaded in tiles of tile[1].
#include "attention.cuh"
#include "math.cuh"

struct SegmentSums {
    const bf16* q;
    const bf16* k;
    float* y;
    const uint32_t* bounds;
    const int* items;
    int rows, heads, dim, q_stride, k_stride, segments;
    float scale_log2;
    int causal;
};

constexpr int WARPS = 4, THREADS = 32 * WARPS;
// Keys per tile: fewer for large heads, whose query fragments take more registers.
template <int DP>
constexpr int KEYS_OF = DP > 96 ? 32 : 64;

template <int DP>
struct KeyTiles {
    HeadTile<KEYS_OF<DP>, DP> k[2];
};

// Loops over the item's keys from `begin` to `end` and calls `body` with the scores q k^T of each tile, -inf where a query does
// not see a key. All threads of the block must call it, also the warps without queries.
template <int DP, class Body>
__device__ inline void sweep(const SegmentSums& p, const AttentionItem& item, const uint32_t (&qf)[DP / 16][4], int begin, int end,
                             Body body) {
    constexpr int KEYS = KEYS_OF<DP>;
    auto& s = shared<KeyTiles<DP>>();
    const bf16* k = p.k + (int64_t)item.loop_row * p.k_stride + blockIdx.y * p.dim;
    const int first = 16 * warp_id(), g = lane_id() / 4, t = lane_id() % 4;
    auto fetch = [&](int at, int buffer) {
        load_tile<THREADS>(s.k[buffer], k + (int64_t)at * p.k_stride, p.k_stride, end - at, p.dim);
        cp_async_commit();
    };
    // Other warps may still be reading the last tile of the previous sweep.
    __syncthreads();
    if (begin < end) fetch(begin, 0);
    int buffer = 0;
    for (int at = begin; at < end; at += KEYS, buffer ^= 1) {
        cp_async_wait<0>();
        __syncthreads();
        if (at + KEYS < end) fetch(at + KEYS, buffer ^ 1);
        if (first >= item.rows) continue;
        float x[KEYS / 8][4] = {};
#pragma unroll
        for (int kk = 0; kk < DP / 16; kk++) {
#pragma unroll
            for (int j = 0; j < KEYS / 8; j += 2) {
                uint32_t b[4];
                rows_as_columns(b, s.k[buffer], 8 * j, 16 * kk);
                mma_pair(x[j], x[j + 1], qf[kk], b);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int seen = min(end, item.causal_limit + (p.causal ? first + g + 8 * (i / 2) : 0)) - at - 2 * t - i % 2;
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
                if (8 * j >= seen) x[j][i] = MINUS_INFINITY;
            }
        }
        body(x);
    }
}

template <int DP>
__device__ inline void segment_sums(const SegmentSums& p) {
    constexpr int KEYS = KEYS_OF<DP>;
    const AttentionItem item = attention_item(p.items);
    const int head = blockIdx.y, first = 16 * warp_id(), g = lane_id() / 4, t = lane_id() % 4;
    uint32_t qf[DP / 16][4];
    load_left<DP>(qf, p.q + (int64_t)item.row * p.q_stride + head * p.dim, p.q_stride, first, item.rows, p.dim);

    float top[2] = {MINUS_INFINITY, MINUS_INFINITY}, base[2] = {}, sum[2] = {};
    sweep<DP>(p, item, qf, 0, item.loop_rows, [&](const float (&x)[KEYS / 8][4]) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float high = top[h];
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) high = fmaxf(high, fmaxf(x[j][2 * h], x[j][2 * h + 1]));
            high = quad_max(high);
            base[h] = high == MINUS_INFINITY ? 0.f : high * p.scale_log2;
            sum[h] *= exp2_fast(fmaf(top[h], p.scale_log2, -base[h]));
            top[h] = high;
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
                sum[h] += exp2_fast(fmaf(x[j][2 * h], p.scale_log2, -base[h]));
                sum[h] += exp2_fast(fmaf(x[j][2 * h + 1], p.scale_log2, -base[h]));
            }
        }
    });
    float by[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float total = quad_sum(sum[h]);
        by[h] = total == 0.f ? 0.f : reciprocal(total);
    }
    for (int n = 0; n < p.segments; n++) {
        const int begin = min((int)p.bounds[n], item.loop_rows), end = min((int)p.bounds[n + 1], item.loop_rows);
        float part[2] = {};
        sweep<DP>(p, item, qf, begin, end, [&](const float (&x)[KEYS / 8][4]) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
#pragma unroll
                for (int j = 0; j < KEYS / 8; j++) {
                    part[h] += exp2_fast(fmaf(x[j][2 * h], p.scale_log2, -base[h]));
                    part[h] += exp2_fast(fmaf(x[j][2 * h + 1], p.scale_log2, -base[h]));
                }
            }
        });
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int r = first + g + 8 * h;
            const float total = quad_sum(part[h]);
            if (t == 0 && r < item.rows) {
                p.y[((int64_t)head * p.rows + item.row + r) * p.segments + n] = total * by[h];
            }
        }
    }
}

#define SEGMENT_SUMS(D) \
    KERNEL(attention_segment_sums_bf16_d##D, SegmentSums, THREADS, sizeof(KeyTiles<D>), 16 * WARPS, KEYS_OF<D>) { segment_sums<D>(p); }

SEGMENT_SUMS(16)
SEGMENT_SUMS(32)
SEGMENT_SUMS(48)
SEGMENT_SUMS(64)
SEGMENT_SUMS(80)
SEGMENT_SUMS(96)
SEGMENT_SUMS(112)
SEGMENT_SUMS(128)
