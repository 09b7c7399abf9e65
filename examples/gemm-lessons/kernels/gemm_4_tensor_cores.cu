// Step 4. Tensor cores: one mma instruction of a warp makes 16 x 8 x 16 = 2048 FMAs of bf16 values, and ldmatrix brings its
// operands from shared memory as it wants them.
//
// A warp computes 32 x 32 elements of c. For 16 of k it reads 1 KiB of a and 1 KiB of b and makes 16384 FMAs: 0.125 bytes of
// shared memory for each FMA, and 8 mma with 4 ldmatrix where step 3 needs 512 FMA instructions of each of its warps.
#include "lesson.cuh"
#include "ptx.cuh"

constexpr int SIDE = 64, DEPTH = 32, THREADS = 128;
constexpr int PITCH = DEPTH + 8;  // 80 bytes a row: the 8 rows of a matrix lie in different banks

struct Tiles {
    alignas(16) bf16 a[SIDE][PITCH];
    alignas(16) bf16 b[SIDE][PITCH];
};

KERNEL(gemm_4, LessonGemm, THREADS, sizeof(Tiles), SIDE, SIDE) {
    Tiles& s = shared<Tiles>();
    const int row0 = blockIdx.y * SIDE, col0 = blockIdx.x * SIDE, lane = lane_id();
    const int warp_row = warp_id() / 2 * 32, warp_col = warp_id() % 2 * 32;
    float sum[2][4][4] = {};  // two tiles of 16 rows, four of 8 columns
    for (int k0 = 0; k0 < p.k; k0 += DEPTH) {
        for (int at = threadIdx.x; at < SIDE * DEPTH / 8; at += THREADS) {  // 16 bytes at a time
            const int i = at / (DEPTH / 8), k = at % (DEPTH / 8) * 8;
            *reinterpret_cast<uint4*>(&s.a[i][k]) = *reinterpret_cast<const uint4*>(p.a + (size_t)(row0 + i) * p.k + k0 + k);
            *reinterpret_cast<uint4*>(&s.b[i][k]) = *reinterpret_cast<const uint4*>(p.b + (size_t)(col0 + i) * p.k + k0 + k);
        }
        __syncthreads();
        for (int k = 0; k < DEPTH; k += 16) {
            uint32_t a[2][4], b[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) ldmatrix_x4(a[i], &s.a[warp_row + 16 * i + lane % 16][k + lane / 16 * 8]);
#pragma unroll
            for (int j = 0; j < 2; j++) {  // two tiles of 8 columns each: matrices (n, k), (n, k + 8), (n + 8, k), (n + 8, k + 8)
                ldmatrix_x4(b[j], &s.b[warp_col + 16 * j + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const uint32_t columns[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                    mma_bf16(sum[i][j], a[i], columns);
                }
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int half = 0; half < 2; half++) {
                const int row = row0 + warp_row + 16 * i + 8 * half + lane / 4, col = col0 + warp_col + 8 * j + lane % 4 * 2;
                p.c[(size_t)row * p.n + col] = sum[i][j][2 * half];
                p.c[(size_t)row * p.n + col + 1] = sum[i][j][2 * half + 1];
            }
}
