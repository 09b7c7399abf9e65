// Attention, backward, for spans of few queries and many keys, such as a prompt and the image it asks about. One kernel computes
// all three gradients and reads keys and values once.
//
//   attention_bwd_bf16_d64_80, _128   Layouts and formulas as in attention_bwd.cu, for spans of at most 80 or 128 queries. A
//                                     block keeps all queries of its item, with do, in shared memory. It loops over the item's
//                                     keys in tiles and writes dk and dv (=) of each tile. dq (=) is summed over the tiles in
//                                     registers.
//                                     With `part`, items split the keys (split-K). Then each item writes ds k, unscaled, to part
//                                     [part_rows, heads, dim] f32 (=) from its row `partial_row` on, instead of dq, and
//                                     attention_dq_join_bf16 adds the parts of each query.
//                                     An item without queries writes dk = dv = 0 for keys that no query sees.
//
// In each tile a warp owns 16 keys. x^T = k q^T and dp^T = v do^T have keys as rows, so that the accumulators p^T and ds^T can
// directly be the A operands of dv = p^T do and dk = ds^T q. dq = ds k is a sum over all keys of the tile: the warps exchange
// ds^T through shared memory, and each warp computes 16 columns of dq. A block therefore has one warp for each 16 elements of a
// head, and a tile has as many keys as a head has elements.
//
// Bytes: 2 per element of q, o and do for each item; 2 per element of k, v, dk and dv; 2 per element of dq, or with `part` 4 for
// each item; 4 per query and head for lse, for each item. 10 dim FLOPs per head and pair of a query and a visible key.
//
// Grid: (items, heads). An item has at most tile[0] queries, and keys are loaded in tiles of tile[1].
#include "attention_bwd.cuh"

template <int DP, int QUERIES>
struct ShortTiles {
    HeadTile<QUERIES, DP> q, dout;
    HeadTile<DP, DP> k[2], v[2];
    // ds^T: [key of the tile][query]
    HeadTile<DP, QUERIES> ds;
    float lse[QUERIES], delta[QUERIES];
};

// The A fragment of ds for an MMA over 16 keys from `key` on; its m dimension is 16 queries from `query` on. `s` is ds^T.
template <int KEYS, int QUERIES>
__device__ inline void columns_as_rows(uint32_t (&a)[4], const HeadTile<KEYS, QUERIES>& s, int key, int query) {
    const int l = lane_id();
    ldmatrix_x4_trans(a, &s.at[key + l % 8 + 8 * (l / 16)][query + 8 * (l / 8 % 2)]);
}

// Whether one of 16 queries from `query` on sees one of 16 keys from `key` on.
__device__ inline bool some_seen(const AttentionBwd& p, const AttentionItem& item, int key, int query) {
    return key < item.causal_limit + (p.causal ? query + 15 : 0);
}

// Loads lse and computes delta = rowsum(do * o) of all queries, while the copies of the first tile of keys are in flight.
template <int WARPS, int DP, int QUERIES>
__device__ inline void row_statistics(ShortTiles<DP, QUERIES>& s, const AttentionBwd& p, const AttentionItem& item) {
    const int64_t from = (int64_t)item.row * p.q_stride + blockIdx.y * p.dim;
    for (int i = threadIdx.x; i < QUERIES; i += 32 * WARPS) {
        s.lse[i] = i < item.rows ? p.lse[(int64_t)blockIdx.y * p.rows + item.row + i] : PLUS_INFINITY;
    }
    for (int first = 16 * warp_id(); first < item.rows; first += 16 * WARPS) {
        uint32_t dout[DP / 16][4];
        float delta[2];
        load_left<DP>(dout, p.dout + from, p.q_stride, first, item.rows, p.dim);
        row_dots<DP>(delta, dout, p.o + from, p.q_stride, first, item.rows, p.dim);
        if (lane_id() % 4 == 0) {
            s.delta[first + lane_id() / 4] = delta[0];
            s.delta[first + lane_id() / 4 + 8] = delta[1];
        }
    }
}

// Computes dk and dv of the warp's 16 keys of a tile, which begins at the item's key `at`, and writes the warp's rows of ds^T to
// shared memory.
template <int DP, int QUERIES>
__device__ inline void keys_of_tile(ShortTiles<DP, QUERIES>& s, int buffer, int at, const AttentionBwd& p,
                                    const AttentionItem& item) {
    const int g = lane_id() / 4, t = lane_id() % 4, first = 16 * warp_id();
    Keys<DP> r = {};
#pragma unroll
    for (int kk = 0; kk < DP / 16; kk++) {
        rows_as_rows(r.k[kk], s.k[buffer], first, 16 * kk);
        rows_as_rows(r.v[kk], s.v[buffer], first, 16 * kk);
    }
#pragma unroll 1
    for (int q0 = 0; q0 < item.rows; q0 += 16) {
        if (!some_seen(p, item, at + first, q0)) continue;
        float x[2][4] = {}, dp[2][4] = {};
#pragma unroll
        for (int kk = 0; kk < DP / 16; kk++) {
            uint32_t b[4];
            rows_as_columns(b, s.q, q0, 16 * kk);
            mma_pair(x[0], x[1], r.k[kk], b);
            rows_as_columns(b, s.dout, q0, 16 * kk);
            mma_pair(dp[0], dp[1], r.v[kk], b);
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int query = q0 + 8 * j + 2 * t + i % 2, key = at + first + g + 8 * (i / 2);
                const bool sees = key < item.causal_limit + (p.causal ? query : 0);
                const float weight = sees ? exp2_fast(fmaf(x[j][i], p.scale_log2, -s.lse[query])) : 0.f;
                x[j][i] = weight;
                dp[j][i] = weight * (dp[j][i] - s.delta[query]);
            }
        }
        uint32_t w[4], d[4];
        as_left(w, x[0], x[1]);
        as_left(d, dp[0], dp[1]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            *reinterpret_cast<uint32_t*>(&s.ds.at[first + g + 8 * (i % 2)][q0 + 8 * (i / 2) + 2 * t]) = d[i];
        }
#pragma unroll
        for (int c = 0; c < DP / 8; c += 2) {
            uint32_t b[4];
            rows_as_depth(b, s.dout, q0, 8 * c);
            mma_pair(r.dv[c], r.dv[c + 1], w, b);
            rows_as_depth(b, s.q, q0, 8 * c);
            mma_pair(r.dk[c], r.dk[c + 1], d, b);
        }
    }
    const int64_t to = (int64_t)(item.loop_row + at) * p.k_stride + blockIdx.y * p.dim;
    const int64_t to_v = (int64_t)(item.loop_row + at) * p.v_stride + blockIdx.y * p.dim;
    store_rows<DP>(p.dk + to, p.k_stride, first, item.loop_rows - at, p.dim, r.dk, p.scale, p.scale);
    store_rows<DP>(p.dv + to_v, p.v_stride, first, item.loop_rows - at, p.dim, r.dv, 1.f, 1.f);
}

template <int DP, int QUERIES>
__device__ inline void short_backward(const AttentionBwd& p) {
    constexpr int WARPS = DP / 16, THREADS = 32 * WARPS, KEYS = DP;
    auto& s = shared<ShortTiles<DP, QUERIES>>();
    const AttentionItem item = attention_item(p.items);
    const int head = blockIdx.y, column = head * p.dim;
    const bf16* k = p.k + (int64_t)item.loop_row * p.k_stride + column;
    const bf16* v = p.v + (int64_t)item.loop_row * p.v_stride + column;

    auto fetch = [&](int tile) {
        const int at = tile * KEYS, left = item.loop_rows - at;
        load_tile<THREADS>(s.k[tile % 2], k + (int64_t)at * p.k_stride, p.k_stride, left, p.dim);
        load_tile<THREADS>(s.v[tile % 2], v + (int64_t)at * p.v_stride, p.v_stride, left, p.dim);
        cp_async_commit();
    };
    const int64_t from = (int64_t)item.row * p.q_stride + column;
    load_rows<THREADS>(s.q, p.q + from, p.q_stride, item.rows, p.dim);
    load_rows<THREADS>(s.dout, p.dout + from, p.q_stride, item.rows, p.dim);
    fetch(0);
    row_statistics<WARPS>(s, p, item);

    // The accumulators of the warp's 16 columns of dq, for each 16 queries.
    float dq[QUERIES / 16][2][4] = {};
    const int tiles = (item.loop_rows + KEYS - 1) / KEYS;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) fetch(tile + 1);
        keys_of_tile(s, tile % 2, tile * KEYS, p, item);
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < KEYS / 16; kk++) {
            uint32_t b[4];
            rows_as_depth(b, s.k[tile % 2], 16 * kk, 16 * warp_id());
#pragma unroll
            for (int m = 0; m < QUERIES / 16; m++) {
                if (16 * m >= item.rows) break;
                if (!some_seen(p, item, tile * KEYS + 16 * kk, 16 * m)) continue;
                uint32_t a[4];
                columns_as_rows(a, s.ds, 16 * kk, 16 * m);
                mma_pair(dq[m][0], dq[m][1], a, b);
            }
        }
    }
    cp_async_wait<0>();

    const int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (int m = 0; m < QUERIES / 16; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            // This lane holds the rows g and g + 8 of both n-tiles of eight columns.
            const int row = 16 * m + g + 8 * (i % 2), c = 16 * warp_id() + 8 * (i / 2) + 2 * t;
            if (row >= item.rows || c >= p.dim) continue;
            const float x = dq[m][i / 2][2 * (i % 2)], y = dq[m][i / 2][2 * (i % 2) + 1];
            if (p.part == nullptr) {
                *reinterpret_cast<uint32_t*>(p.dq + from + (int64_t)row * p.q_stride + c) = pack_bf16(p.scale * x, p.scale * y);
            } else {
                float* to = p.part + ((int64_t)(item.partial_row + row) * p.heads + head) * p.dim + c;
                *reinterpret_cast<float2*>(to) = make_float2(x, y);
            }
        }
    }
}

#define SHORT_BWD(D, QUERIES)                                                                                   \
    KERNEL(attention_bwd_bf16_d##D##_##QUERIES, AttentionBwd, 2 * D, sizeof(ShortTiles<D, QUERIES>), QUERIES, D) { \
        short_backward<D, QUERIES>(p);                                                                          \
    }

SHORT_BWD(64, 80)
SHORT_BWD(64, 128)
