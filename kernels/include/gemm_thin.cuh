// The GEMM of a tall matrix with a thin one, [rows, k] [thin, k]^T, k contiguous in both. It is bound by the memory bandwidth of the
// tall operand.
//
// A block computes 16 MT rows by 8 NT thin rows. Each of its eight warps has a share of k, and loads it from global memory into
// fragments, 16 bytes a lane. The columns of k in a fragment may be permuted if those of both operands are permuted alike, so lane t
// of four loads columns 8 t .. 8 t + 8 of 32, and neither a shuffle nor shared memory is needed. The sums of the warps are added in
// shared memory, in order.
#pragma once
#include "gemm_params.cuh"
#include "ptx.cuh"

constexpr int THIN_WARPS = 8;

template <int MT, int NT>
struct ThinShared {
    float sum[THIN_WARPS][MT * 16][NT * 8 + 4];
};

struct ThinOperands {
    const bf16* tall;
    const bf16* thin;
    int rows, thin_rows, k, ld_tall, ld_thin;
};

// Eight elements from `from`; those from number `valid` on are zero. With ALIGNED, rows start on 16-byte boundaries and k is a multiple
// of eight, so that all are valid or none is.
template <bool ALIGNED>
__device__ inline uint4 thin_load(const bf16* from, int valid) {
    if constexpr (ALIGNED) {
        return valid >= 8 ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    } else {
        unsigned w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned lo = 2 * i < valid ? from[2 * i].bits : 0;
            const unsigned hi = 2 * i + 1 < valid ? from[2 * i + 1].bits : 0;
            w[i] = lo | hi << 16;
        }
        return make_uint4(w[0], w[1], w[2], w[3]);
    }
}

// Leaves the result for the tall rows from row0 on and the thin rows from thin0 on in s.sum[0], after a barrier. Of each 16 tall rows the
// first eight are neighbours, and so are the last eight, `second` rows further: 8 if all are. `prologue(words, row, col)` may change
// eight elements of the tall operand before they are multiplied.
template <bool ALIGNED, int MT, int NT, class Prologue>
__device__ inline void thin_gemm(ThinShared<MT, NT>& s, const ThinOperands& o, int row0, int second, int thin0, Prologue prologue) {
    const int l = lane_id(), g = l / 4, t = l % 4, w = warp_id();
    const int units = (o.k + 31) / 32, first = units * w / THIN_WARPS, last = units * (w + 1) / THIN_WARPS;
    float acc[MT][NT][4];
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][j][e] = 0.f;

    // DEPTH steps of 32 columns are being loaded while one is multiplied, about twelve 16-byte loads a lane: memory's latency times its
    // bandwidth asks for as many. The loads of a step are issued in the round of the loop before the one that uses them, because the
    // compiler moves a load down to its use where both are in one round.
    constexpr int DEPTH = 12 / (2 * MT + NT) > 0 ? 12 / (2 * MT + NT) : 1;
    uint4 tall[DEPTH][MT][2], thin[DEPTH][NT];
    const auto load = [&](int slot, int u) {
        const int col = u * 32 + t * 8, valid = u < last ? min(max(o.k - col, 0), 8) : 0;
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = row0 + i * 16 + h * second + g;
                tall[slot][i][h] = thin_load<ALIGNED>(o.tall + (int64_t)row * o.ld_tall + col, row < o.rows ? valid : 0);
            }
#pragma unroll
        for (int j = 0; j < NT; j++) {
            const int row = thin0 + j * 8 + g;
            thin[slot][j] = thin_load<ALIGNED>(o.thin + (int64_t)row * o.ld_thin + col, row < o.thin_rows ? valid : 0);
        }
    };
    const auto multiply = [&](int slot, int u) {
#pragma unroll
        for (int i = 0; i < MT; i++) {
            uint4(&x)[2] = tall[slot][i];
#pragma unroll
            for (int h = 0; h < 2; h++) prologue(x[h], row0 + i * 16 + h * second + g, u * 32 + t * 8);
            const uint32_t a0[4] = {x[0].x, x[1].x, x[0].y, x[1].y};
            const uint32_t a1[4] = {x[0].z, x[1].z, x[0].w, x[1].w};
#pragma unroll
            for (int j = 0; j < NT; j++) {
                const uint4& y = thin[slot][j];
                const uint32_t b0[2] = {y.x, y.y}, b1[2] = {y.z, y.w};
                mma_bf16(acc[i][j], a0, b0);
                mma_bf16(acc[i][j], a1, b1);
            }
        }
    };
#pragma unroll
    for (int slot = 0; slot < DEPTH; slot++) load(slot, first + slot);
#pragma unroll 1
    for (int u = first; u < last; u += DEPTH) {
#pragma unroll
        for (int slot = 0; slot < DEPTH; slot++) {
            multiply(slot, u + slot);  // past the end of k both operands are zero
            load(slot, u + slot + DEPTH);
        }
    }
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) s.sum[w][i * 16 + e / 2 * 8 + g][j * 8 + t * 2 + e % 2] = acc[i][j][e];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < MT * 16 * NT * 8; i += THIN_WARPS * 32) {
        const int r = i / (NT * 8), c = i % (NT * 8);
        float sum = 0.f;
#pragma unroll
        for (int v = 0; v < THIN_WARPS; v++) sum += s.sum[v][r][c];
        s.sum[0][r][c] = sum;
    }
    __syncthreads();
}
