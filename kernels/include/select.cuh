// An order of all numbers for choosing among them, as integers: sums and maxima of integers do not depend on their order.
#pragma once
#include "launch.cuh"

// Ascends with x; both zeros are equal, and NaN is above all.
__device__ inline uint32_t ordered(float x) {
    if (x != x) return 0xffffffffu;
    const uint32_t bits = __float_as_uint(x + 0.f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
// The number that is ordered so.
__device__ inline float unordered(uint32_t order) {
    return __uint_as_float(order & 0x80000000u ? order ^ 0x80000000u : ~order);
}

// A number and where it is: of equal numbers the lower index is above. 0 is below all.
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
// Over all threads of the block, in every thread. `scratch` holds a word per warp, and is free again on return.
template <int THREADS>
__device__ inline uint64_t block_max(uint64_t x, uint64_t* scratch) {
    x = warp_max(x);
    if (lane_id() == 0) scratch[warp_id()] = x;
    __syncthreads();
    for (int w = 0; w < THREADS / 32; w++) x = scratch[w] > x ? scratch[w] : x;
    __syncthreads();
    return x;
}
