// Means of groups of consecutive rows.
//
//   pool_fwd   y[g] = the mean of the rows x[i], start[g] <= i < start[g + 1]; x [rows, cols], y [groups, cols] (=). Every group
//              has at least one row. Reads x and writes y, 2 bytes per element in bf16, 4 in f32; one FLOP per element of x.
//   pool_bwd   dx[i] = dy[group[i]] / number of rows of the group. Reads dy and writes dx (=).
//
// Grids: pool_fwd (groups, ceil(cols / tile[0])); pool_bwd one block per tile[0] vectors of eight elements of dx.
#include "columns.cuh"
#include "vec.cuh"

template <class T>
struct PoolFwd {
    const T* x;
    T* y;
    const uint32_t* start;
    int cols;
};
template <class T>
struct PoolBwd {
    const T* dy;
    T* dx;
    const uint32_t* group;
    const uint32_t* start;
    int rows, cols;
};

template <bool WIDE, class T>
__device__ inline void forward(const PoolFwd<T>& p) {
    auto& s = shared<ColumnSums>();
    const int first = blockIdx.y * COLUMN_TILE, at = first + 8 * lane_id(), left = p.cols - at;
    const uint32_t begin = p.start[blockIdx.x], end = p.start[blockIdx.x + 1];
    float sum[8] = {}, x[8];
    for (uint32_t i = begin + warp_id(); i < end; i += COLUMN_WARPS) {
        load_up_to8<WIDE>(x, p.x + (uint64_t)i * p.cols + at, left);
#pragma unroll
        for (int k = 0; k < 8; k++) sum[k] += x[k];
    }
    const float mean = sum_over_warps(s, sum) / (float)(end - begin);
    const int column = first + threadIdx.x;
    if (column < p.cols) store(p.y[(uint64_t)blockIdx.x * p.cols + column], mean);
}
template <class T>
__device__ inline void forward_any(const PoolFwd<T>& p) {
    if (p.cols % 8 == 0 && aligned16(p.x)) {
        forward<true>(p);
    } else {
        forward<false>(p);
    }
}

constexpr int SPREAD_THREADS = 256;

template <class T>
__device__ inline void backward(const PoolBwd<T>& p) {
    const int groups = (p.cols + 7) / 8;
    const uint64_t unit = (uint64_t)blockIdx.x * SPREAD_THREADS + threadIdx.x, row = unit / groups;
    if (row >= (uint64_t)p.rows) return;
    const int at = 8 * (int)(unit % groups), left = p.cols - at;
    const uint32_t group = p.group[row];
    const float n = (float)(p.start[group + 1] - p.start[group]);
    const bool wide = p.cols % 8 == 0 && aligned16(p.dy) && aligned16(p.dx);
    const T* dy = p.dy + (uint64_t)group * p.cols + at;
    T* dx = p.dx + row * p.cols + at;
    float v[8];
    if (wide) {
        load8(v, dy);
    } else {
        load_up_to8<false>(v, dy, left);
    }
#pragma unroll
    for (int k = 0; k < 8; k++) v[k] /= n;
    if (wide) {
        store8(dx, v);
    } else {
        store_up_to8<false>(dx, v, left);
    }
}

KERNEL(pool_fwd_bf16, PoolFwd<bf16>, COLUMN_THREADS, sizeof(ColumnSums), COLUMN_TILE) { forward_any(p); }
KERNEL(pool_fwd_f32, PoolFwd<float>, COLUMN_THREADS, sizeof(ColumnSums), COLUMN_TILE) { forward_any(p); }
KERNEL(pool_bwd_bf16, PoolBwd<bf16>, SPREAD_THREADS, 0, SPREAD_THREADS) { backward(p); }
KERNEL(pool_bwd_f32, PoolBwd<float>, SPREAD_THREADS, 0, SPREAD_THREADS) { backward(p); }
