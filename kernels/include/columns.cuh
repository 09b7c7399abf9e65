// Column sums of a matrix, in a fixed order. A block sums a tile of COLUMN_TILE columns, eight per lane. Its warps take rows in
// turn, and the sums of the warps are added in order. Where several blocks sum the same columns, each writes a row of partial
// sums, and `sum_rows_f32` adds these rows.
#pragma once
#include "launch.cuh"

constexpr int COLUMN_WARPS = 8, COLUMN_THREADS = 32 * COLUMN_WARPS, COLUMN_TILE = 256;

struct ColumnSums {
    float of_warp[COLUMN_WARPS][COLUMN_TILE];
};

// The sum over all warps for column threadIdx.x of the tile, where `lane` holds a lane's sums of its eight columns. All threads
// of the block must call it.
__device__ inline float sum_over_warps(ColumnSums& s, const float (&lane)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) s.of_warp[warp_id()][8 * lane_id() + i] = lane[i];
    __syncthreads();
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < COLUMN_WARPS; w++) sum += s.of_warp[w][threadIdx.x];
    __syncthreads();
    return sum;
}
