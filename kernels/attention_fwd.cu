// Attention, forward: o = softmax(scale q k^T) v for each span and head (Dao, FlashAttention-2, arXiv 2307.08691).
//
//   attention_fwd_bf16_*    q, o [rows, heads dim], k, v [keys, heads dim] bf16, whose rows are q_stride, k_stride and v_stride
//                           elements apart; lse [heads, rows] f32. Writes o and lse (=).
//                           A block loops over the keys and values of its item in tiles, with an online softmax. With
//                           s = scale q k^T it keeps in registers the running maximum m of s, l = sum of e^(s - m), and the sum
//                           of e^(s - m) v. Then o is this last sum / l, and lse = log2 of the sum of 2^(log2(e) s), the
//                           log-sum-exp to base 2. A query that sees no key gets o = 0 and lse = inf.
//                           With `part`, items split the keys too (split-K). Then an item does not write o and lse, but, from its
//                           row `partial_row` on, stats [part_rows, heads, 2] f32 = {log2(e) m, l} and part [part_rows, heads, dim] f32
//                           = the sum of e^(s - m) v, not divided by l.
//   attention_combine_bf16  Combines the parts of each query, in the order of the keys, and writes o and lse (=). `loop_rows` of an
//                           item is the number of parts, which have `rows` rows each, from row `partial_row` on. The blocks along z
//                           share the rows.
//
// lse is one number, where the CPU keeps m and l separately. Its rounding changes all softmax weights of a row by a relative
// error of at most |lse| 2^-24, far below the 2^-9 by which bf16 rounds each weight in the GEMMs of backward.
//
// Reads 2 bytes per element of q, k and v (k and v once for each tile of queries, mostly from L2), writes 2 bytes per element of
// o and 4 per element of lse. 4 dim FLOPs per head and pair of a query and a visible key.
//
// Grids: (items, heads). An item has at most tile[0] queries, and keys are loaded in tiles of tile[1]. `_resident`: an item has
// any number of queries and at most tile[1] keys.
#include "attention_fwd.cuh"
#include "reduce.cuh"

template <int DP, int KEYS>
struct FwdTiles {
    HeadTile<KEYS, DP> k[2], v[2];
};

// Each warp owns MT tiles of 16 queries.
template <int DP, int WARPS, int MT, int KEYS>
__device__ inline void forward(const AttentionFwd& p) {
    constexpr int THREADS = 32 * WARPS;
    auto& s = shared<FwdTiles<DP, KEYS>>();
    const AttentionItem item = attention_item(p.items);
    const int first = 16 * MT * warp_id(), column = blockIdx.y * p.dim;
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
    Forward<DP, MT> r;
    begin(r, p, item, first);
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) fetch(tile + 1);
        if (first < item.rows) step<KEYS>(r, s.k[tile % 2], s.v[tile % 2], 0, tile * KEYS, p, item, first);
    }
    if (first < item.rows) finish(r, p, item, first);
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
// Many queries: 32 rows per warp, so that each fragment of keys and values from shared memory is used for twice as many.
ATTENTION_FWD(attention_fwd_bf16_d32_long, 32, 4, 2, 32)
ATTENTION_FWD(attention_fwd_bf16_d64_long, 64, 4, 2, 64)
ATTENTION_FWD(attention_fwd_bf16_d80_long, 80, 4, 2, 32)
// 65 to 80 queries, the length of a prompt: one tile of five warps instead of two of four, of which the second is mostly empty.
ATTENTION_FWD(attention_fwd_bf16_d64_80, 64, 5, 1, 64)

// All keys and values of an item are kept in shared memory and read once, for the images of the ViT (257 tokens) and for prompts.
// An item may have any number of queries but at most RESIDENT keys; the warps take tiles of 16 queries in turn. Keys are
// processed in steps of 64 and then of 16, so that for 257 keys 272 are computed. Six warps per block and two blocks per
// multiprocessor: one block computes while the other loads.
constexpr int RESIDENT = 272, RESIDENT_WARPS = 6;

template <int DP>
struct ResidentTiles {
    HeadTile<RESIDENT, DP> k, v;
};

template <int DP>
__device__ inline void resident(const AttentionFwd& p) {
    auto& s = shared<ResidentTiles<DP>>();
    const AttentionItem item = attention_item(p.items);
    const int column = blockIdx.y * p.dim;
    load_rows<32 * RESIDENT_WARPS>(s.k, p.k + (int64_t)item.loop_row * p.k_stride + column, p.k_stride, item.loop_rows, p.dim);
    load_rows<32 * RESIDENT_WARPS>(s.v, p.v + (int64_t)item.loop_row * p.v_stride + column, p.v_stride, item.loop_rows, p.dim);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    for (int first = 16 * warp_id(); first < item.rows; first += 16 * RESIDENT_WARPS) {
        // The number of keys that the last query of the tile sees. The other queries of the tile see no more.
        const int most = min(item.loop_rows, item.causal_limit + (p.causal ? min(first + 16, item.rows) - 1 : 0));
        Forward<DP, 1> r;
        begin(r, p, item, first);
        int at = 0;
        for (; at + 64 <= most; at += 64) step<64>(r, s.k, s.v, at, at, p, item, first);
        for (; at < most; at += 16) step<16>(r, s.k, s.v, at, at, p, item, first);
        finish(r, p, item, first);
    }
}

#define RESIDENT_FWD(name, DP) \
    KERNEL(name, AttentionFwd, 32 * RESIDENT_WARPS, sizeof(ResidentTiles<DP>), 0, RESIDENT) { resident<DP>(p); }

RESIDENT_FWD(attention_fwd_bf16_d64_resident, 64)
RESIDENT_FWD(attention_fwd_bf16_d80_resident, 80)

constexpr int COMBINE_WARPS = 4;

// A warp combines a row at a time. There are at most 32 parts, and lane i holds the statistics of part i.
KERNEL(attention_combine_bf16, AttentionFwd, 32 * COMBINE_WARPS, 0, COMBINE_WARPS, 32) {
    const AttentionItem item = attention_item(p.items);
    const int head = blockIdx.y, lane = lane_id(), parts = item.loop_rows;
    const int64_t stride = (int64_t)item.rows * p.heads;  // from a row of one part to the same row of the next
    for (int r = blockIdx.z * COMBINE_WARPS + warp_id(); r < item.rows; r += gridDim.z * COMBINE_WARPS) {
        const int64_t first = (int64_t)(item.partial_row + r) * p.heads + head;
        float2 stats = make_float2(MINUS_INFINITY, 0.f);
        if (lane < parts) stats = *reinterpret_cast<const float2*>(p.stats + 2 * (first + lane * stride));
        const float top = warp_max(stats.x), base = top == MINUS_INFINITY ? 0.f : top;
        const float weight = exp2_fast(stats.x - base), sum = warp_sum(stats.y * weight);
        const float by = sum == 0.f ? 0.f : reciprocal(sum);
        for (int from = 0; from < p.dim; from += 64) {
            const int c = from + 2 * lane;
            float x = 0.f, y = 0.f;
            // Loads of several parts are in flight at a time.
#pragma unroll 8
            for (int i = 0; i < parts; i++) {
                const float w = __shfl_sync(0xffffffffu, weight, i);
                float2 part = make_float2(0.f, 0.f);
                if (c < p.dim) part = *reinterpret_cast<const float2*>(p.part + (first + i * stride) * p.dim + c);
                x = fmaf(part.x, w, x), y = fmaf(part.y, w, y);
            }
            if (c < p.dim) {
                *reinterpret_cast<uint32_t*>(p.o + (int64_t)(item.row + r) * p.q_stride + head * p.dim + c) =
                    pack_bf16(x * by, y * by);
            }
        }
        if (lane == 0) {
            p.lse[(int64_t)head * p.rows + item.row + r] = sum == 0.f ? PLUS_INFINITY : base + log2f(sum);
        }
    }
}
