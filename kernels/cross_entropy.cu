// Softmax cross entropy of rows of logits. One block per row.
//
//   cross_entropy_fwd_bf16      losses [rows] f32 = ln sum_j exp z_j - z_target; z [rows, vocab] bf16, whose rows are `stride` elements
//                               apart, targets [rows] u32
//   cross_entropy_fwdbwd_bf16   the same, and z = (softmax(z) - onehot(target)) weight, in place
//   cross_entropy_sum_f32       sum [2] f32 =, where sum[0] + sum[1] is the sum of the losses
//
// Nothing is saved. Forward reads 2 bytes per element. With the gradient, each row is read twice, the second time from L2 if the
// rows in progress (three or four per multiprocessor) fit in it, and 2 bytes per element are written. About 5 FLOPs per element
// for forward and 9 with the gradient, of which one or two are a 2^x.
#include "ptx.cuh"
#include "reduce.cuh"
#include "row.cuh"

struct CrossEntropy {
    bf16* z;
    const uint32_t* targets;
    float* losses;
    int vocab;
    int stride;
    float weight;
};
struct CrossEntropyShared {
    float scratch[32];
};
constexpr int CE_THREADS = 512;
constexpr float CE_LOG2E = 1.4426950408889634f;

// Logits are subtracted before they are multiplied by log2(e). The difference is exact or nearly exact, so the relative error of
// the exponential depends on the difference and not on the size of the logits.
__device__ inline float ce_exp(float difference) { return exp2_fast(difference * CE_LOG2E); }

template <bool GRADIENT>
__device__ inline void cross_entropy_row(const CrossEntropy& p) {
    auto& s = shared<CrossEntropyShared>();
    bf16* z = p.z + (size_t)blockIdx.x * p.stride;
    const int target = (int)p.targets[blockIdx.x];

    // The maximum starts at a finite value, so that a logit of -inf adds 0 and not NaN (-inf - -inf).
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

// One block. The sum is in double, because the sum of many losses needs more digits than a float has.
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
