// Backward of attention for 16 rows that a warp owns, queries or keys: `begin` loads them, each `step` processes some rows of the
// other kind from shared memory, and `finish` stores the gradients.
#pragma once
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
    float* part;
    const int* items;
    int rows, heads, dim, q_stride, k_stride, v_stride;
    float scale, scale_log2;
    int causal;
};

// The diagonal of a b^T for 16 rows: the dot product of each row of a, given as A fragments, and the same row of b in global
// memory. All lanes that share the rows g and g + 8 receive their two values.
template <int DP>
__device__ inline void row_dots(float (&to)[2], const uint32_t (&a)[DP / 16][4], const bf16* b, int stride, int first, int rows,
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
    // The element in column g and row g or g + 8 of a tile is held by lane 4 g + g / 2, as element g % 2 of its row.
    const int from = 4 * g + g / 2;
    to[0] = __shfl_sync(0xffffffffu, g % 2 ? d[0][1] : d[0][0], from);
    to[1] = __shfl_sync(0xffffffffu, g % 2 ? d[1][3] : d[1][2], from);
}

// The state of a warp that computes dq of 16 queries.
template <int DP>
struct Queries {
    uint32_t q[DP / 16][4], dout[DP / 16][4];
    float lse[2], delta[2], dq[DP / 8][4];
};

template <int DP>
__device__ inline void begin(Queries<DP>& r, const AttentionBwd& p, const AttentionItem& item, int first) {
    const int g = lane_id() / 4, t = lane_id() % 4, head = blockIdx.y;
    const int64_t from = (int64_t)item.row * p.q_stride + head * p.dim;
    load_left<DP>(r.q, p.q + from, p.q_stride, first, item.rows, p.dim);
    load_left<DP>(r.dout, p.dout + from, p.q_stride, first, item.rows, p.dim);
    row_dots<DP>(r.delta, r.dout, p.o + from, p.q_stride, first, item.rows, p.dim);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int row = first + g + 8 * h;
        const int64_t at = (int64_t)head * p.rows + item.row + row;
        r.lse[h] = row < item.rows ? p.lse[at] : PLUS_INFINITY;
        if (t == 0 && row < item.rows && !item.continues) p.delta[at] = r.delta[h];
    }
#pragma unroll
    for (int j = 0; j < DP / 8; j++) r.dq[j][0] = r.dq[j][1] = r.dq[j][2] = r.dq[j][3] = 0.f;
}

// Processes KEYS keys: the rows of the tiles from c0 on, which are the item's keys from `at` on.
template <int KEYS, int DP, int ROWS>
__device__ inline void step(Queries<DP>& r, const HeadTile<ROWS, DP>& ks, const HeadTile<ROWS, DP>& vs, int c0, int at,
                            const AttentionBwd& p, const AttentionItem& item, int first) {
    const int g = lane_id() / 4, t = lane_id() % 4;
    float x[KEYS / 8][4] = {}, dp[KEYS / 8][4] = {};
#pragma unroll
    for (int kk = 0; kk < DP / 16; kk++) {
#pragma unroll
        for (int j = 0; j < KEYS / 8; j += 2) {
            uint32_t b[4];
            rows_as_columns(b, ks, c0 + 8 * j, 16 * kk);
            mma_pair(x[j], x[j + 1], r.q[kk], b);
            rows_as_columns(b, vs, c0 + 8 * j, 16 * kk);
            mma_pair(dp[j], dp[j + 1], r.dout[kk], b);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = first + g + 8 * (i / 2);
        const int seen = min(item.loop_rows, item.causal_limit + (p.causal ? row : 0)) - at - 2 * t - i % 2;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
            const float weight = exp2_fast(fmaf(x[j][i], p.scale_log2, -r.lse[i / 2]));
            x[j][i] = 8 * j < seen ? weight * (dp[j][i] - r.delta[i / 2]) : 0.f;
        }
    }
#pragma unroll
    for (int jj = 0; jj < KEYS / 16; jj++) {
        uint32_t a[4];
        as_left(a, x[2 * jj], x[2 * jj + 1]);
#pragma unroll
        for (int c = 0; c < DP / 8; c += 2) {
            uint32_t b[4];
            rows_as_depth(b, ks, c0 + 16 * jj, 8 * c);
            mma_pair(r.dq[c], r.dq[c + 1], a, b);
        }
    }
}

template <int DP>
__device__ inline void finish(const Queries<DP>& r, const AttentionBwd& p, const AttentionItem& item, int first) {
    const int g = lane_id() / 4, t = lane_id() % 4, head = blockIdx.y;
    if (p.part == nullptr) {
        const int64_t to = (int64_t)item.row * p.q_stride + head * p.dim;
        store_rows<DP>(p.dq + to, p.q_stride, first, item.rows, p.dim, r.dq, p.scale, p.scale);
        return;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int row = first + g + 8 * h;
        if (row >= item.rows) continue;
        float* to = p.part + ((int64_t)(item.partial_row + row) * p.heads + head) * p.dim + 2 * t;
#pragma unroll
        for (int j = 0; j < DP / 8; j++) {
            if (8 * j < p.dim) *reinterpret_cast<float2*>(to + 8 * j) = make_float2(r.dq[j][2 * h], r.dq[j][2 * h + 1]);
        }
    }
}

// The state of a warp that computes dk and dv of 16 keys. The rows of a score tile are keys; lse and delta belong to its columns.
template <int DP>
struct Keys {
    uint32_t k[DP / 16][4], v[DP / 16][4];
    float dk[DP / 8][4], dv[DP / 8][4];
};

// Loads the keys, and with VALUES the values. Without it, each step reads the values from shared memory.
template <bool VALUES, int DP>
__device__ inline void begin(Keys<DP>& r, const AttentionBwd& p, const AttentionItem& item, int first) {
    const int column = blockIdx.y * p.dim;
    load_left<DP>(r.k, p.k + (int64_t)item.row * p.k_stride + column, p.k_stride, first, item.rows, p.dim);
    if constexpr (VALUES) {
        load_left<DP>(r.v, p.v + (int64_t)item.row * p.v_stride + column, p.v_stride, first, item.rows, p.dim);
    }
#pragma unroll
    for (int j = 0; j < DP / 8; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) r.dk[j][i] = r.dv[j][i] = 0.f;
    }
}

// The data that a step needs of some queries, in shared memory.
template <int QUERIES, int DP>
struct QueryTile {
    HeadTile<QUERIES, DP> q, dout;
    float lse[QUERIES], delta[QUERIES];
};

// Starts copies of the item's queries from `at` on, as many as the tile holds. q, do, lse and delta of missing queries are filled
// with zeros, which add nothing: p = 2^(0 - 0) = 1 is multiplied by do = 0, and ds = 1 (0 - 0) = 0. With FILL the whole tile is
// filled, otherwise q and do only up to the next multiple of 16 queries.
template <int THREADS, bool FILL, int QUERIES, int DP>
__device__ inline void load_queries(QueryTile<QUERIES, DP>& to, const AttentionBwd& p, const AttentionItem& item, int at) {
    const int64_t row = item.loop_row + at, from = row * p.q_stride + blockIdx.y * p.dim, stats = (int64_t)blockIdx.y * p.rows + row;
    const int left = item.loop_rows - at;
    if constexpr (FILL) {
        load_tile<THREADS>(to.q, p.q + from, p.q_stride, left, p.dim);
        load_tile<THREADS>(to.dout, p.dout + from, p.q_stride, left, p.dim);
    } else {
        load_rows<THREADS>(to.q, p.q + from, p.q_stride, left, p.dim);
        load_rows<THREADS>(to.dout, p.dout + from, p.q_stride, left, p.dim);
    }
    for (int i = threadIdx.x; i < QUERIES; i += THREADS) {
        const bool inside = i < left;
        cp_async<4>(&to.lse[i], p.lse + stats + (inside ? i : 0), inside ? 4 : 0);
        cp_async<4>(&to.delta[i], p.delta + stats + (inside ? i : 0), inside ? 4 : 0);
    }
    cp_async_commit();
}

// Processes QUERIES queries: the rows of the tile from c0 on, which are the item's queries from `at` on. With OWNED > 1, `values`
// is the block's tile of values in shared memory. With OWNED = 1 it is not read, because r.v holds the values.
template <int QUERIES, int DP, int ROWS, int OWNED>
__device__ inline void step(Keys<DP>& r, const QueryTile<ROWS, DP>& s, const HeadTile<OWNED, DP>* values, int c0, int at,
                            const AttentionBwd& p, const AttentionItem& item, int first) {
    const int g = lane_id() / 4, t = lane_id() % 4;
    float x[QUERIES / 8][4] = {}, dp[QUERIES / 8][4] = {};
#pragma unroll
    for (int kk = 0; kk < DP / 16; kk++) {
        if (OWNED > 1) rows_as_rows(r.v[kk], *values, first, 16 * kk);
#pragma unroll
        for (int j = 0; j < QUERIES / 8; j += 2) {
            uint32_t b[4];
            rows_as_columns(b, s.q, c0 + 8 * j, 16 * kk);
            mma_pair(x[j], x[j + 1], r.k[kk], b);
            rows_as_columns(b, s.dout, c0 + 8 * j, 16 * kk);
            mma_pair(dp[j], dp[j + 1], r.v[kk], b);
        }
    }
#pragma unroll
    for (int j = 0; j < QUERIES / 8; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int query = 8 * j + 2 * t + i % 2, key = first + g + 8 * (i / 2);
            const bool sees = key < item.causal_limit + (p.causal ? at + query : 0);
            const float weight = sees ? exp2_fast(fmaf(x[j][i], p.scale_log2, -s.lse[c0 + query])) : 0.f;
            x[j][i] = weight;
            dp[j][i] = weight * (dp[j][i] - s.delta[c0 + query]);
        }
    }
#pragma unroll
    for (int jj = 0; jj < QUERIES / 16; jj++) {
        uint32_t w[4], d[4];
        as_left(w, x[2 * jj], x[2 * jj + 1]);
        as_left(d, dp[2 * jj], dp[2 * jj + 1]);
#pragma unroll
        for (int c = 0; c < DP / 8; c += 2) {
            uint32_t b[4];
            rows_as_depth(b, s.dout, c0 + 16 * jj, 8 * c);
            mma_pair(r.dv[c], r.dv[c + 1], w, b);
            rows_as_depth(b, s.q, c0 + 16 * jj, 8 * c);
            mma_pair(r.dk[c], r.dk[c + 1], d, b);
        }
    }
}

template <int DP>
__device__ inline void finish(const Keys<DP>& r, const AttentionBwd& p, const AttentionItem& item, int first) {
    const int column = blockIdx.y * p.dim;
    store_rows<DP>(p.dk + (int64_t)item.row * p.k_stride + column, p.k_stride, first, item.rows, p.dim, r.dk, p.scale, p.scale);
    store_rows<DP>(p.dv + (int64_t)item.row * p.v_stride + column, p.v_stride, first, item.rows, p.dim, r.dv, 1.f, 1.f);
}
