// Sums and maxima over a warp, and sums over a block, in a fixed order.
#pragma once
#include "launch.cuh"

__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}
// The sum over all threads of the block, returned to every thread. `scratch` has one float per warp and may be reused on return.
template <int THREADS>
__device__ inline float block_sum(float x, float* scratch) {
    constexpr int WARPS = THREADS / 32;
    x = warp_sum(x);
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += scratch[w];
    __syncthreads();
    return sum;
}
