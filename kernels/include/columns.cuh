// Sums down the columns of a matrix, in a fixed order. A block has a tile of columns, eight to a lane; its warps take rows in turn
// and are summed in order. Where many blocks share a column, each writes a partial row and `sum_rows_f32` adds those up.
#pragma once
#include "launch.cuh"

constexpr int COLUMN_WARPS = 8, COLUMN_THREADS = 32 * COLUMN_WARPS, COLUMN_TILE = 256;

struct ColumnSums {
    float of_warp[COLUMN_WARPS][COLUMN_TILE];
};

// The sum of column threadIdx.x of the tile, of each lane's eight. All threads of the block call it.
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
