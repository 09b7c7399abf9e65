// Attention, backward, in two kernels of which each owns what it writes: no sum crosses blocks, and results have the same bits always.
//
// With x = scale log2(e) q k^T, p = 2^(x - lse) (0 where a query does not see a key), dp = do v^T, delta = rowsum(do o):
//   ds = p (dp - delta)     dq = scale ds k     dk = scale ds^T q     dv = p^T do
//
//   attention_bwd_dq_bf16_*   owns tiles of queries. Reads q, k, v, o, do, lse; writes dq, and delta [heads, rows] f32.
//   attention_bwd_dkv_bf16_*  owns tiles of keys. Reads q, k, v, do, lse, delta; writes dk and dv. Its items' others are queries:
//                             the first is the first that sees a key of the tile.
//
// Layouts are those of forward; dq and do as q, dk and dv as k and v. A row with lse = inf has p = 0. delta is summed by the same
// products as dp, so that where a query sees one key, and o is that key's value, dp - delta is 0 to the bit.
//
// Bytes: 2 an element of q, o, do, dq, k, v, dk, dv, and k and v again for each tile of queries, q and do for each tile of keys
// (from L2 mostly); 8 a query and head of lse and delta. 14 dim FLOPs for each pair of a query and a visible key and head.
// Grids: (items, heads); tile[0] rows to an item at most; the others in tiles of tile[1].
#include "attention.cuh"

struct AttentionBwd {
    const bf16* q;
    const bf16* k;
    const bf16* v;
    const bf16* o;
    const bf16* dout;
    const float* lse;
    float* delta;
    bf16* dq;
    bf16* dk;
    bf16* dv;
    const int* items;
    int rows, heads, dim, q_stride, k_stride, v_stride;
    float scale, scale_log2;
    int causal, pad;
};

// The diagonal of a bT for 16 rows a (as a left operand) and the same rows of b in global memory, to all lanes of a row: of the
// rows g and g + 8.
template <int DP>
__device__ inline void row_products(float (&to)[2], const uint32_t (&a)[DP / 16][4], const bf16* b, int stride, int first, int rows,
                                    int dim) {
    const int g = lane_id() / 4, t = lane_id() % 4;
    float d[2][4] = {};
#pragma unroll
    for (int k = 0; k < DP / 16; k++) {
#pragma unroll
        for (int n = 0; n < 2; n++) {
            uint32_t right[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int r = first + 8 * n + g, c = 16 * k + 8 * i + 2 * t;
                right[i] = r < rows && c < dim ? *reinterpret_cast<const uint32_t*>(b + (int64_t)r * stride + c) : 0u;
            }
            mma_bf16(d[n], a[k], right);
        }
    }
    // Column g of the tile is element g % 2 of lane g / 2 of the row's four.
    const int from = 4 * g + g / 2;
    to[0] = __shfl_sync(0xffffffffu, g % 2 ? d[0][1] : d[0][0], from);
    to[1] = __shfl_sync(0xffffffffu, g % 2 ? d[1][3] : d[1][2], from);
}

template <int DP, int KEYS>
struct DqTiles {
    HeadTile<KEYS, DP> k[2], v[2];
};

constexpr int WARPS = 4, THREADS = 32 * WARPS, OWNED = 16 * WARPS;

// KEYS keys in shared memory at a time, CHUNK of them in registers.
template <int DP, int KEYS, int CHUNK>
__device__ inline void queries(const AttentionBwd& p) {
    auto& s = shared<DqTiles<DP, KEYS>>();
    const AttentionItem item = attention_item(p.items);
    const int head = blockIdx.y, g = lane_id() / 4, t = lane_id() % 4, first = 16 * warp_id(), column = head * p.dim;
    const bf16* k = p.k + (int64_t)item.other * p.k_stride + column;
    const bf16* v = p.v + (int64_t)item.other * p.v_stride + column;
    const int64_t from = (int64_t)item.row * p.q_stride + column;

    auto fetch = [&](int tile) {
        const int at = tile * KEYS, left = item.others - at;
        load_tile<THREADS>(s.k[tile % 2], k + (int64_t)at * p.k_stride, p.k_stride, left, p.dim);
        load_tile<THREADS>(s.v[tile % 2], v + (int64_t)at * p.v_stride, p.v_stride, left, p.dim);
        cp_async_commit();
    };
    const int tiles = (item.others + KEYS - 1) / KEYS;
    if (tiles > 0) fetch(0);

    uint32_t qf[DP / 16][4], df[DP / 16][4];
    load_left<DP>(qf, p.q + from, p.q_stride, first, item.rows, p.dim);
    load_left<DP>(df, p.dout + from, p.q_stride, first, item.rows, p.dim);
    float delta[2], lse[2], dq[DP / 8][4] = {};
    row_products<DP>(delta, df, p.o + from, p.q_stride, first, item.rows, p.dim);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int r = first + g + 8 * h;
        const int64_t at = (int64_t)head * p.rows + item.row + r;
        lse[h] = r < item.rows ? p.lse[at] : PLUS_INFINITY;
        if (t == 0 && r < item.rows) p.delta[at] = delta[h];
    }
    const bool active = first < item.rows;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) fetch(tile + 1);
        if (!active) continue;
        const auto& ks = s.k[tile % 2];
        const auto& vs = s.v[tile % 2];
#pragma unroll
        for (int c0 = 0; c0 < KEYS; c0 += CHUNK) {
            float x[CHUNK / 8][4] = {}, dp[CHUNK / 8][4] = {};
#pragma unroll
            for (int kk = 0; kk < DP / 16; kk++) {
#pragma unroll
                for (int j = 0; j < CHUNK / 8; j += 2) {
                    uint32_t b[4];
                    rows_as_columns(b, ks, c0 + 8 * j, 16 * kk);
                    mma_pair(x[j], x[j + 1], qf[kk], b);
                    rows_as_columns(b, vs, c0 + 8 * j, 16 * kk);
                    mma_pair(dp[j], dp[j + 1], df[kk], b);
                }
            }
            const int at = tile * KEYS + c0;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = first + g + 8 * (i / 2);
                const int seen = min(item.others, item.seen + (p.causal ? row : 0)) - at - 2 * t - i % 2;
#pragma unroll
                for (int j = 0; j < CHUNK / 8; j++) {
                    const float weight = exp2_fast(fmaf(x[j][i], p.scale_log2, -lse[i / 2]));
                    x[j][i] = 8 * j < seen ? weight * (dp[j][i] - delta[i / 2]) : 0.f;
                }
            }
#pragma unroll
            for (int jj = 0; jj < CHUNK / 16; jj++) {
                uint32_t a[4];
                as_left(a, x[2 * jj], x[2 * jj + 1]);
#pragma unroll
                for (int c = 0; c < DP / 8; c += 2) {
                    uint32_t b[4];
                    rows_as_depth(b, ks, c0 + 16 * jj, 8 * c);
                    mma_pair(dq[c], dq[c + 1], a, b);
                }
            }
        }
    }
    store_rows<DP>(p.dq + from, p.q_stride, first, item.rows, p.dim, dq, p.scale, p.scale);
}

// From this head size on, registers do not hold the fragments of the values too.
constexpr int WIDE = 112;

template <int DP, int QUERIES>
struct DkvTiles {
    HeadTile<QUERIES, DP> q[2], dout[2];
    HeadTile<DP >= WIDE ? OWNED : 1, DP> v;
    float lse[2][QUERIES], delta[2][QUERIES];
};

// The same with the roles changed: rows are keys, and lse and delta belong to columns.
template <int DP, int QUERIES, int CHUNK>
__device__ inline void keys(const AttentionBwd& p) {
    auto& s = shared<DkvTiles<DP, QUERIES>>();
    const AttentionItem item = attention_item(p.items);
    const int head = blockIdx.y, g = lane_id() / 4, t = lane_id() % 4, first = 16 * warp_id(), column = head * p.dim;
    const int64_t from = (int64_t)item.other * p.q_stride + column, stats = (int64_t)head * p.rows + item.other;

    auto fetch = [&](int tile) {
        const int at = tile * QUERIES, left = item.others - at;
        load_tile<THREADS>(s.q[tile % 2], p.q + from + (int64_t)at * p.q_stride, p.q_stride, left, p.dim);
        load_tile<THREADS>(s.dout[tile % 2], p.dout + from + (int64_t)at * p.q_stride, p.q_stride, left, p.dim);
        for (int i = threadIdx.x; i < QUERIES; i += THREADS) {
            const int64_t row = i < left ? stats + at + i : stats;
            cp_async<4>(&s.lse[tile % 2][i], p.lse + row, i < left ? 4 : 0);
            cp_async<4>(&s.delta[tile % 2][i], p.delta + row, i < left ? 4 : 0);
        }
        cp_async_commit();
    };
    const int tiles = (item.others + QUERIES - 1) / QUERIES;
    if (tiles > 0) fetch(0);

    uint32_t kf[DP / 16][4], vf[DP / 16][4];
    const int64_t k_from = (int64_t)item.row * p.k_stride + column, v_from = (int64_t)item.row * p.v_stride + column;
    load_left<DP>(kf, p.k + k_from, p.k_stride, first, item.rows, p.dim);
    if constexpr (DP >= WIDE) {
        load_tile<THREADS>(s.v, p.v + v_from, p.v_stride, item.rows, p.dim);
        cp_async_commit();
    } else {
        load_left<DP>(vf, p.v + v_from, p.v_stride, first, item.rows, p.dim);
    }
    float dk[DP / 8][4] = {}, dv[DP / 8][4] = {};
    const bool active = first < item.rows;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) fetch(tile + 1);
        if (!active) continue;
        const auto& qs = s.q[tile % 2];
        const auto& ds = s.dout[tile % 2];
#pragma unroll
        for (int c0 = 0; c0 < QUERIES; c0 += CHUNK) {
            float x[CHUNK / 8][4] = {}, dp[CHUNK / 8][4] = {};
#pragma unroll
            for (int kk = 0; kk < DP / 16; kk++) {
#pragma unroll
                for (int j = 0; j < CHUNK / 8; j += 2) {
                    uint32_t b[4];
                    if (DP >= WIDE && j == 0) rows_as_rows(vf[kk], s.v, first, 16 * kk);
                    rows_as_columns(b, qs, c0 + 8 * j, 16 * kk);
                    mma_pair(x[j], x[j + 1], kf[kk], b);
                    rows_as_columns(b, ds, c0 + 8 * j, 16 * kk);
                    mma_pair(dp[j], dp[j + 1], vf[kk], b);
                }
            }
#pragma unroll
            for (int j = 0; j < CHUNK / 8; j++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int at = c0 + 8 * j + 2 * t + i % 2, key = first + g + 8 * (i / 2);
                    const bool sees = key < item.seen + (p.causal ? tile * QUERIES + at : 0);
                    // Beyond the last query all is zeros: weight 2^0 of a zero, and 1 (0 - 0).
                    const float weight = sees ? exp2_fast(fmaf(x[j][i], p.scale_log2, -s.lse[tile % 2][at])) : 0.f;
                    x[j][i] = weight;
                    dp[j][i] = weight * (dp[j][i] - s.delta[tile % 2][at]);
                }
            }
#pragma unroll
            for (int jj = 0; jj < CHUNK / 16; jj++) {
                uint32_t w[4], d[4];
                as_left(w, x[2 * jj], x[2 * jj + 1]);
                as_left(d, dp[2 * jj], dp[2 * jj + 1]);
#pragma unroll
                for (int c = 0; c < DP / 8; c += 2) {
                    uint32_t b[4];
                    rows_as_depth(b, ds, c0 + 16 * jj, 8 * c);
                    mma_pair(dv[c], dv[c + 1], w, b);
                    rows_as_depth(b, qs, c0 + 16 * jj, 8 * c);
                    mma_pair(dk[c], dk[c + 1], d, b);
                }
            }
        }
    }
    store_rows<DP>(p.dk + k_from, p.k_stride, first, item.rows, p.dim, dk, p.scale, p.scale);
    store_rows<DP>(p.dv + v_from, p.v_stride, first, item.rows, p.dim, dv, 1.f, 1.f);
}

#define ATTENTION_BWD(D, OTHERS, CHUNK)                                                                                  \
    KERNEL(attention_bwd_dq_bf16_d##D, AttentionBwd, THREADS, sizeof(DqTiles<D, OTHERS>), OWNED, OTHERS) {               \
        queries<D, OTHERS, CHUNK>(p);                                                                                    \
    }                                                                                                                    \
    KERNEL(attention_bwd_dkv_bf16_d##D, AttentionBwd, THREADS, sizeof(DkvTiles<D, OTHERS>), OWNED, OTHERS) {             \
        keys<D, OTHERS, CHUNK>(p);                                                                                       \
    }

ATTENTION_BWD(16, 64, 32)
ATTENTION_BWD(32, 64, 32)
ATTENTION_BWD(48, 64, 32)
ATTENTION_BWD(64, 64, 32)
ATTENTION_BWD(80, 64, 32)
ATTENTION_BWD(96, 32, 16)
ATTENTION_BWD(112, 32, 16)
ATTENTION_BWD(128, 32, 16)
