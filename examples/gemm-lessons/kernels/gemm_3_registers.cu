// Step 3. A thread computes 4 x 4 elements of c: it loads 4 values of a and 4 of b from shared memory and makes 16 FMAs of them.
//
// Global memory: tiles of 64, so 4 / 64 = 0.06 bytes for each FMA. Shared memory: 8 floats for 16 FMAs, 2 bytes for each.
#include "lesson.cuh"

constexpr int SIDE = 64, DEPTH = 16, EACH = 4, THREADS = (SIDE / EACH) * (SIDE / EACH);

struct Tiles {  // k first: the four values that a thread needs are neighbours
    float a[DEPTH][SIDE + 4], b[DEPTH][SIDE + 4];
};

KERNEL(gemm_3, LessonGemm, THREADS, sizeof(Tiles), SIDE, SIDE) {
    Tiles& s = shared<Tiles>();
    const int row0 = blockIdx.y * SIDE, col0 = blockIdx.x * SIDE;
    const int i0 = threadIdx.x / (SIDE / EACH) * EACH, j0 = threadIdx.x % (SIDE / EACH) * EACH;
    float sum[EACH][EACH] = {};
    for (int k0 = 0; k0 < p.k; k0 += DEPTH) {
        for (int at = threadIdx.x; at < SIDE * DEPTH; at += THREADS) {
            const int i = at / DEPTH, k = at % DEPTH;
            s.a[k][i] = to_f32(p.a[(size_t)(row0 + i) * p.k + k0 + k]);
            s.b[k][i] = to_f32(p.b[(size_t)(col0 + i) * p.k + k0 + k]);
        }
        __syncthreads();
        for (int k = 0; k < DEPTH; k++) {
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++) sum[i][j] = fmaf(s.a[k][i0 + i], s.b[k][j0 + j], sum[i][j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) p.c[(size_t)(row0 + i0 + i) * p.n + col0 + j0 + j] = sum[i][j];
}
