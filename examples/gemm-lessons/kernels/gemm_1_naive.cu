// Step 1. A thread for each element of c, which reads its row of a and its row of b from global memory.
//
// Each FMA needs two loads of 2 bytes: 4 bytes of global memory (or of a cache) for each FMA.
#include "lesson.cuh"

KERNEL(gemm_1, LessonGemm, 256, 0, 16, 16) {
    const int row = blockIdx.y * 16 + threadIdx.x / 16, col = blockIdx.x * 16 + threadIdx.x % 16;
    float sum = 0.f;
    for (int k = 0; k < p.k; k++) {
        sum = fmaf(to_f32(p.a[(size_t)row * p.k + k]), to_f32(p.b[(size_t)col * p.k + k]), sum);
    }
    p.c[(size_t)row * p.n + col] = sum;
}
