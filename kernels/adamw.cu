// AdamW (arXiv 1711.05101) over flat arrays, and the norm of all gradients with the scale that clips it.
//
//   m += rate1 (g - m);  v = beta2 v + rate2 g g;  p = p decay - lr m / (sqrt(v) / correction2 + eps);  half = bf16(p)
//
// Writes (=) p [n] f32, its bf16 copy `half` (may be null), and m, v [n] f32 or bf16. Reads g [n] f32 and first multiplies it by
// the gradient scale. Element i of all arrays belongs to the same parameter element; padding between parameters stays zero.
//
//   adamw_f32       m and v in f32. Reads 16 bytes per element and writes 14; about 14 FLOPs.
//   adamw_bf16      m and v in bf16. Reads 12 bytes per element and writes 10. m and v are rounded stochastically: up with a
//                   probability equal to the fraction that rounding cuts off, so that small changes are kept in expectation. The
//                   random bits are Philox words of the seed, the step and the element.
//   grad_norm_f32   norm [2] f32 = {scale |g|, gradient scale}. The gradient scale is `scale`, or scale clip / norm if the norm
//                   is above clip, or NaN if the norm is not finite, for which AdamW changes nothing. Reads 4 bytes per element;
//                   sums in double, in a fixed order. Grid: at most tile[1] blocks.
//
// The numbers of the step are read from memory, so that a CUDA graph can be replayed with other numbers.
#include "philox.cuh"
#include "ptx.cuh"

struct AdamwControl {
    float scale, clip;  // scale of the gradients, and the norm to which they are clipped, infinite for no clipping
    float decay, rate1, beta2, rate2, correction2, eps, lr;
    uint32_t step;
    uint32_t seed[2];
};
template <class M>
struct Adamw {
    float* p;
    bf16* half;
    M* m;
    M* v;
    const float* g;
    const AdamwControl* control;
    const float* norm;  // result of grad_norm_f32; if null, the gradients are scaled by `control.scale`
    uint64_t n;
};
constexpr int ADAMW_THREADS = 256;

// Rounds x stochastically to bf16, with 16 random bits: the magnitude is rounded up with probability (discarded bits) / 2^16.
__device__ inline uint32_t adamw_round(float x, uint32_t random) {
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return to_bf16(x).bits;
    return (bits + random) >> 16;
}

// Four consecutive values of an array; at its end, only the first `count` of them exist.
struct AdamwFour {
    float x[4];
};
struct alignas(8) AdamwPairs {
    uint32_t pair[2];
};
__device__ inline AdamwFour adamw_load(const float* from, int count) {
    AdamwFour y = {};
    if (count == 4) {
        const f32x4 v = load_streaming(reinterpret_cast<const f32x4*>(from));
#pragma unroll
        for (int k = 0; k < 4; k++) y.x[k] = v.v[k];
    } else {
#pragma unroll
        for (int k = 0; k < 3; k++) y.x[k] = k < count ? from[k] : 0.f;
    }
    return y;
}
__device__ inline AdamwFour adamw_load(const bf16* from, int count) {
    AdamwFour y = {};
    if (count == 4) {
        const AdamwPairs w = *reinterpret_cast<const AdamwPairs*>(from);
#pragma unroll
        for (int k = 0; k < 4; k++) y.x[k] = __uint_as_float(k % 2 ? w.pair[k / 2] & 0xffff0000u : w.pair[k / 2] << 16);
    } else {
#pragma unroll
        for (int k = 0; k < 3; k++) y.x[k] = k < count ? to_f32(from[k]) : 0.f;
    }
    return y;
}
__device__ inline void adamw_store(float* to, const AdamwFour& y, int count) {
    if (count == 4) {
        store_streaming(reinterpret_cast<f32x4*>(to), {y.x[0], y.x[1], y.x[2], y.x[3]});
    } else {
#pragma unroll
        for (int k = 0; k < 3; k++) {
            if (k < count) to[k] = y.x[k];
        }
    }
}
__device__ inline void adamw_store(bf16* to, const uint32_t (&bits)[4], int count) {
    if (count == 4) {
        *reinterpret_cast<AdamwPairs*>(to) = {bits[0] | bits[1] << 16, bits[2] | bits[3] << 16};
    } else {
#pragma unroll
        for (int k = 0; k < 3; k++) {
            if (k < count) to[k].bits = (uint16_t)bits[k];
        }
    }
}

// Each thread updates four elements.
template <class M>
__device__ inline void adamw_step(const Adamw<M>& a) {
    const AdamwControl c = *a.control;
    const float scale = a.norm ? a.norm[1] : c.scale;
    const uint64_t block = (uint64_t)blockIdx.x * ADAMW_THREADS + threadIdx.x, i = 4 * block;
    if (scale != scale || i >= a.n) return;
    const int count = a.n - i < 4 ? (int)(a.n - i) : 4;

    AdamwFour p = adamw_load(a.p + i, count), m = adamw_load(a.m + i, count), v = adamw_load(a.v + i, count);
    const AdamwFour g = adamw_load(a.g + i, count);
    uint32_t half[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const float gk = g.x[k] * scale;
        m.x[k] += c.rate1 * (gk - m.x[k]);
        v.x[k] = c.beta2 * v.x[k] + c.rate2 * gk * gk;
        p.x[k] = p.x[k] * c.decay - c.lr * m.x[k] / (sqrtf(v.x[k]) / c.correction2 + c.eps);
        half[k] = to_bf16(p.x[k]).bits;
    }
    adamw_store(a.p + i, p, count);
    if (a.half) adamw_store(a.half + i, half, count);
    if constexpr (sizeof(M) == 2) {
        uint32_t random[4] = {(uint32_t)block, (uint32_t)(block >> 32), c.step, 0xADA3u}, narrow_m[4], narrow_v[4];
        philox4x32_10(random, c.seed[0], c.seed[1]);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            narrow_m[k] = adamw_round(m.x[k], random[k] & 0xffffu);
            narrow_v[k] = adamw_round(v.x[k], random[k] >> 16);
        }
        adamw_store(a.m + i, narrow_m, count);
        adamw_store(a.v + i, narrow_v, count);
    } else {
        adamw_store(a.m + i, m, count);
        adamw_store(a.v + i, v, count);
    }
}

KERNEL(adamw_f32, Adamw<float>, ADAMW_THREADS, 0, 4 * ADAMW_THREADS) { adamw_step(p); }
KERNEL(adamw_bf16, Adamw<bf16>, ADAMW_THREADS, 0, 4 * ADAMW_THREADS) { adamw_step(p); }

struct GradNorm {
    const float* g;
    double* partials;   // one per block
    unsigned* arrived;  // number of finished blocks; 0 before and after the launch
    const AdamwControl* control;
    float* norm;
    uint64_t n;
};
struct GradNormShared {
    double part[ADAMW_THREADS];
    unsigned last;
};

// The sum over all threads of the block, in a fixed order.
__device__ inline double grad_norm_sum(double x, GradNormShared& s) {
    s.part[threadIdx.x] = x;
    for (int half = ADAMW_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) s.part[threadIdx.x] += s.part[threadIdx.x + half];
    }
    __syncthreads();
    return s.part[0];
}

// Each block sums its share of g in a grid-stride loop. The block that arrives last adds the partial sums in the order of the
// blocks, so that the result does not depend on which block is last.
KERNEL(grad_norm_f32, GradNorm, ADAMW_THREADS, sizeof(GradNormShared), 4 * ADAMW_THREADS, 1024) {
    auto& s = shared<GradNormShared>();
    double sum = 0.0;
    const uint64_t stride = (uint64_t)gridDim.x * ADAMW_THREADS, first = (uint64_t)blockIdx.x * ADAMW_THREADS + threadIdx.x;
    const uint64_t whole = p.n / 4;
    for (uint64_t i = first; i < whole; i += 4 * stride) {
        // Four loads are in flight before the first is used.
        f32x4 g[4] = {};
#pragma unroll
        for (int u = 0; u < 4; u++) {
            if (i + u * stride < whole) g[u] = load_streaming(reinterpret_cast<const f32x4*>(p.g) + i + u * stride);
        }
#pragma unroll
        for (int u = 0; u < 4; u++) {
#pragma unroll
            for (int k = 0; k < 4; k++) sum += (double)g[u].v[k] * g[u].v[k];
        }
    }
    if (first < p.n % 4) sum += (double)p.g[4 * whole + first] * p.g[4 * whole + first];
    sum = grad_norm_sum(sum, s);
    if (threadIdx.x == 0) {
        p.partials[blockIdx.x] = sum;
        __threadfence();
        s.last = atomicAdd(p.arrived, 1u) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (!s.last) return;

    // Volatile, because other blocks wrote the partial sums and this multiprocessor's L1 cache may hold stale values.
    const volatile double* partials = p.partials;
    sum = 0.0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += ADAMW_THREADS) sum += partials[i];
    sum = grad_norm_sum(sum, s);
    if (threadIdx.x == 0) {
        const double scale = p.control->scale, clip = p.control->clip, norm = sqrt(sum) * scale;
        const bool finite = norm <= 3.4028234663852886e38;
        p.norm[0] = (float)norm;
        p.norm[1] = !finite ? __uint_as_float(0x7fc00000u) : (float)(norm > clip ? scale * (clip / norm) : scale);
        *p.arrived = 0;
    }
}
