// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC'11) and the mask values of dropout, with the same numbers as on the CPU.
#pragma once
#include "launch.cuh"

__device__ inline void philox4x32_10(uint32_t (&c)[4], uint32_t k0, uint32_t k1) {
#pragma unroll
    for (int i = 0; i < 10; i++) {
        const uint32_t hi0 = __umulhi(0xD2511F53u, c[0]), lo0 = 0xD2511F53u * c[0];
        const uint32_t hi1 = __umulhi(0xCD9E8D57u, c[2]), lo1 = 0xCD9E8D57u * c[2];
        c[0] = hi1 ^ c[1] ^ k0;
        c[2] = hi0 ^ c[3] ^ k1;
        c[1] = lo1;
        c[3] = lo0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

// Converts a random word to a number in [0, 1), a multiple of 2^-24.
__device__ inline float philox_uniform(uint32_t word) { return (float)(word >> 8) * (1.f / 16777216.f); }

// Selects the random numbers of a dropout mask. `rng_offset` (for the step and micro-batch) is read from device memory, so that
// each replay of a CUDA graph draws a new mask. p = 0 means no dropout.
struct DropoutMask {
    const uint64_t* rng_offset;
    uint64_t seed;
    uint32_t module;
    float p;
};

// The mask values of elements 4 block to 4 block + 3: 0 with probability p, otherwise 1 / (1 - p).
__device__ inline void dropout_factors(float (&f)[4], const DropoutMask& mask, uint64_t rng_offset, uint32_t block) {
    uint32_t c[4] = {block, mask.module, (uint32_t)rng_offset, (uint32_t)(rng_offset >> 32)};
    philox4x32_10(c, (uint32_t)mask.seed, (uint32_t)(mask.seed >> 32));
    const float keep = 1.f / (1.f - mask.p);
#pragma unroll
    for (int i = 0; i < 4; i++) f[i] = philox_uniform(c[i]) >= mask.p ? keep : 0.f;
}
