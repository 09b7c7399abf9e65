// Building blocks of the attention kernels: the work list, tiles in shared memory, and the fragments of m16n8k16 MMAs.
//
// DP is the head size rounded up to a multiple of 16; `dim`, a multiple of 8, is the head size itself. The columns from dim to DP
// are zeros in registers and shared memory and do not exist in global memory.
#pragma once
#include "ptx.cuh"

// An item of the work list (eight words): the work of one block for one head. The block owns `rows` rows from `row` on and loops
// over `loop_rows` rows from `loop_row` on. The owned rows are queries and the loop's rows their keys; in the kernels that compute only
// dk and dv, the owned rows are keys and the loop's rows queries. Key j, counted from the item's first key, is visible to query i,
// counted from the item's first query, if j < causal_limit + (causal ? i : 0).
struct AttentionItem {
    int row, rows, loop_row, loop_rows, causal_limit;
    // With split keys: the first row of the item's partial result, and whether the previous item owns the same rows, with earlier keys.
    int partial_row, continues;
};
__device__ inline AttentionItem attention_item(const int* items) {
    const int* at = items + 8 * (int64_t)blockIdx.x;
    AttentionItem item;
    item.row = at[0], item.rows = at[1], item.loop_row = at[2], item.loop_rows = at[3], item.causal_limit = at[4];
    item.partial_row = at[5], item.continues = at[6];
    return item;
}

// Rows of a tile are padded by 16 bytes. Since DP / 8 + 1 is odd, eight consecutive rows then start in different banks, and
// ldmatrix has no bank conflicts.
template <int ROWS, int DP>
struct alignas(16) HeadTile {
    bf16 at[ROWS][DP + 8];
};

// Starts cp.async copies of `rows` rows that are `stride` elements apart, and fills the rest of the tile with zeros.
template <int THREADS, int ROWS, int DP>
__device__ inline void load_tile(HeadTile<ROWS, DP>& to, const bf16* from, int stride, int rows, int dim) {
    constexpr int EIGHTS = DP / 8;
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * EIGHTS; i += THREADS) {
        const int r = i / EIGHTS, c = 8 * (i % EIGHTS);
        const bool inside = r < rows && c < dim;
        cp_async<16>(&to.at[r][c], inside ? from + (int64_t)r * stride + c : from, inside ? 16 : 0);
    }
}

// The same, but zeros are filled in only up to the next multiple of 16 rows. The rows after that stay as they are.
template <int THREADS, int ROWS, int DP>
__device__ inline void load_rows(HeadTile<ROWS, DP>& to, const bf16* from, int stride, int rows, int dim) {
    constexpr int EIGHTS = DP / 8;
    const int end = (rows + 15) / 16 * 16 * EIGHTS;
    for (int i = threadIdx.x; i < end; i += THREADS) {
        const int r = i / EIGHTS, c = 8 * (i % EIGHTS);
        const bool inside = r < rows && c < dim;
        cp_async<16>(&to.at[r][c], inside ? from + (int64_t)r * stride + c : from, inside ? 16 : 0);
    }
}

// Loads rows `first` to `first` + 15 from global memory as A fragments whose k dimension is the head's elements. Rows from `rows`
// on are zeros.
template <int DP>
__device__ inline void load_left(uint32_t (&a)[DP / 16][4], const bf16* from, int stride, int first, int rows, int dim) {
    const int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (int k = 0; k < DP / 16; k++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = first + g + 8 * (i % 2), c = 16 * k + 8 * (i / 2) + 2 * t;
            a[k][i] = r < rows && c < dim ? *reinterpret_cast<const uint32_t*>(from + (int64_t)r * stride + c) : 0u;
        }
    }
}

// B fragments for an MMA over 16 head elements from `k` on: its n dimension is 16 rows from `row` on, two n-tiles of eight.
template <int ROWS, int DP>
__device__ inline void rows_as_columns(uint32_t (&b)[4], const HeadTile<ROWS, DP>& s, int row, int k) {
    const int l = lane_id();
    ldmatrix_x4(b, &s.at[row + l % 8 + 8 * (l / 16)][k + 8 * (l / 8 % 2)]);
}
// B fragments for an MMA over 16 rows from `row` on: its n dimension is 16 head elements from `c` on, two n-tiles of eight.
template <int ROWS, int DP>
__device__ inline void rows_as_depth(uint32_t (&b)[4], const HeadTile<ROWS, DP>& s, int row, int c) {
    const int l = lane_id();
    ldmatrix_x4_trans(b, &s.at[row + l % 8 + 8 * (l / 8 % 2)][c + 8 * (l / 16)]);
}
// The A fragment for an MMA over 16 head elements from `k` on: its m dimension is 16 rows from `row` on.
template <int ROWS, int DP>
__device__ inline void rows_as_rows(uint32_t (&a)[4], const HeadTile<ROWS, DP>& s, int row, int k) {
    const int l = lane_id();
    ldmatrix_x4(a, &s.at[row + l % 8 + 8 * (l / 8 % 2)][k + 8 * (l / 16)]);
}
__device__ inline void mma_pair(float (&d0)[4], float (&d1)[4], const uint32_t (&a)[4], const uint32_t (&b)[4]) {
    const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    mma_bf16(d0, a, b0);
    mma_bf16(d1, a, b1);
}
// Rounds two adjacent accumulator tiles to bf16 and returns them as the A fragment of the next MMA.
__device__ inline void as_left(uint32_t (&a)[4], const float (&d0)[4], const float (&d1)[4]) {
    a[0] = pack_bf16(d0[0], d0[1]), a[1] = pack_bf16(d0[2], d0[3]);
    a[2] = pack_bf16(d1[0], d1[1]), a[3] = pack_bf16(d1[2], d1[3]);
}

// Stores the accumulators d of 16 rows as bf16, at the item's rows `first` to `first` + 15. Multiplies this lane's row in the
// upper eight by `upper` and its row in the lower eight by `lower`.
template <int DP>
__device__ inline void store_rows(bf16* to, int stride, int first, int rows, int dim, const float (&d)[DP / 8][4], float upper,
                                  float lower) {
    const int g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (int j = 0; j < DP / 8; j++) {
        if (8 * j >= dim) continue;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = first + g + 8 * i;
            const float by = i == 0 ? upper : lower;
            if (r < rows) {
                *reinterpret_cast<uint32_t*>(to + (int64_t)r * stride + 8 * j + 2 * t) =
                    pack_bf16(d[j][2 * i] * by, d[j][2 * i + 1] * by);
            }
        }
    }
}

// Reductions over the four lanes that hold one row of an accumulator tile.
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ inline float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

constexpr float MINUS_INFINITY = -__builtin_huge_valf(), PLUS_INFINITY = __builtin_huge_valf();
