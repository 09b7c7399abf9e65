// Sums, scaling, conversions and fills of n elements.
//
//   add_fwd      y = a + b       6 bytes an element in bf16, 12 in f32; 1 FLOP; y may be a or b
//   scale_fwd    y = s a         4 bytes, 8 in f32; 1 FLOP; y may be a
//   cast_f32_bf16, cast_bf16_f32 y = a, from the first type to the second; 6 bytes; rounds to nearest even
//   fill         y = s           2 bytes, 4 in f32
//
// Grid: a block for each tile of elements.
#include "vec.cuh"

template <class T>
struct Add {
    const T* a;
    const T* b;
    T* y;
    uint64_t n;
};
template <class From, class To>
struct Map {
    const From* a;
    To* y;
    uint64_t n;
    float s;
    int pad;
};
using Narrow = Map<float, bf16>;
using Widen = Map<bf16, float>;
template <class T>
using Same = Map<T, T>;

template <class T>
__device__ inline void add(const Add<T>& p) {
    elementwise([](float a, float b) { return a + b; }, p.n, p.y, p.a, p.b);
}
template <class T>
__device__ inline void scale(const Same<T>& p) {
    const float s = p.s;
    elementwise([s](float a) { return s * a; }, p.n, p.y, p.a);
}
template <class From, class To>
__device__ inline void cast(const Map<From, To>& p) {
    elementwise([](float a) { return a; }, p.n, p.y, p.a);
}
template <class T>
__device__ inline void fill(const Same<T>& p) {
    const float s = p.s;
    elementwise([s] { return s; }, p.n, p.y);
}

KERNEL(add_fwd_bf16, Add<bf16>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { add(p); }
KERNEL(add_fwd_f32, Add<float>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { add(p); }
KERNEL(scale_fwd_bf16, Same<bf16>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { scale(p); }
KERNEL(scale_fwd_f32, Same<float>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { scale(p); }
KERNEL(cast_f32_bf16, Narrow, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { cast(p); }
KERNEL(cast_bf16_f32, Widen, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { cast(p); }
KERNEL(fill_bf16, Same<bf16>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { fill(p); }
KERNEL(fill_f32, Same<float>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { fill(p); }
