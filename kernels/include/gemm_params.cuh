// The parameters of a GEMM:
//
//   c = f(rotate(alpha (a b + a2 b2) + bias)) * gelu'(slope) + residual (+ c)        a [m, k], b [k, n], a2 [m, k2], b2 [k2, n]
//
// with f a GELU or the identity. A null pointer leaves its step out; which steps a kernel has at all is its list of functors
// (gemm_epilogue.cuh). The kernel also fixes the layout of a and b in memory: NT takes b as [n, k], NN takes b as [k, n], and TN takes
// a as [k, m].
#pragma once
#include "bf16.cuh"
#include "gelu.cuh"
#include "philox.cuh"

enum GemmFlags : int {
    GEMM_F32 = 1,      // c is f32, else bf16
    GEMM_ADD = 2,      // the result is added to c
    GEMM_VECTORS = 4,  // c, residual, slope and pre allow 16-byte accesses: aligned, ldc a multiple of 8
};

struct Gemm {
    const bf16* a;
    const bf16* b;
    const bf16* a2;           // the low-rank operands, or null with k2 = 0
    const bf16* b2;
    void* c;
    float* partial;           // with splits > 1: [splits, batch, m, n], the sums from which gemm_reduce makes c
    const float* bias;        // [n], or null
    const bf16* residual;     // residual, slope and pre have the shape and leading dimension of c, or are null
    const bf16* slope;
    bf16* pre;                // receives the input of f
    const float* angles;      // with rotary embedding: [positions, 2, rot / 2], cos first (gemm_epilogue.cuh: RotateHeads), or null
    const uint32_t* position; // the position of each row, [m], for `angles`
    const uint32_t* to;       // the row of c where each row of the result is stored, [m], or null where it is its own
    DropoutMask mask;         // with p > 0, dropout of a2 b2: element (i, j) is number i n + j
    int64_t stride_a, stride_b, stride_c;  // from one GEMM of a batch to the next, in elements
    int m, n, k, k2;
    int lda, ldb, lda2, ldb2;
    int ldc, splits, batch, flags;
    int activation, slope_kind;
    int head_dim, rot;
    float alpha;
};

// Up to four GEMMs of the same a, whose tiles share a grid: GEMM i has the tiles from first[i] on. first[0] is 0; for GEMMs that are
// not used, first is beyond the grid.
struct GemmSeveral {
    Gemm of[4];
    int first[4];
};
__device__ inline int gemm_of_tile(const GemmSeveral& p, int tile) {
    return (tile >= p.first[1]) + (tile >= p.first[2]) + (tile >= p.first[3]);
}

// Which elements dropout keeps: bit i for element `first` + i, of four or eight. `first` need not be a multiple of four, the number
// of elements that one call of Philox decides.
__device__ inline uint32_t kept_bits(const DropoutMask& mask, uint64_t rng_offset, uint64_t block) {
    float f[4];
    dropout_factors(f, mask, rng_offset, (uint32_t)block);
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) bits |= f[i] != 0.f ? 1u << i : 0u;
    return bits;
}
__device__ inline uint32_t kept_bits8(const DropoutMask& mask, uint64_t rng_offset, uint64_t first) {
    const uint64_t block = first >> 2;
    const int skip = (int)(first & 3);
    uint32_t bits = kept_bits(mask, rng_offset, block) | kept_bits(mask, rng_offset, block + 1) << 4;
    if (skip != 0) bits |= kept_bits(mask, rng_offset, block + 2) << 8;
    return bits >> skip;
}
__device__ inline uint32_t kept_bits4(const DropoutMask& mask, uint64_t rng_offset, uint64_t first) {
    const uint64_t block = first >> 2;
    const int skip = (int)(first & 3);
    uint32_t bits = kept_bits(mask, rng_offset, block);
    if (skip != 0) bits |= kept_bits(mask, rng_offset, block + 1) << 4;
    return bits >> skip;
}

// Zeroes the dropped ones of eight bf16 elements, of which the mask numbers the first `first`. The scale 1 / (1 - p) is not applied.
__device__ inline void drop8(uint4& x, const DropoutMask& mask, uint64_t rng_offset, uint64_t first) {
    const uint32_t bits = kept_bits8(mask, rng_offset, first);
    unsigned* const words[4] = {&x.x, &x.y, &x.z, &x.w};
#pragma unroll
    for (int w = 0; w < 4; w++) {
        *words[w] &= (bits >> 2 * w & 1 ? 0xffffu : 0u) | (bits >> 2 * w & 2 ? 0xffff0000u : 0u);
    }
}

struct Floats8 {
    float v[8];
};

__device__ inline Floats8 widen(const bf16x8& x) {
    Floats8 y;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        y.v[2 * i] = to_f32(x.pair[i].lo);
        y.v[2 * i + 1] = to_f32(x.pair[i].hi);
    }
    return y;
}
__device__ inline bf16x8 narrow(const Floats8& x) {
    bf16x8 y;
#pragma unroll
    for (int i = 0; i < 4; i++) y.pair[i] = to_bf16x2(x.v[2 * i], x.v[2 * i + 1]);
    return y;
}

// `count` <= 8 elements from `from`; the others are 0.
__device__ inline Floats8 load8(const bf16* from, int count, bool vectors) {
    if (vectors && count == 8) return widen(*reinterpret_cast<const bf16x8*>(from));
    Floats8 x;
#pragma unroll
    for (int i = 0; i < 8; i++) x.v[i] = i < count ? to_f32(from[i]) : 0.f;
    return x;
}
__device__ inline void store8(bf16* to, const Floats8& x, int count, bool vectors) {
    if (vectors && count == 8) {
        *reinterpret_cast<bf16x8*>(to) = narrow(x);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) to[i] = to_bf16(x.v[i]);
}
__device__ inline Floats8 load8(const float* from, int count, bool vectors) {
    Floats8 x;
    if (vectors && count == 8) {
        const f32x4 lo = *reinterpret_cast<const f32x4*>(from), hi = *reinterpret_cast<const f32x4*>(from + 4);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x.v[i] = lo.v[i];
            x.v[4 + i] = hi.v[i];
        }
        return x;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) x.v[i] = i < count ? from[i] : 0.f;
    return x;
}
__device__ inline void store8(float* to, const Floats8& x, int count, bool vectors) {
    if (vectors && count == 8) {
        f32x4 lo, hi;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            lo.v[i] = x.v[i];
            hi.v[i] = x.v[4 + i];
        }
        *reinterpret_cast<f32x4*>(to) = lo;
        *reinterpret_cast<f32x4*>(to + 4) = hi;
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) to[i] = x.v[i];
}
