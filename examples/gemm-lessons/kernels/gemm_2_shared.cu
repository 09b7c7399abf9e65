// Step 2. A block brings a tile of a and a tile of b into shared memory, and each value is used 16 times from there.
//
// Global memory: 4 / 16 = 0.25 bytes for each FMA. Shared memory: two floats, 8 bytes, for each FMA.
// Two barriers a tile: one so that the tile is complete before it is read, one so that all have read it before it is replaced.
#include "lesson.cuh"

constexpr int TILE = 16;

struct Tiles {
    float a[TILE][TILE];
    float b[TILE][TILE + 1];  // one column more: the 16 rows that a warp reads lie in different banks
};

KERNEL(gemm_2, LessonGemm, TILE * TILE, sizeof(Tiles), TILE, TILE) {
    Tiles& s = shared<Tiles>();
    const int i = threadIdx.x / TILE, j = threadIdx.x % TILE;
    const int row = blockIdx.y * TILE + i, col = blockIdx.x * TILE;
    float sum = 0.f;
    for (int k0 = 0; k0 < p.k; k0 += TILE) {
        s.a[i][j] = to_f32(p.a[(size_t)row * p.k + k0 + j]);
        s.b[i][j] = to_f32(p.b[(size_t)(col + i) * p.k + k0 + j]);
        __syncthreads();
        for (int k = 0; k < TILE; k++) sum = fmaf(s.a[i][k], s.b[j][k], sum);
        __syncthreads();
    }
    p.c[(size_t)row * p.n + col + j] = sum;
}
