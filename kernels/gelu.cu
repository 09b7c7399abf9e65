// GELU (arXiv 1606.08415) as a kernel of its own, in its three forms; x, y, dy and dx have n elements.
//
//   gelu_fwd   y = gelu(x)              4 bytes per element in bf16, 8 in f32; about 20 FLOPs
//   gelu_bwd   dx = dy gelu'(x)         6 bytes per element in bf16, 12 in f32; about 30 FLOPs
//
// Forward saves nothing, because backward reads x. dx may be dy. Grid: one block per tile[0] elements.
#include "gelu.cuh"
#include "vec.cuh"

template <class T>
struct GeluFwd {
    const T* x;
    T* y;
    uint64_t n;
    int kind;
};
template <class T>
struct GeluBwd {
    const T* dy;
    const T* x;
    T* dx;
    uint64_t n;
    int kind;
};

// The form is selected once per thread and not for each element.
template <class T>
__device__ inline void forward(const GeluFwd<T>& p) {
    if (p.kind == GELU_EXACT) elementwise([](float x) { return gelu(x, GELU_EXACT); }, p.n, p.y, p.x);
    if (p.kind == GELU_TANH) elementwise([](float x) { return gelu(x, GELU_TANH); }, p.n, p.y, p.x);
    if (p.kind == GELU_QUICK) elementwise([](float x) { return gelu(x, GELU_QUICK); }, p.n, p.y, p.x);
}
template <int KIND, class T>
__device__ inline void backward_of(const GeluBwd<T>& p) {
    elementwise([](float dy, float x) { return dy * gelu_slope(x, KIND); }, p.n, p.dx, p.dy, p.x);
}
template <class T>
__device__ inline void backward(const GeluBwd<T>& p) {
    if (p.kind == GELU_EXACT) backward_of<GELU_EXACT>(p);
    if (p.kind == GELU_TANH) backward_of<GELU_TANH>(p);
    if (p.kind == GELU_QUICK) backward_of<GELU_QUICK>(p);
}

KERNEL(gelu_fwd_bf16, GeluFwd<bf16>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { forward(p); }
KERNEL(gelu_fwd_f32, GeluFwd<float>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { forward(p); }
KERNEL(gelu_bwd_bf16, GeluBwd<bf16>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { backward(p); }
KERNEL(gelu_bwd_f32, GeluBwd<float>, ELEMENTWISE_THREADS, 0, ELEMENTWISE_TILE) { backward(p); }
