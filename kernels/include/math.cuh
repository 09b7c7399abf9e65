// Arithmetic for which the compiler's default is a subroutine.
#pragma once
#include "launch.cuh"

// 1 / x, with a relative error of at most 2^-23 (PTX: rcp.approx). The division 1.f / x rounds correctly, but branches to a subroutine
// for subnormal and huge values, around which registers are saved. A result below 2^-126 becomes zero.
__device__ inline float reciprocal(float x) {
#ifdef PHEYE_EMULATOR
    return 1.f / x;
#else
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}
