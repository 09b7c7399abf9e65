// Step 5. Asynchronous copies: cp.async moves 16 bytes from global to shared memory without a register between, and the tiles of the
// next two steps are on their way while this one is multiplied.
//
// The traffic is that of step 4. What goes is waiting: step 4 stops at every tile for a whole latency of global memory, here two
// tiles hide it. And one barrier a tile is left: when a tile has arrived for all, all are done with the one before it, whose place
// the next copy takes.
#include "lesson.cuh"
#include "ptx.cuh"

constexpr int SIDE = 64, DEPTH = 32, THREADS = 128, STAGES = 3;
constexpr int PITCH = DEPTH + 8;

struct Stage {
    alignas(16) bf16 a[SIDE][PITCH];
    alignas(16) bf16 b[SIDE][PITCH];
};
struct Stages {
    Stage of[STAGES];
};

KERNEL(gemm_5, LessonGemm, THREADS, sizeof(Stages), SIDE, SIDE) {
    Stages& s = shared<Stages>();
    const int row0 = blockIdx.y * SIDE, col0 = blockIdx.x * SIDE, lane = lane_id();
    const int warp_row = warp_id() / 2 * 32, warp_col = warp_id() % 2 * 32, tiles = p.k / DEPTH;
    float sum[2][4][4] = {};
    const auto fetch = [&](int tile) {
        Stage& to = s.of[tile % STAGES];
        for (int at = threadIdx.x; tile < tiles && at < SIDE * DEPTH / 8; at += THREADS) {
            const int i = at / (DEPTH / 8), k = at % (DEPTH / 8) * 8;
            cp_async<16>(&to.a[i][k], p.a + (size_t)(row0 + i) * p.k + tile * DEPTH + k);
            cp_async<16>(&to.b[i][k], p.b + (size_t)(col0 + i) * p.k + tile * DEPTH + k);
        }
        cp_async_commit();  // also of an empty group, so that the count of groups stays that of tiles
    };
    for (int tile = 0; tile < STAGES - 1; tile++) fetch(tile);
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<STAGES - 2>();  // this thread's part of the tile has landed
        __syncthreads();              // and that of all others
        fetch(tile + STAGES - 1);
        const Stage& at = s.of[tile % STAGES];
        for (int k = 0; k < DEPTH; k += 16) {
            uint32_t a[2][4], b[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) ldmatrix_x4(a[i], &at.a[warp_row + 16 * i + lane % 16][k + lane / 16 * 8]);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                ldmatrix_x4(b[j], &at.b[warp_col + 16 * j + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const uint32_t columns[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                    mma_bf16(sum[i][j], a[i], columns);
                }
        }
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int half = 0; half < 2; half++) {
                const int row = row0 + warp_row + 16 * i + 8 * half + lane / 4, col = col0 + warp_col + 8 * j + lane % 4 * 2;
                p.c[(size_t)row * p.n + col] = sum[i][j][2 * half];
                p.c[(size_t)row * p.n + col + 1] = sum[i][j][2 * half + 1];
            }
}
