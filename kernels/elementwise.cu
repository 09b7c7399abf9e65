// Elementwise sum, scaling and conversion of n elements.
//
//   add_fwd      y = a + b       6 bytes per element in bf16, 12 in f32; 1 FLOP; y may be a or b
//   scale_fwd    y = s a         4 bytes per element in bf16, 8 in f32; 1 FLOP; y may be a
//   cast_f32_bf16, cast_bf16_f32 y = a, from the first type to the second; 6 bytes per element; rounds to nearest, ties to even
//
// Grid: one block per tile[0] elements.
#include "vec.cuh"

template <class T>
struct Add {
    const T* a;
    const T* b;
    T* y;
    uint64_t n;
};
template <class T>
struct Scale {
    const T* a;
    T* y;
    uint64_t n;
    float s;
};
struct CastToBf16 {
    const float* a;
    bf16* y;
    uint64_t n;
};
struct CastToF32 {
    const bf16* a;
    float* y;
    uint64_t n;
};

template <class T>
__device__ inline void add(const Add<T>& p) {
    elementwise([](float a, float b) { return a + b; }, p.n, p.y, p.a, p.b);
}
template <class T>
__device__ inline void scale(const Scale<T>& p) {
    const float s = p.s;
    elementwise([s](float a) { return s * a; }, p.n, p.y, p.a);
}
template <class P>
__device__ inline void cast(const P& p) {
    elementwise([](float a) { return a; }, p.n, p.y, p.a);
}
KERNEL(add_fwd_bf16, Add<bf16>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { add(p); }
KERNEL(add_fwd_f32, Add<float>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { add(p); }
KERNEL(scale_fwd_bf16, Scale<bf16>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { scale(p); }
KERNEL(scale_fwd_f32, Scale<float>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { scale(p); }
KERNEL(cast_f32_bf16, CastToBf16, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { cast(p); }
KERNEL(cast_bf16_f32, CastToF32, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { cast(p); }
