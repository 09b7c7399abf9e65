// Access to eight elements at a time, converted to float: one 16-byte access for bf16, two for f32.
#pragma once
#include "bf16.cuh"

__device__ inline bool aligned16(const void* at) { return (reinterpret_cast<uintptr_t>(at) & 15) == 0; }

__device__ inline void load8(float (&x)[8], const bf16* from) {
    const uint4 u = *reinterpret_cast<const uint4*>(from);
    const uint32_t pair[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(pair[i] << 16);
        x[2 * i + 1] = __uint_as_float(pair[i] & 0xffff0000u);
    }
}
__device__ inline void load8(float (&x)[8], const float* from) {
    const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
__device__ inline void store8(bf16* to, const float (&x)[8]) {
    *reinterpret_cast<uint4*>(to) =
        make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}
__device__ inline void store8(float* to, const float (&x)[8]) {
    reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
}

// The same for the first `left` of eight elements: the others are loaded as 0 and not stored, and `left` may be negative. WIDE
// promises that `left` is at most 0 or at least 8, and that the address is a multiple of 16 bytes. It is a template argument so
// that the loads of the caller stay in one basic block and are all in flight at once.
template <bool WIDE, class T>
__device__ inline void load_up_to8(float (&x)[8], const T* from, int left) {
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = 0.f;
    if constexpr (WIDE) {
        if (left > 0) load8(x, from);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (i < left) x[i] = to_f32(from[i]);
        }
    }
}
template <bool WIDE, class T>
__device__ inline void store_up_to8(T* to, const float (&x)[8], int left) {
    if constexpr (WIDE) {
        if (left > 0) store8(to, x);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (i < left) store(to[i], x[i]);
        }
    }
}

// Elementwise kernels: each thread computes eight elements, and each block a tile of ELEMENTWISE_TILE.
constexpr int ELEMENTWISE_THREADS = 256, ELEMENTWISE_TILE = 8 * ELEMENTWISE_THREADS;

// y[i] = f(x[i]...) for this block's tile of the n elements. y may be one of the inputs.
template <class F, class To, class... From>
__device__ inline void elementwise(F f, uint64_t n, To* y, const From*... x) {
    const uint64_t at = (uint64_t)blockIdx.x * ELEMENTWISE_TILE + threadIdx.x * 8;
    if (at >= n) return;
    constexpr int INPUTS = sizeof...(From);
    float in[INPUTS][8], out[8];
    const int left = n - at < 8 ? (int)(n - at) : 8;
    const bool wide = left == 8 && (aligned16(y) && ... && aligned16(x));
    int k = 0;
    if (wide) {
        (load8(in[k++], x + at), ...);
    } else {
        (load_up_to8<false>(in[k++], x + at, left), ...);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if constexpr (INPUTS == 1) out[i] = f(in[0][i]);
        if constexpr (INPUTS == 2) out[i] = f(in[0][i], in[1][i]);
    }
    if (wide) {
        store8(y + at, out);
    } else {
        store_up_to8<false>(y + at, out, left);
    }
}
