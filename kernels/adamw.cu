// AdamW (arXiv 1711.05101) over a flat array, and the norm of all gradients with the factor that clips it.
//
//   m += rate1 (g - m);  v = beta2 v + rate2 g g;  p = p decay - lr m / (sqrt(v) / correction2 + eps);  half = bf16(p)
//
//   p [n] f32 and its bf16 copy `half` (may be null), m, v [n] f32 or bf16, all =; g [n] f32 is read and multiplied by a factor
//   first. Element i of every array belongs together: unused elements between parameters are zero and stay zero.
//   adamw_f32:  reads 16 bytes an element and writes 14, about 14 FLOPs.
//   adamw_bf16: m and v in bf16, reads 12 and writes 10. They are rounded up with the probability of what rounding cuts off, so
//   that small changes are not lost on the average; the random bits are Philox words of the seed, the step and the element.
//
//   grad_norm_f32: norm [2] f32 = {scale |g|, factor}: the factor is scale, or scale clip / norm when the norm is above clip, or
//   NaN when the norm is not finite: AdamW then changes nothing. Reads 4 bytes an element; sums in double, in a fixed order.
//
// Numbers of the step are read from memory, so that a recorded launch can be run again with others.
#include "philox.cuh"
#include "ptx.cuh"

struct AdamwControl {
    float scale, clip;  // of the gradients; clip is infinite for none
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
    const float* norm;  // of grad_norm_f32; null to take `scale`
    uint64_t n;
};
constexpr int ADAMW_THREADS = 256;

// The upper or the lower neighbour in bf16, the upper one for so many of 2^16 random numbers as x is above the lower one.
__device__ inline bf16 adamw_round(float x, uint32_t random) {
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return to_bf16(x);
    bf16 y;
    y.bits = (uint16_t)((bits + random) >> 16);
    return y;
}

__device__ inline void adamw_one(float& p, float& m, float& v, float g, const AdamwControl& c) {
    m += c.rate1 * (g - m);
    v = c.beta2 * v + c.rate2 * g * g;
    p = p * c.decay - c.lr * m / (sqrtf(v) / c.correction2 + c.eps);
}

struct alignas(8) AdamwHalf {
    uint32_t pair[2];
};

// Four elements a thread.
template <class M>
__device__ inline void adamw_step(const Adamw<M>& a) {
    constexpr bool NARROW = sizeof(M) == 2;
    const AdamwControl c = *a.control;
    const float scale = a.norm ? a.norm[1] : c.scale;
    const uint64_t block = (uint64_t)blockIdx.x * ADAMW_THREADS + threadIdx.x, i = 4 * block;
    if (scale != scale || i >= a.n) return;

    uint32_t random[4] = {(uint32_t)block, (uint32_t)(block >> 32), c.step, 0xADA3u};
    if constexpr (NARROW) philox4x32_10(random, c.seed[0], c.seed[1]);
    if (i + 4 > a.n) {
        for (int k = 0; i + k < a.n; k++) {
            float p = a.p[i + k], m = to_f32(a.m[i + k]), v = to_f32(a.v[i + k]);
            adamw_one(p, m, v, a.g[i + k] * scale, c);
            a.p[i + k] = p;
            if (a.half) a.half[i + k] = to_bf16(p);
            if constexpr (NARROW) {
                const uint32_t word = k == 0 ? random[0] : k == 1 ? random[1] : random[2];
                a.m[i + k] = adamw_round(m, word & 0xffff);
                a.v[i + k] = adamw_round(v, word >> 16);
            } else {
                a.m[i + k] = m;
                a.v[i + k] = v;
            }
        }
        return;
    }
    f32x4 p = load_streaming(reinterpret_cast<const f32x4*>(a.p + i)), m, v;
    const f32x4 g = load_streaming(reinterpret_cast<const f32x4*>(a.g + i));
    if constexpr (NARROW) {
        const AdamwHalf mm = *reinterpret_cast<const AdamwHalf*>(a.m + i), vv = *reinterpret_cast<const AdamwHalf*>(a.v + i);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            m.v[k] = __uint_as_float(k % 2 ? mm.pair[k / 2] & 0xffff0000u : mm.pair[k / 2] << 16);
            v.v[k] = __uint_as_float(k % 2 ? vv.pair[k / 2] & 0xffff0000u : vv.pair[k / 2] << 16);
        }
    } else {
        m = load_streaming(reinterpret_cast<const f32x4*>(a.m + i));
        v = load_streaming(reinterpret_cast<const f32x4*>(a.v + i));
    }
#pragma unroll
    for (int k = 0; k < 4; k++) adamw_one(p.v[k], m.v[k], v.v[k], g.v[k] * scale, c);
    store_streaming(reinterpret_cast<f32x4*>(a.p + i), p);
    if (a.half) *reinterpret_cast<AdamwHalf*>(a.half + i) = {pack_bf16(p.v[0], p.v[1]), pack_bf16(p.v[2], p.v[3])};
    if constexpr (NARROW) {
        uint32_t mm[4], vv[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            mm[k] = adamw_round(m.v[k], random[k] & 0xffff).bits;
            vv[k] = adamw_round(v.v[k], random[k] >> 16).bits;
        }
        *reinterpret_cast<AdamwHalf*>(a.m + i) = {mm[0] | mm[1] << 16, mm[2] | mm[3] << 16};
        *reinterpret_cast<AdamwHalf*>(a.v + i) = {vv[0] | vv[1] << 16, vv[2] | vv[3] << 16};
    } else {
        store_streaming(reinterpret_cast<f32x4*>(a.m + i), m);
        store_streaming(reinterpret_cast<f32x4*>(a.v + i), v);
    }
}

KERNEL(adamw_f32, Adamw<float>, ADAMW_THREADS, 0, 4 * ADAMW_THREADS) { adamw_step(p); }
KERNEL(adamw_bf16, Adamw<bf16>, ADAMW_THREADS, 0, 4 * ADAMW_THREADS) { adamw_step(p); }

struct GradNorm {
    const float* g;
    double* partials;   // one a block
    unsigned* arrived;  // 0 before and after
    const AdamwControl* control;
    float* norm;
    uint64_t n;
};
struct GradNormShared {
    double part[ADAMW_THREADS];
    unsigned last;
};

// The sum over the block's threads, in thread 0.
__device__ inline double grad_norm_sum(double x, GradNormShared& s) {
    s.part[threadIdx.x] = x;
    for (int half = ADAMW_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) s.part[threadIdx.x] += s.part[threadIdx.x + half];
    }
    __syncthreads();
    return s.part[0];
}

// Each block sums its stretch of g; the block that arrives last sums the partial sums, in the order of the blocks whoever it is.
KERNEL(grad_norm_f32, GradNorm, ADAMW_THREADS, sizeof(GradNormShared), 4 * ADAMW_THREADS, 1024) {
    auto& s = shared<GradNormShared>();
    double sum = 0.0;
    const uint64_t stride = (uint64_t)gridDim.x * ADAMW_THREADS, first = (uint64_t)blockIdx.x * ADAMW_THREADS + threadIdx.x;
    const uint64_t whole = p.n / 4;
    for (uint64_t i = first; i < whole; i += 4 * stride) {
        // Four loads on their way before the first is used.
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

    // Volatile: other blocks wrote these, and this multiprocessor's L1 does not know.
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
