// Attention, forward: o = softmax(scale q k^T) v for each span and head (Dao, FlashAttention-2, arXiv 2307.08691).
//
//   attention_fwd_bf16_*    q, o [rows, heads dim], k, v [keys, heads dim], bf16, rows strides apart; lse [heads, rows] f32.
//                           For the queries of its item a block reads keys and values tile by tile, keeps in registers the largest
//                           score m, l = sum of e^(s - m) and the sum of e^(s - m) v, and writes o = that / l and
//                           lse = log2 of the sum of 2^(scale log2(e) q k). With no visible key o = 0, lse = inf.
//                           With `part`, items cut the keys too: then it writes m, l [part_rows, heads, 2] and the sum unscaled
//                           [part_rows, heads, dim] f32 at the item's slot, and not o and lse.
//   attention_combine_bf16  o and lse of the parts of each query, in the order of the keys. An item's `others` is the number of
//                           parts, `rows` rows each, from row `slot` on.
//
// lse is one number where the CPU keeps m and l apart: rounding it moves all weights of a row by at most |lse| 2^-24, far below the
// 2^-9 by which bf16 rounds each of them in the products of backward.
//
// Reads 2 bytes an element of q, k, v (k and v once for every tile of queries, from L2 mostly), writes 2 of o and 4 of lse;
// 4 dim FLOPs for each pair of a query and a visible key and head.
// Grids: (items, heads); tile[0] queries to an item at most; keys in tiles of tile[1].
#include "attention.cuh"

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

template <int DP, int KEYS>
struct FwdTiles {
    HeadTile<KEYS, DP> k[2], v[2];
};

// A warp's rows are MT tiles of 16.
template <int DP, int WARPS, int MT, int KEYS>
__device__ inline void forward(const AttentionFwd& p) {
    constexpr int THREADS = 32 * WARPS, NT = KEYS / 8;
    auto& s = shared<FwdTiles<DP, KEYS>>();
    const AttentionItem item = attention_item(p.items);
    const int head = blockIdx.y, g = lane_id() / 4, t = lane_id() % 4, first = 16 * MT * warp_id(), column = head * p.dim;
    const bf16* k = p.k + (int64_t)item.other * p.k_stride + column;
    const bf16* v = p.v + (int64_t)item.other * p.v_stride + column;
    const bf16* q = p.q + (int64_t)item.row * p.q_stride + column;

    auto fetch = [&](int tile) {
        const int at = tile * KEYS, left = item.others - at;
        load_tile<THREADS>(s.k[tile % 2], k + (int64_t)at * p.k_stride, p.k_stride, left, p.dim);
        load_tile<THREADS>(s.v[tile % 2], v + (int64_t)at * p.v_stride, p.v_stride, left, p.dim);
        cp_async_commit();
    };
    const int tiles = (item.others + KEYS - 1) / KEYS;
    if (tiles > 0) fetch(0);

    uint32_t qf[MT][DP / 16][4];
    float o[MT][DP / 8][4] = {}, top[MT][2], sum[MT][2] = {};
#pragma unroll
    for (int m = 0; m < MT; m++) {
        load_left<DP>(qf[m], q, p.q_stride, first + 16 * m, item.rows, p.dim);
        top[m][0] = top[m][1] = MINUS_INFINITY;
    }
    const bool active = first < item.rows;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) fetch(tile + 1);
        if (!active) continue;
        const auto& ks = s.k[tile % 2];
        const auto& vs = s.v[tile % 2];
        float x[MT][NT][4] = {};
#pragma unroll
        for (int kk = 0; kk < DP / 16; kk++) {
#pragma unroll
            for (int j = 0; j < NT; j += 2) {
                uint32_t b[4];
                rows_as_columns(b, ks, 8 * j, 16 * kk);
#pragma unroll
                for (int m = 0; m < MT; m++) mma_pair(x[m][j], x[m][j + 1], qf[m][kk], b);
            }
        }
        // The fewest keys that a row of this warp sees; only beyond them is there something to hide.
        const int at = tile * KEYS, fewest = min(item.others, item.seen + (p.causal ? first : 0));
        if (at + KEYS > fewest) {
#pragma unroll
            for (int m = 0; m < MT; m++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int row = first + 16 * m + g + 8 * (i / 2);
                    const int seen = min(item.others, item.seen + (p.causal ? row : 0)) - at - 2 * t - i % 2;
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
                float high = top[m][h];
#pragma unroll
                for (int j = 0; j < NT; j++) high = fmaxf(high, fmaxf(x[m][j][2 * h], x[m][j][2 * h + 1]));
                high = quad_max(high);
                // A row that sees no key yet: 2^(-inf - 0) = 0 where -inf - -inf would be NaN.
                const float base = high == MINUS_INFINITY ? 0.f : high * p.scale_log2;
                const float fade = exp2_fast(fmaf(top[m][h], p.scale_log2, -base));
                top[m][h] = high;
                float total = 0.f;
#pragma unroll
                for (int j = 0; j < NT; j++) {
#pragma unroll
                    for (int i = 2 * h; i < 2 * h + 2; i++) {
                        x[m][j][i] = exp2_fast(fmaf(x[m][j][i], p.scale_log2, -base));
                        total += x[m][j][i];
                    }
                }
                sum[m][h] = fmaf(sum[m][h], fade, total);
#pragma unroll
                for (int j = 0; j < DP / 8; j++) o[m][j][2 * h] *= fade, o[m][j][2 * h + 1] *= fade;
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
                rows_as_depth(b, vs, 16 * jj, 8 * c);
#pragma unroll
                for (int m = 0; m < MT; m++) mma_pair(o[m][c], o[m][c + 1], a[m], b);
            }
        }
    }

    if (!active) return;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        const int row = first + 16 * m;
        float total[2], scaled[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            total[h] = quad_sum(sum[m][h]);
            scaled[h] = top[m][h] == MINUS_INFINITY ? MINUS_INFINITY : top[m][h] * p.scale_log2;
        }
        if (p.part == nullptr) {
            const float by[2] = {total[0] == 0.f ? 0.f : 1.f / total[0], total[1] == 0.f ? 0.f : 1.f / total[1]};
            bf16* to = p.o + (int64_t)item.row * p.q_stride + column;
            store_rows<DP>(to, p.q_stride, row, item.rows, p.dim, o[m], by[0], by[1]);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int r = row + g + 8 * h;
                if (t == 0 && r < item.rows) {
                    p.lse[(int64_t)head * p.rows + item.row + r] =
                        total[h] == 0.f ? PLUS_INFINITY : scaled[h] + log2f(total[h]);
                }
            }
            continue;
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int r = row + g + 8 * h;
            if (r >= item.rows) continue;
            const int64_t at = (int64_t)(item.slot + r) * p.heads + head;
            if (t == 0) p.stats[2 * at] = scaled[h], p.stats[2 * at + 1] = total[h];
#pragma unroll
            for (int j = 0; j < DP / 8; j++) {
                if (8 * j >= p.dim) continue;
                *reinterpret_cast<float2*>(p.part + at * p.dim + 8 * j + 2 * t) =
                    make_float2(o[m][j][2 * h], o[m][j][2 * h + 1]);
            }
        }
    }
}

#define ATTENTION_FWD(name, DP, WARPS, MT, KEYS) \
    KERNEL(name, AttentionFwd, 32 * WARPS, sizeof(FwdTiles<DP, KEYS>), 16 * MT * WARPS, KEYS) { forward<DP, WARPS, MT, KEYS>(p); }

ATTENTION_FWD(attention_fwd_bf16_d16, 16, 4, 1, 128)
ATTENTION_FWD(attention_fwd_bf16_d32, 32, 4, 1, 64)
ATTENTION_FWD(attention_fwd_bf16_d48, 48, 4, 1, 64)
ATTENTION_FWD(attention_fwd_bf16_d64, 64, 4, 1, 64)
ATTENTION_FWD(attention_fwd_bf16_d80, 80, 4, 1, 64)
ATTENTION_FWD(attention_fwd_bf16_d96, 96, 4, 1, 32)
ATTENTION_FWD(attention_fwd_bf16_d112, 112, 4, 1, 64)
ATTENTION_FWD(attention_fwd_bf16_d128, 128, 4, 1, 64)
// Many queries: 32 rows to a warp, so that each key and value that is loaded from shared memory serves twice as many.
ATTENTION_FWD(attention_fwd_bf16_d32_long, 32, 4, 2, 32)
ATTENTION_FWD(attention_fwd_bf16_d64_long, 64, 4, 2, 64)
ATTENTION_FWD(attention_fwd_bf16_d80_long, 80, 4, 2, 32)
// 65 to 80 queries, a prompt's worth: one tile of five warps instead of two of which the second is empty.
ATTENTION_FWD(attention_fwd_bf16_d64_80, 64, 5, 1, 64)

constexpr int COMBINE_WARPS = 4;

KERNEL(attention_combine_bf16, AttentionFwd, 32 * COMBINE_WARPS, 0) {
    const AttentionItem item = attention_item(p.items);
    const int head = blockIdx.y;
    for (int r = warp_id(); r < item.rows; r += COMBINE_WARPS) {
        float top = MINUS_INFINITY, sum = 0.f;
        for (int i = 0; i < item.others; i++) {
            top = fmaxf(top, p.stats[2 * ((int64_t)(item.slot + i * item.rows + r) * p.heads + head)]);
        }
        const float base = top == MINUS_INFINITY ? 0.f : top;
        for (int i = 0; i < item.others; i++) {
            const float* stats = p.stats + 2 * ((int64_t)(item.slot + i * item.rows + r) * p.heads + head);
            sum = fmaf(stats[1], exp2_fast(stats[0] - base), sum);
        }
        const float by = sum == 0.f ? 0.f : 1.f / sum;
        for (int c = 2 * lane_id(); c < p.dim; c += 64) {
            float x = 0.f, y = 0.f;
            for (int i = 0; i < item.others; i++) {
                const int64_t at = (int64_t)(item.slot + i * item.rows + r) * p.heads + head;
                const float weight = exp2_fast(p.stats[2 * at] - base);
                const float2 part = *reinterpret_cast<const float2*>(p.part + at * p.dim + c);
                x = fmaf(part.x, weight, x), y = fmaf(part.y, weight, y);
            }
            *reinterpret_cast<uint32_t*>(p.o + (int64_t)(item.row + r) * p.q_stride + head * p.dim + c) =
                pack_bf16(x * by, y * by);
        }
        if (lane_id() == 0) {
            p.lse[(int64_t)head * p.rows + item.row + r] = sum == 0.f ? PLUS_INFINITY : base + log2f(sum);
        }
    }
}
