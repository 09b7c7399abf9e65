// Data layout around the GEMM of a patch embedding: pixels to rows of patches before it, and rows to tokens after it.
//
// patch_rows_*: rows[(tile, y, x), (c, dy, dx)] = pixels[tile, c, y side + dy, x side + dx], for pixels
// [t, channels, g side, g side] f32 or bf16 and rows [t g g, ld] bf16 (=), with zeros from column channels side side on. Reads
// and writes each element once. Grid: [t g g ld / 1024, 1, 1].
#include "bf16.cuh"

template <class T>
struct PatchRows {
    const T* pixels;
    bf16* rows;
    int tiles, channels, g, side;
    int ld;
};

template <class T>
__device__ inline void patch_rows(const PatchRows<T>& p) {
    const int k = p.channels * p.side * p.side, patches = p.g * p.g, size = p.g * p.side;
    const int64_t count = (int64_t)p.tiles * patches * p.ld;
#pragma unroll
    for (int step = 0; step < 4; step++) {
        const int64_t i = (int64_t)blockIdx.x * 1024 + step * 256 + threadIdx.x;
        if (i >= count) return;
        const int row = (int)(i / p.ld), col = (int)(i % p.ld);
        if (col >= k) {
            p.rows[i] = to_bf16(0.f);
            continue;
        }
        const int tile = row / patches, y = row % patches / p.g, x = row % p.g;
        const int c = col / (p.side * p.side), dy = col / p.side % p.side, dx = col % p.side;
        const int64_t line = ((int64_t)tile * p.channels + c) * size + y * p.side + dy;
        p.rows[i] = to_bf16(to_f32(p.pixels[line * size + x * p.side + dx]));
    }
}

KERNEL(patch_rows_f32, PatchRows<float>, 256, 0, 1024) { patch_rows(p); }
KERNEL(patch_rows_bf16, PatchRows<bf16>, 256, 0, 1024) { patch_rows(p); }

// pad_rows_bf16: to [rows, ld] bf16 = from [rows, cols] bf16, with zeros from column cols on. Grid: [rows ld / 256, 1, 1].
struct PadRows {
    const bf16* from;
    bf16* to;
    int rows, cols, ld;
};

KERNEL(pad_rows_bf16, PadRows, 256, 0, 256) {
    const int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= (int64_t)p.rows * p.ld) return;
    const int row = (int)(i / p.ld), col = (int)(i % p.ld);
    p.to[i] = col < p.cols ? p.from[(int64_t)row * p.cols + col] : to_bf16(0.f);
}

// patch_tokens_fwd_bf16: tokens [t, 1 + n, d] bf16 = [class; rows of the tile] + position, for rows [t n, d] bf16, the class
// token `first` [d] f32 and position [1 + n, d] bf16.
//
// patch_tokens_bwd_bf16: rows [t n, d] bf16 = the rows of dtokens [t, 1 + n, d] without the class token
// (skipped if rows is null); dclass [d] f32 += and dposition [1 + n, d] f32 += the sums over the tiles, in order (skipped if
// null, when frozen).
//
// Each reads and writes 4 t n d bytes. Grid: [(1 + n) d / 256, 1, 1].
struct PatchTokens {
    const bf16* rows;
    const float* first;
    const bf16* position;
    bf16* tokens;
    int tiles, patches, d;
};

KERNEL(patch_tokens_fwd_bf16, PatchTokens, 256, 0, 256) {
    const int64_t plane = (int64_t)(1 + p.patches) * p.d, i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= plane) return;
    const float at = to_f32(p.position[i]);
    for (int tile = 0; tile < p.tiles; tile++) {
        const float x = i < p.d ? p.first[i] : to_f32(p.rows[(int64_t)tile * p.patches * p.d + i - p.d]);
        p.tokens[tile * plane + i] = to_bf16(x + at);
    }
}

struct PatchTokensBwd {
    const bf16* dtokens;
    bf16* rows;
    float* dclass;
    float* dposition;
    int tiles, patches, d;
};

KERNEL(patch_tokens_bwd_bf16, PatchTokensBwd, 256, 0, 256) {
    const int64_t plane = (int64_t)(1 + p.patches) * p.d, i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= plane) return;
    float sum = 0.f;
    for (int tile = 0; tile < p.tiles; tile++) {
        const bf16 x = p.dtokens[tile * plane + i];
        if (p.rows != nullptr && i >= p.d) p.rows[(int64_t)tile * p.patches * p.d + i - p.d] = x;
        sum += to_f32(x);
    }
    if (p.dclass != nullptr && i < p.d) p.dclass[i] += sum;
    if (p.dposition != nullptr) p.dposition[i] += sum;
}
