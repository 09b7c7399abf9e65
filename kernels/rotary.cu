// Rotary position embedding (arXiv 2104.09864), halves layout, on the first `rot` elements of each head.
//
//   rotary_fwd   x, y [rows, heads, head_dim]; position [rows]; tables [positions, 2, rot / 2] f32, cos first. For i < rot / 2:
//                (u, v) = x[i], x[i + rot / 2];   y = (u c - v s, v c + u s), s = sign sin: sign = -1 is backward.
//                The rest of the head is copied, unless y is x. With `to`, row i of x goes to row to[i] of y. Saves nothing.
//                Reads and writes 2 bytes an element in bf16, 4 in f32, and only those that turn when y is x. 3 FLOPs for each of these.
//   rotary_cache three of these in one launch: queries in place, keys and values to their rows of a cache, values with rot = 0.
//
// Grid: blocks of tile[0] units, rotary_cache times 3; a head has rot / 2 / w units that turn and, where y is not x, (head_dim - rot) / w that are
// copied, for w = 8 where that divides and rows are aligned, else 1.
#include "vec.cuh"

template <class T>
struct RotaryFwd {
    const T* x;
    T* y;
    const uint32_t* position;
    const float* tables;
    const uint32_t* to;
    int rows, heads, head_dim, rot;
    float sign;
};
struct RotaryCache {
    RotaryFwd<bf16> of[3];
};

constexpr int ROTARY_THREADS = 256;

template <int W, class T>
__device__ inline void turn(const RotaryFwd<T>& p) {
    const int half = p.rot / 2, turning = half / W, rest = p.x == p.y ? 0 : (p.head_dim - p.rot) / W;
    const int units = turning + rest;
    const uint64_t all = (uint64_t)p.rows * p.heads * units, stride = (uint64_t)gridDim.x * ROTARY_THREADS;
    for (uint64_t i = (uint64_t)blockIdx.x * ROTARY_THREADS + threadIdx.x; i < all; i += stride) {
        const uint64_t head = i / units;
        const int unit = (int)(i % units);
        const T* x = p.x + head * p.head_dim;
        T* y = p.y + (p.to == nullptr ? head : (uint64_t)p.to[head / p.heads] * p.heads + head % p.heads) * p.head_dim;
        float u[W], v[W];
        if (unit >= turning) {
            const int at = p.rot + (unit - turning) * W;
            if constexpr (W == 8) {
                load8(u, x + at);
                store8(y + at, u);
            } else {
                y[at] = x[at];
            }
            continue;
        }
        const int at = unit * W;
        const float* table = p.tables + (uint64_t)p.position[head / p.heads] * p.rot + at;
        float c[W], s[W];
        if constexpr (W == 8) {
            load8(u, x + at);
            load8(v, x + half + at);
            load8(c, table);
            load8(s, table + half);
        } else {
            u[0] = to_f32(x[at]), v[0] = to_f32(x[half + at]);
            c[0] = table[0], s[0] = table[half];
        }
#pragma unroll
        for (int k = 0; k < W; k++) {
            const float a = u[k], b = v[k], sin = p.sign * s[k];
            u[k] = a * c[k] - b * sin;
            v[k] = b * c[k] + a * sin;
        }
        if constexpr (W == 8) {
            store8(y + at, u);
            store8(y + half + at, v);
        } else {
            store(y[at], u[0]);
            store(y[half + at], v[0]);
        }
    }
}
template <class T>
__device__ inline void turn_any(const RotaryFwd<T>& p) {
    const bool wide = p.rot % 16 == 0 && p.head_dim % 8 == 0;
    if (wide && aligned16(p.x) && aligned16(p.y) && aligned16(p.tables)) {
        turn<8>(p);
    } else {
        turn<1>(p);
    }
}

KERNEL(rotary_fwd_bf16, RotaryFwd<bf16>, ROTARY_THREADS, 0, ROTARY_THREADS) { turn_any(p); }
KERNEL(rotary_fwd_f32, RotaryFwd<float>, ROTARY_THREADS, 0, ROTARY_THREADS) { turn_any(p); }
KERNEL(rotary_cache_bf16, RotaryCache, ROTARY_THREADS, 0, ROTARY_THREADS) { turn_any(p.of[blockIdx.y]); }
