// bfloat16 stored as 16 bits. All arithmetic is in float.
#pragma once
#include "launch.cuh"

struct alignas(2) bf16 {
    uint16_t bits;
};
struct alignas(4) bf16x2 {
    bf16 lo, hi;
};
// Eight values: one 16-byte access.
struct alignas(16) bf16x8 {
    bf16x2 pair[4];
};
// Four values: one 16-byte access.
struct alignas(16) f32x4 {
    float v[4];
};

__device__ inline float to_f32(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }
__device__ inline float to_f32(float x) { return x; }

// Rounds `lo` and `hi` to bf16 and packs them, `lo` into the lower 16 bits. Rounds to nearest, ties to even; NaN stays NaN.
__device__ inline uint32_t pack_bf16(float lo, float hi) {
#ifdef PHEYE_EMULATOR
    return emu_round_bf16(lo) | emu_round_bf16(hi) << 16;
#else
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(hi), "f"(lo));
    return bits;
#endif
}
__device__ inline bf16 to_bf16(float x) {
    bf16 y;
    y.bits = (uint16_t)(pack_bf16(x, 0.f) & 0xffff);
    return y;
}
__device__ inline bf16x2 to_bf16x2(float lo, float hi) {
    const uint32_t bits = pack_bf16(lo, hi);
    bf16x2 y;
    y.lo.bits = (uint16_t)(bits & 0xffff);
    y.hi.bits = (uint16_t)(bits >> 16);
    return y;
}
__device__ inline void store(bf16& to, float x) { to = to_bf16(x); }
__device__ inline void store(float& to, float x) { to = x; }
