// What all five kernels compute: c [m, n] = a [m, k] b^T for b [n, k], a and b bf16, c f32. m and n are multiples of 64, k of 32.
#pragma once
#include "bf16.cuh"
#include "launch.cuh"

struct LessonGemm {
    const bf16* a;
    const bf16* b;
    float* c;
    int m, n, k;
};
