// The epilogue of the GEMM: what happens to a result between the accumulators and memory. It is a list of functors, chosen at
// compile time.
//
// A functor has `operator()(const Gemm& p, const GemmAt& at, Floats8& x) const` and changes x, eight neighbouring elements of a row,
// in f32. A kernel names the functors it wants, in order, behind the tile: gemm<Tile>(p, tile, ScaleByAlpha{}, AddBias{}, MyStep{p.my}).
// The lists of the model's own kernels are at the end of this file. The store comes last and is not a functor.
#pragma once
#include "gemm_params.cuh"

// Eight neighbouring elements of c, from c[row, col] of GEMM `batch` on, of which `count` are inside.
struct GemmAt {
    int batch, row, col, count;
    int64_t at;    // their offset in c, and in residual, slope and pre
    bool vectors;  // 16-byte accesses are allowed
};
// The same for functors that need other columns of the row: `sums(d)` is the plain a b + a2 b2 of the eight elements d columns further.
template <class Sums>
struct GemmAtWithSums : GemmAt {
    Sums sums;
    __device__ GemmAtWithSums(const GemmAt& at, const Sums& sums) : GemmAt(at), sums(sums) {}
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
// Rotary position embedding (arXiv 2104.09864, halves layout) of the first `rot` columns of each head: column i < rot / 2 and column
// i + rot / 2 are rotated by the angle angles[position[row], i]. It follows ScaleByAlpha and AddBias, which it repeats for the other
// column of each pair. Needs rot % 16 == 0, and both columns in one warp's tile: rot <= 32, and head_dim divides 32 or 32 divides it.
struct RotateHeads {
    template <class At>
    __device__ void operator()(const Gemm& p, const At& at, Floats8& x) const {
        if (p.angles == nullptr) return;
        const int half = p.rot / 2, c = at.col % p.head_dim;
        if (c >= p.rot) return;
        const bool first = c < half;
        const int to_other = first ? half : -half;
        GemmAt there = at;
        there.col += to_other;
        Floats8 other = at.sums(to_other);
        ScaleByAlpha{}(p, there, other);
        AddBias{}(p, there, other);
        const float* const table = p.angles + (int64_t)p.position[at.row] * p.rot + (first ? c : c - half);
        const Floats8 cos = load8(table, 8, true), sin = load8(table + half, 8, true);
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] = x.v[i] * cos.v[i] + (first ? -other.v[i] : other.v[i]) * sin.v[i];
    }
};
// Stores the input of the activation, for backward.
struct StorePreActivation {
    __device__ void operator()(const Gemm& p, const GemmAt& at, Floats8& x) const {
        if (p.pre != nullptr) store8(p.pre + at.at, x, at.count, at.vectors);
    }
};
template <int KIND>
struct ApplyGeluOf {
    __device__ void operator()(const Gemm&, const GemmAt&, Floats8& x) const {
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] = gelu(x.v[i], KIND);
    }
};
// The GELU that the parameters name, chosen once for eight elements.
struct ApplyGelu {
    __device__ void operator()(const Gemm& p, const GemmAt& at, Floats8& x) const {
        if (p.activation == GELU_EXACT) ApplyGeluOf<GELU_EXACT>{}(p, at, x);
        if (p.activation == GELU_TANH) ApplyGeluOf<GELU_TANH>{}(p, at, x);
        if (p.activation == GELU_QUICK) ApplyGeluOf<GELU_QUICK>{}(p, at, x);
    }
};
// The derivative of GELU at the saved pre-activation, in the backward of the linear that follows the GELU.
template <int KIND>
struct TimesGeluSlopeOf {
    __device__ void operator()(const Gemm& p, const GemmAt& at, Floats8& x) const {
        const Floats8 u = load8(p.slope + at.at, at.count, at.vectors);
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] *= gelu_slope(u.v[i], KIND);
    }
};
struct TimesGeluSlope {
    __device__ void operator()(const Gemm& p, const GemmAt& at, Floats8& x) const {
        if (p.slope == nullptr) return;
        if (p.slope_kind == GELU_EXACT) TimesGeluSlopeOf<GELU_EXACT>{}(p, at, x);
        if (p.slope_kind == GELU_TANH) TimesGeluSlopeOf<GELU_TANH>{}(p, at, x);
        if (p.slope_kind == GELU_QUICK) TimesGeluSlopeOf<GELU_QUICK>{}(p, at, x);
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

// Several functors as one.
template <class... Steps>
struct EpilogueList {
    template <class At>
    __device__ void operator()(const Gemm& p, const At& at, Floats8& x) const {
        (Steps{}(p, at, x), ...);
    }
};
// What the model's kernels do: the forward of a linear, of several linears of which some make queries and keys, the gradient of a
// linear's input, and the gradient of its weight. gemm_reduce, which finishes the GEMMs that were split along k, has all of the steps.
using ForwardEpilogue = EpilogueList<ScaleByAlpha, AddBias, StorePreActivation, ApplyGelu, AddResidual>;
using QkvEpilogue = EpilogueList<ScaleByAlpha, AddBias, RotateHeads, StorePreActivation, ApplyGelu, AddResidual>;
using InputGradEpilogue = EpilogueList<ScaleByAlpha, TimesGeluSlope, AddResidual>;
using WeightGradEpilogue = EpilogueList<ScaleByAlpha>;
using ReduceEpilogue = EpilogueList<ScaleByAlpha, AddBias, RotateHeads, StorePreActivation, ApplyGelu, TimesGeluSlope, AddResidual>;

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

// Runs the steps on `count` elements of row `row` from column `col` on, and stores them. `sums(0)` is what they start from.
template <class Sums, class... Steps>
__device__ inline void gemm_finish(const Gemm& p, int batch, int row, int col, int count, const Sums& sums, const Steps&... steps) {
    const bool vectors = (p.flags & GEMM_VECTORS) != 0;
    const int to = p.to == nullptr ? row : (int)p.to[row];
    const GemmAt place = {batch, row, col, count, batch * p.stride_c + (int64_t)to * p.ldc + col, vectors};
    const GemmAtWithSums<Sums> at(place, sums);
    Floats8 x = sums(0);
    (steps(p, at, x), ...);
    gemm_store(p, at, x);
}
