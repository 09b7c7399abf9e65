// Attention, backward, in two kernels. Each block owns the gradients that it writes and uses no atomics, so the result is
// deterministic to the bit.
//
// With x = scale log2(e) q k^T, p = 2^(x - lse) (0 where a query does not see a key), dp = do v^T, delta = rowsum(do * o):
//   ds = p (dp - delta)     dq = scale ds k     dk = scale ds^T q     dv = p^T do
//
//   attention_bwd_dq_bf16_*   Owns tiles of queries and loops over keys. Reads q, k, v, o, do and lse; writes dq (=) and delta
//                             [heads, rows] f32 (=). With `part`, items split the keys (split-K). Then each item writes ds k,
//                             unscaled, to part [part_rows, heads, dim] f32 (=) from its row `partial_row` on, instead of dq.
//   attention_dq_join_bf16    dq = scale times the sum of the parts of each query, added in the order of the keys. The blocks along
//                             z share the rows.
//   attention_bwd_dkv_bf16_*  Owns tiles of keys and loops over queries, from the first query that sees a key of the tile. Reads
//                             q, k, v, do, lse and delta; writes dk and dv (=).
//
// The layouts are as in forward; dq and do have the layout of q, dk that of k, dv that of v. A row with lse = inf has p = 0.
// delta is computed by MMAs in the same order as dp: where a query sees a single key, o is that key's value, and dp - delta is
// exactly 0.
//
// Bytes: 2 per element of q, o, do, dq, k, v, dk and dv; k and v again for each tile of queries, q and do again for each tile of
// keys (mostly from L2); 8 per query and head for lse and delta. 14 dim FLOPs per head and pair of a query and a visible key.
//
// Grids: (items, heads). An item has at most tile[0] rows, and the rows of the other kind are loaded in tiles of tile[1].
// `_resident`: an item has any number of rows and at most tile[1] of the other kind.
#include "attention_bwd.cuh"

constexpr int WARPS = 4, THREADS = 32 * WARPS, OWNED = 16 * WARPS;

template <int DP, int KEYS>
struct DqTiles {
    HeadTile<KEYS, DP> k[2], v[2];
};

// Each tile in shared memory has KEYS keys, of which a step processes CHUNK in registers.
template <int DP, int KEYS, int CHUNK>
__device__ inline void queries(const AttentionBwd& p) {
    auto& s = shared<DqTiles<DP, KEYS>>();
    const AttentionItem item = attention_item(p.items);
    const int first = 16 * warp_id(), column = blockIdx.y * p.dim;
    const bf16* k = p.k + (int64_t)item.loop_row * p.k_stride + column;
    const bf16* v = p.v + (int64_t)item.loop_row * p.v_stride + column;

    auto fetch = [&](int tile) {
        const int at = tile * KEYS, left = item.loop_rows - at;
        load_tile<THREADS>(s.k[tile % 2], k + (int64_t)at * p.k_stride, p.k_stride, left, p.dim);
        load_tile<THREADS>(s.v[tile % 2], v + (int64_t)at * p.v_stride, p.v_stride, left, p.dim);
        cp_async_commit();
    };
    const int tiles = (item.loop_rows + KEYS - 1) / KEYS;
    if (tiles > 0) fetch(0);
    Queries<DP> r;
    begin(r, p, item, first);
    // No query of the warp sees the keys from this one on.
    const int most = first < item.rows ? min(item.loop_rows, item.causal_limit + (p.causal ? first + 15 : 0)) : 0;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) fetch(tile + 1);
#pragma unroll
        for (int c0 = 0; c0 < KEYS; c0 += CHUNK) {
            const int at = tile * KEYS + c0;
            if (at < most) step<CHUNK>(r, s.k[tile % 2], s.v[tile % 2], c0, at, p, item, first);
        }
    }
    finish(r, p, item, first);
}

// From this head size on, the fragments of the values do not fit in registers, and each step reads them from shared memory.
constexpr int WIDE = 112;

template <int DP, int QUERIES>
struct DkvTiles {
    QueryTile<QUERIES, DP> of[2];
    HeadTile<DP >= WIDE ? OWNED : 1, DP> v;
};

template <int DP, int QUERIES, int CHUNK>
__device__ inline void keys(const AttentionBwd& p) {
    auto& s = shared<DkvTiles<DP, QUERIES>>();
    const AttentionItem item = attention_item(p.items);
    const int first = 16 * warp_id();
    const int tiles = (item.loop_rows + QUERIES - 1) / QUERIES;
    if (tiles > 0) load_queries<THREADS, true>(s.of[0], p, item, 0);
    if constexpr (DP >= WIDE) {
        load_tile<THREADS>(s.v, p.v + (int64_t)item.row * p.v_stride + blockIdx.y * p.dim, p.v_stride, item.rows, p.dim);
        cp_async_commit();
    }
    Keys<DP> r;
    begin<(DP < WIDE)>(r, p, item, first);
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) load_queries<THREADS, true>(s.of[(tile + 1) % 2], p, item, (tile + 1) * QUERIES);
#pragma unroll
        for (int c0 = 0; c0 < QUERIES; c0 += CHUNK) {
            const int at = tile * QUERIES + c0;
            // Whether a query of the chunk sees a key of the warp.
            const bool some = at < item.loop_rows && first < item.rows && first < item.causal_limit + (p.causal ? at + CHUNK - 1 : 0);
            if (some) step<CHUNK>(r, s.of[tile % 2], &s.v, c0, at, p, item, first);
        }
    }
    cp_async_wait<0>();
    finish(r, p, item, first);
}

// All rows of the other kind are kept in shared memory and read once, as in attention_fwd.cu. The warps take the item's tiles of
// 16 rows in turn.
constexpr int RESIDENT = 272, RESIDENT_WARPS = 6, RESIDENT_THREADS = 32 * RESIDENT_WARPS;

template <int DP>
struct ResidentKeys {
    HeadTile<RESIDENT, DP> k, v;
};

template <int DP>
__device__ inline void resident_queries(const AttentionBwd& p) {
    auto& s = shared<ResidentKeys<DP>>();
    const AttentionItem item = attention_item(p.items);
    const int column = blockIdx.y * p.dim;
    load_rows<RESIDENT_THREADS>(s.k, p.k + (int64_t)item.loop_row * p.k_stride + column, p.k_stride, item.loop_rows, p.dim);
    load_rows<RESIDENT_THREADS>(s.v, p.v + (int64_t)item.loop_row * p.v_stride + column, p.v_stride, item.loop_rows, p.dim);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    for (int first = 16 * warp_id(); first < item.rows; first += 16 * RESIDENT_WARPS) {
        const int most = min(item.loop_rows, item.causal_limit + (p.causal ? first + 15 : 0));
        Queries<DP> r;
        begin(r, p, item, first);
        int at = 0;
        for (; at + 32 <= most; at += 32) step<32>(r, s.k, s.v, at, at, p, item, first);
        if (at < most) step<16>(r, s.k, s.v, at, at, p, item, first), at += 16;
        if (at < most) step<16>(r, s.k, s.v, at, at, p, item, first);
        finish(r, p, item, first);
    }
}

template <int DP>
__device__ inline void resident_keys(const AttentionBwd& p) {
    auto& s = shared<QueryTile<RESIDENT, DP>>();
    const AttentionItem item = attention_item(p.items);
    load_queries<RESIDENT_THREADS, false>(s, p, item, 0);
    cp_async_wait<0>();
    __syncthreads();
    for (int first = 16 * warp_id(); first < item.rows; first += 16 * RESIDENT_WARPS) {
        // The first query that sees the first of these keys, rounded down to a multiple of 16.
        const int begins = p.causal ? max(first - item.causal_limit + 1, 0) / 16 * 16 : 0;
        Keys<DP> r;
        begin<true>(r, p, item, first);
        for (int at = begins; at < item.loop_rows; at += 16) {
            step<16>(r, s, (const HeadTile<1, DP>*)nullptr, at, at, p, item, first);
        }
        finish(r, p, item, first);
    }
}

#define ATTENTION_BWD(D, OTHERS, CHUNK)                                                                                  \
    KERNEL(attention_bwd_dq_bf16_d##D, AttentionBwd, THREADS, sizeof(DqTiles<D, OTHERS>), OWNED, OTHERS) {               \
        queries<D, OTHERS, CHUNK>(p);                                                                                    \
    }                                                                                                                    \
    KERNEL(attention_bwd_dkv_bf16_d##D, AttentionBwd, THREADS, sizeof(DkvTiles<D, OTHERS>), OWNED, OTHERS) {             \
        keys<D, OTHERS, CHUNK>(p);                                                                                       \
    }

ATTENTION_BWD(16, 64, 32)
ATTENTION_BWD(32, 64, 16)
ATTENTION_BWD(48, 64, 16)
ATTENTION_BWD(64, 64, 32)
ATTENTION_BWD(80, 64, 32)
ATTENTION_BWD(96, 32, 16)
ATTENTION_BWD(112, 32, 16)
ATTENTION_BWD(128, 32, 16)

#define RESIDENT_BWD(D)                                                                                                      \
    KERNEL(attention_bwd_dq_bf16_d##D##_resident, AttentionBwd, RESIDENT_THREADS, sizeof(ResidentKeys<D>), 0, RESIDENT) {    \
        resident_queries<D>(p);                                                                                              \
    }                                                                                                                        \
    KERNEL(attention_bwd_dkv_bf16_d##D##_resident, AttentionBwd, RESIDENT_THREADS, sizeof(QueryTile<RESIDENT, D>), 0,        \
           RESIDENT) {                                                                                                       \
        resident_keys<D>(p);                                                                                                 \
    }

RESIDENT_BWD(64)
RESIDENT_BWD(80)

constexpr int JOIN_THREADS = 128;

KERNEL(attention_dq_join_bf16, AttentionBwd, JOIN_THREADS, 0, JOIN_THREADS) {
    const AttentionItem item = attention_item(p.items);
    const int head = blockIdx.y, pairs = p.dim / 2;
    for (int i = blockIdx.z * JOIN_THREADS + threadIdx.x; i < item.rows * pairs; i += gridDim.z * JOIN_THREADS) {
        const int row = i / pairs, c = 2 * (i % pairs);
        float x = 0.f, y = 0.f;
        // Loads of several parts are in flight at a time.
#pragma unroll 8
        for (int n = 0; n < item.loop_rows; n++) {
            const int64_t at = (int64_t)(item.partial_row + n * item.rows + row) * p.heads + head;
            const float2 part = *reinterpret_cast<const float2*>(p.part + at * p.dim + c);
            x += part.x, y += part.y;
        }
        *reinterpret_cast<uint32_t*>(p.dq + (int64_t)(item.row + row) * p.q_stride + head * p.dim + c) =
            pack_bf16(p.scale * x, p.scale * y);
    }
}
