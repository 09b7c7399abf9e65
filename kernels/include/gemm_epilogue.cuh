// The epilogue of the GEMM: what happens to a result while it is in registers. It is a list of functors, chosen at compile time.
//
// A functor has `operator()(const Gemm& p, const GemmAt& at, Floats8& x) const` and changes x, eight neighbouring elements of a row, in
// f32. A kernel names those that it wants, in order, behind the tile: gemm<Tile>(p, tile, ScaleByAlpha{}, AddBias{}, MyStep{p.my}).
// Without any, it has all of the model's: c = f(alpha x + bias) gelu'(slope) + residual, where a null pointer leaves a step out.
// The store, which may add to c, comes last and is no functor.
#pragma once
#include "gemm_params.cuh"

// Eight elements of c: of these `count` are inside, from c[row, col] of product `batch` on.
struct GemmAt {
    int batch, row, col, count;
    int64_t at;    // their place in c, and in what has its shape and leading dimension
    bool vectors;  // 16-byte accesses are allowed
};

struct ScaleByAlpha {
    __device__ void operator()(const Gemm& p, const GemmAt&, Floats8& x) const {
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] *= p.alpha;
    }
};
struct AddBias {
    __device__ void operator()(const Gemm& p, const GemmAt& at, Floats8& x) const {
        if (p.bias == nullptr) return;
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] += i < at.count ? p.bias[at.col + i] : 0.f;
    }
};
// Stores the activation's input, for backward.
struct StorePreActivation {
    __device__ void operator()(const Gemm& p, const GemmAt& at, Floats8& x) const {
        if (p.pre != nullptr) store8(p.pre + at.at, x, at.count, at.vectors);
    }
};
struct ApplyGelu {
    __device__ void operator()(const Gemm& p, const GemmAt&, Floats8& x) const {
        if (p.activation == GELU_NONE) return;
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] = gelu(x.v[i], p.activation);
    }
};
// The derivative of GELU at the saved pre-activation, in the backward of the linear behind it.
struct TimesGeluSlope {
    __device__ void operator()(const Gemm& p, const GemmAt& at, Floats8& x) const {
        if (p.slope == nullptr) return;
        const Floats8 u = load8(p.slope + at.at, at.count, at.vectors);
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] *= gelu_slope(u.v[i], p.slope_kind);
    }
};
struct AddResidual {
    __device__ void operator()(const Gemm& p, const GemmAt& at, Floats8& x) const {
        if (p.residual == nullptr) return;
        const Floats8 r = load8(p.residual + at.at, at.count, at.vectors);
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] += r.v[i];
    }
};

__device__ inline void gemm_store(const Gemm& p, const GemmAt& at, Floats8 x) {
    if ((p.flags & GEMM_F32) == 0) {
        store8(static_cast<bf16*>(p.c) + at.at, x, at.count, at.vectors);
        return;
    }
    float* const c = static_cast<float*>(p.c) + at.at;
    if ((p.flags & GEMM_ADD) != 0) {
        const Floats8 old = load8(c, at.count, at.vectors);
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] += old.v[i];
    }
    store8(c, x, at.count, at.vectors);
}

// Runs the steps on `count` elements of row `row` from column `col` on, whose sums are x, and stores them.
template <class... Steps>
__device__ inline void gemm_finish(const Gemm& p, int batch, int row, int col, int count, Floats8 x, const Steps&... steps) {
    if constexpr (sizeof...(Steps) == 0) {
        gemm_finish(p, batch, row, col, count, x, ScaleByAlpha{}, AddBias{}, StorePreActivation{}, ApplyGelu{}, TimesGeluSlope{},
                    AddResidual{});
    } else {
        const bool vectors = (p.flags & GEMM_VECTORS) != 0;
        const GemmAt at = {batch, row, col, count, batch * p.stride_c + (int64_t)row * p.ldc + col, vectors};
        (steps(p, at, x), ...);
        gemm_store(p, at, x);
    }
}
