// An order-preserving map from float to unsigned integers, for selecting the largest values. Sums and maxima of integers do not
// depend on the order of the reduction.
#pragma once
#include "launch.cuh"

// Maps x to an integer that increases with x. Both zeros map to the same integer, and NaN maps to the largest.
__device__ inline uint32_t ordered(float x) {
    if (x != x) return 0xffffffffu;
    const uint32_t bits = __float_as_uint(x + 0.f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
// The inverse of `ordered`.
__device__ inline float unordered(uint32_t order) {
    return __uint_as_float(order & 0x80000000u ? order ^ 0x80000000u : ~order);
}

// A value and its index as one integer that increases with the value. Of equal values, the one with the lower index ranks higher.
// 0 ranks below every value.
__device__ inline uint64_t ranked(float x, int index) { return (uint64_t)ordered(x) << 32 | (uint32_t)~index; }
__device__ inline int index_of(uint64_t rank) { return (int)~(uint32_t)rank; }
__device__ inline float value_of(uint64_t rank) { return unordered((uint32_t)(rank >> 32)); }

__device__ inline uint64_t shuffle_xor(uint64_t x, int bits) {
    const uint32_t lo = __shfl_xor_sync(0xffffffffu, (uint32_t)x, bits);
    const uint32_t hi = __shfl_xor_sync(0xffffffffu, (uint32_t)(x >> 32), bits);
    return (uint64_t)hi << 32 | lo;
}
__device__ inline uint64_t warp_max(uint64_t x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const uint64_t y = shuffle_xor(x, step);
        x = y > x ? y : x;
    }
    return x;
}
// The maximum over all threads of the block, returned to every thread. `scratch` has 64 bits per warp, free for reuse on return.
template <int THREADS>
__device__ inline uint64_t block_max(uint64_t x, uint64_t* scratch) {
    x = warp_max(x);
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    for (int w = 0; w < THREADS / 32; w++) x = scratch[w] > x ? scratch[w] : x;
    __syncthreads();
    return x;
}
