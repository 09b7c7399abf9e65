// A token drawn from each row of logits. A block does a row.
//
//   x [rows, cols] bf16 or f32, draws [rows, 2] u32: which random number a row takes
//   ids [rows] u32 =                                                     sampling_fwd_{bf16,f32}
//
// The weight of an element is exp((x - max x) / temperature). Kept are the elements not below the k-th largest (top_k, 0 for all),
// and of these the largest whose weights make up the share top_p, with all elements equal to the last. A row whose largest is not
// finite gives it. Weights are whole numbers, 2^30 for the largest (an element of less than 2^-30 of its probability is never
// drawn), of a power of two computed by fused multiply-adds alone: the sums, and so the token, are those of the CPU to the bit.
//
// Reads the row 3 times, and once more for each bit of an element per limit (top_k, top_p): after the first time from L1.
#include "philox.cuh"
#include "row.cuh"
#include "select.cuh"

template <class T>
struct Sampling {
    const T* x;
    const uint32_t* draws;
    uint32_t* ids;
    uint64_t seed;
    float slope;  // log2(e) / temperature
    float top_p;
    uint32_t top_k;
    int cols;
};
struct SamplingShared {
    uint64_t scratch[32];
};
constexpr int SAMPLING_THREADS = 1024;

// 2^(difference slope) in units of 2^-30.
__device__ inline uint32_t sampling_weight(float difference, float slope) {
    const float t = difference * slope;
    if (!(t > -30.f)) return 0;
    const float n = rintf(t), r = fmaf(difference, slope, -n);
    float y = 1.540353e-4f;
    y = fmaf(y, r, 1.3333558e-3f);
    y = fmaf(y, r, 9.618129e-3f);
    y = fmaf(y, r, 5.550411e-2f);
    y = fmaf(y, r, 2.402265e-1f);
    y = fmaf(y, r, 6.931472e-1f);
    y = fmaf(y, r, 1.f);
    return (uint32_t)(y * 1073741824.f) >> (int)-n;
}

// The row and what is measured of it.
template <class T>
struct SamplingRow {
    const T* x;
    int cols;
    float top, slope;
    uint64_t* scratch;

    // How many elements are not below `bound` in order, or what they weigh.
    __device__ uint64_t measure(uint32_t bound, bool weigh) const {
        uint64_t sum = 0;
        each_of_row(x, cols, threadIdx.x, SAMPLING_THREADS, [&](float v, int) {
            if (ordered(v) >= bound) sum += weigh ? sampling_weight(v - top, slope) : 1;
        });
        return block_sum<SAMPLING_THREADS>(sum, scratch);
    }
    // The highest bound at which `need` is still reached, found bit by bit; the lower half of a bf16 says nothing.
    __device__ uint32_t bound(uint64_t need, bool weigh) const {
        uint32_t bound = 0;
        for (int bit = 31; bit >= 32 - 8 * (int)sizeof(T); bit--) {
            const uint32_t higher = bound | 1u << bit;
            if (measure(higher, weigh) >= need) bound = higher;
        }
        return bound;
    }
    __device__ uint64_t weight(int i, uint32_t bound) const {
        const float v = to_f32(x[i]);
        return ordered(v) >= bound ? sampling_weight(v - top, slope) : 0;
    }
};

template <class T>
__device__ inline void sampling_row(const Sampling<T>& p) {
    auto& s = shared<SamplingShared>();
    SamplingRow<T> row = {p.x + (size_t)blockIdx.x * p.cols, p.cols, 0.f, p.slope, s.scratch};
    uint64_t best = 0;
    each_of_row(row.x, p.cols, threadIdx.x, SAMPLING_THREADS, [&](float x, int i) {
        const uint64_t rank = ranked(x, i);
        best = rank > best ? rank : best;
    });
    best = block_max<SAMPLING_THREADS>(best, s.scratch);
    row.top = value_of(best);
    if (!(fabsf(row.top) <= 3.402823466e38f)) {
        if (threadIdx.x == 0) p.ids[blockIdx.x] = (uint32_t)index_of(best);
        return;
    }

    uint32_t bound = 0;
    if (p.top_k > 0 && p.top_k < (uint32_t)p.cols) bound = row.bound(p.top_k, false);
    uint64_t total = row.measure(bound, true);
    if (p.top_p < 1.f) {
        const uint64_t need = (uint64_t)((double)total * (double)p.top_p);
        bound = row.bound(need > 1 ? need : 1, true);
        total = row.measure(bound, true);
    }

    uint32_t random[4] = {p.draws[2 * blockIdx.x], p.draws[2 * blockIdx.x + 1], 0x5A3Cu, 0};
    philox4x32_10(random, (uint32_t)p.seed, (uint32_t)(p.seed >> 32));
    // floor(total random / 2^32), below total.
    const uint64_t at = (total >> 32) * random[0] + ((total & 0xffffffffu) * random[0] >> 32);

    // Warps take stretches of the row in order: the one in which the sum of weights passes `at` goes through its stretch again.
    const int lane = lane_id(), warp = warp_id();
    const int stretch = (p.cols + SAMPLING_THREADS - 1) / SAMPLING_THREADS * 32;
    const int from = min(p.cols, warp * stretch), to = min(p.cols, from + stretch);
    uint64_t sum = 0;
    for (int i = from + lane; i < to; i += 32) sum += row.weight(i, bound);
    sum = warp_sum(sum);
    if (lane == 0) s.scratch[warp] = sum;
    __syncthreads();
    uint64_t before = 0;
    for (int w = 0; w < warp; w++) before += s.scratch[w];
    if (at < before || at >= before + sum) return;
    for (int i = from; i < to; i += 32) {
        const uint64_t weight = i + lane < to ? row.weight(i + lane, bound) : 0;
        uint64_t upto = weight;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const uint32_t lo = __shfl_up_sync(0xffffffffu, (uint32_t)upto, step);
            const uint32_t hi = __shfl_up_sync(0xffffffffu, (uint32_t)(upto >> 32), step);
            if (lane >= step) upto += (uint64_t)hi << 32 | lo;
        }
        if (at >= before + upto - weight && at < before + upto) p.ids[blockIdx.x] = (uint32_t)(i + lane);
        before += warp_sum(weight);
    }
}

KERNEL(sampling_fwd_bf16, Sampling<bf16>, SAMPLING_THREADS, sizeof(SamplingShared)) { sampling_row(p); }
KERNEL(sampling_fwd_f32, Sampling<float>, SAMPLING_THREADS, sizeof(SamplingShared)) { sampling_row(p); }
