// Copies of rows between matrices (gather, scatter), and sums of rows.
//
//   rows_move      y[to[i]] = x[from[i]] for i < rows, rows of `cols` elements. A null table is the identity; no row of y may
//                  occur twice. For gather, scatter and concatenation. Reads and writes 2 bytes per element in bf16, 4 in f32.
//   rows_add_bwd   y[id[g]] += sum of x[order[j]] over start[g] <= j < start[g + 1], in this order, for g < groups: the gradient
//                  of a gather. The host sorts the row numbers, so that no two groups add to the same row of y, and no atomics
//                  are needed. Reads x once; reads and writes the rows of y (f32) that occur. One FLOP per element of x.
//   sum_rows_f32   y[c] += sum over i < rows of x[i stride + c], for rows of partial sums. Each warp adds every 16th row in
//                  order, and the sums of the warps are added in order. Reads x, reads and writes y. One FLOP per element of x.
//
// Grids: rows_move one block per tile[0] vectors of eight elements; rows_add_bwd (groups, ceil(cols / tile[0])); sum_rows
// ceil(cols / tile[0]) blocks.
#include "vec.cuh"

template <class T>
struct RowsMove {
    const T* x;
    T* y;
    const uint32_t* from;
    const uint32_t* to;
    int rows, cols;
};
template <class T>
struct RowsAdd {
    const T* x;
    float* y;
    const uint32_t* id;
    const uint32_t* start;
    const uint32_t* order;
    int cols;
};
struct SumRows {
    const float* x;
    float* y;
    int rows, cols, stride;
};

constexpr int MOVE_THREADS = 256;

template <class T>
__device__ inline void move(const RowsMove<T>& p) {
    const int groups = (p.cols + 7) / 8;
    const uint64_t unit = (uint64_t)blockIdx.x * MOVE_THREADS + threadIdx.x;
    const uint64_t row = unit / groups;
    if (row >= (uint64_t)p.rows) return;
    const int at = 8 * (int)(unit % groups), left = p.cols - at;
    const T* x = p.x + (uint64_t)(p.from ? p.from[row] : row) * p.cols + at;
    T* y = p.y + (uint64_t)(p.to ? p.to[row] : row) * p.cols + at;
    float v[8];
    if (p.cols % 8 == 0 && aligned16(p.x) && aligned16(p.y)) {
        load8(v, x);
        store8(y, v);
    } else {
        load_up_to8<false>(v, x, left);
        store_up_to8<false>(y, v, left);
    }
}

constexpr int ADD_THREADS = 128, ADD_TILE = 8 * ADD_THREADS;

template <bool WIDE, class T>
__device__ inline void add(const RowsAdd<T>& p) {
    const int at = blockIdx.y * ADD_TILE + 8 * threadIdx.x, left = p.cols - at;
    float* y = p.y + (uint64_t)p.id[blockIdx.x] * p.cols + at;
    float sum[8], x[8];
    load_up_to8<WIDE>(sum, y, left);
    const uint32_t end = p.start[blockIdx.x + 1];
    for (uint32_t j = p.start[blockIdx.x]; j < end; j++) {
        load_up_to8<WIDE>(x, p.x + (uint64_t)p.order[j] * p.cols + at, left);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] += x[i];
    }
    store_up_to8<WIDE>(y, sum, left);
}
template <class T>
__device__ inline void add_any(const RowsAdd<T>& p) {
    if (p.cols % 8 == 0 && aligned16(p.x) && aligned16(p.y)) {
        add<true>(p);
    } else {
        add<false>(p);
    }
}

KERNEL(rows_move_bf16, RowsMove<bf16>, MOVE_THREADS, 0, MOVE_THREADS) { move(p); }
KERNEL(rows_move_f32, RowsMove<float>, MOVE_THREADS, 0, MOVE_THREADS) { move(p); }
KERNEL(rows_add_bwd_bf16, RowsAdd<bf16>, ADD_THREADS, 0, ADD_TILE) { add_any(p); }
KERNEL(rows_add_bwd_f32, RowsAdd<float>, ADD_THREADS, 0, ADD_TILE) { add_any(p); }

// Each lane sums one column. The warps share the rows, so that few columns with many rows are not one long chain of loads.
constexpr int SUM_WARPS = 16;
struct SumTile {
    float of_warp[SUM_WARPS][32];
};

KERNEL(sum_rows_f32, SumRows, 32 * SUM_WARPS, sizeof(SumTile), 32) {
    auto& s = shared<SumTile>();
    const int lane = lane_id(), warp = warp_id(), column = blockIdx.x * 32 + lane;
    float sum = 0.f;
    if (column < p.cols) {
#pragma unroll 4
        for (int i = warp; i < p.rows; i += SUM_WARPS) sum += p.x[(uint64_t)i * p.stride + column];
    }
    s.of_warp[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && column < p.cols) {
        float total = 0.f;
#pragma unroll
        for (int w = 0; w < SUM_WARPS; w++) total += s.of_warp[w][lane];
        p.y[column] += total;
    }
}
