// Softmax cross entropy of rows of logits. A block does a row.
//
//   z [rows, vocab] bf16, targets [rows] u32 below vocab
//   losses [rows] f32 = ln sum_j exp z_j - z_target                               cross_entropy_fwd_bf16
//   and z = (softmax(z) - onehot(target)) weight, in place                        cross_entropy_fwdbwd_bf16
//   sum [2] f32: the sum over the losses is sum[0] + sum[1]                       cross_entropy_sum_f32
//
// Nothing is saved. Forward reads 2 bytes an element; with the gradient it reads it again, from L2 where the rows in work (three or
// four a multiprocessor) fit there, and writes 2. About 5 and 9 FLOPs an element, one or two of them 2^x.
#include "ptx.cuh"
#include "reduce.cuh"
#include "row.cuh"

struct CrossEntropy {
    bf16* z;
    const uint32_t* targets;
    float* losses;
    int vocab;
    float weight;
};
struct CrossEntropyShared {
    float scratch[32];
};
constexpr int CE_THREADS = 512;
constexpr float CE_LOG2E = 1.4426950408889634f;

// The differences below are exact or nearly so, so that the exponential's error stays relative to it.
__device__ inline float ce_exp(float difference) { return exp2_fast(difference * CE_LOG2E); }

template <bool GRADIENT>
__device__ inline void cross_entropy_row(const CrossEntropy& p) {
    auto& s = shared<CrossEntropyShared>();
    bf16* z = p.z + (size_t)blockIdx.x * p.vocab;
    const int target = (int)p.targets[blockIdx.x];

    // Finite, so that logits of -inf before the first number add zero.
    float top = -3.402823466e38f, sum = 0.f;
    each_of_row(z, p.vocab, threadIdx.x, CE_THREADS, [&](float x, int) {
        if (x > top) {
            sum *= ce_exp(top - x);
            top = x;
        }
        sum += ce_exp(x - top);
    });
    const float hit = to_f32(z[target]);

    const float warps = warp_max(top);
    if (lane_id() == 0) s.scratch[warp_id()] = warps;
    __syncthreads();
    float all = s.scratch[0];
    for (int w = 1; w < CE_THREADS / 32; w++) all = fmaxf(all, s.scratch[w]);
    __syncthreads();
    sum = block_sum<CE_THREADS>(sum * ce_exp(top - all), s.scratch);
    if (threadIdx.x == 0) p.losses[blockIdx.x] = logf(sum) + (all - hit);

    if constexpr (GRADIENT) {
        const float scale = p.weight / sum;
        change_row(z, p.vocab, threadIdx.x, CE_THREADS, [&](float x, int i) {
            const float y = ce_exp(x - all) * scale;
            return i == target ? y - p.weight : y;
        });
    }
}

KERNEL(cross_entropy_fwd_bf16, CrossEntropy, CE_THREADS, sizeof(CrossEntropyShared)) { cross_entropy_row<false>(p); }
KERNEL(cross_entropy_fwdbwd_bf16, CrossEntropy, CE_THREADS, sizeof(CrossEntropyShared)) { cross_entropy_row<true>(p); }

struct CrossEntropySum {
    const float* losses;
    float* sum;
    int rows;
};
struct CrossEntropySumShared {
    double part[256];
};

// One block; in double, for a sum over many tokens keeps no more of a float's digits than it has to spare.
KERNEL(cross_entropy_sum_f32, CrossEntropySum, 256, sizeof(CrossEntropySumShared)) {
    auto& s = shared<CrossEntropySumShared>();
    double sum = 0.0;
    for (int i = threadIdx.x; i < p.rows; i += 256) sum += p.losses[i];
    s.part[threadIdx.x] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) s.part[threadIdx.x] += s.part[threadIdx.x + half];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        const float hi = (float)s.part[0];
        p.sum[0] = hi;
        p.sum[1] = (float)(s.part[0] - hi);
    }
}
