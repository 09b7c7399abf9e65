// The largest element of each row (argmax), and the k largest (top-k). One block per row.
//
//   argmax_fwd_{bf16,f32}   ids [rows] u32 = column of the largest element
//   topk_fwd_{bf16,f32}     ids [rows, k] u32 =, values [rows, k] f32 =, descending
//
// x [rows, cols] bf16 or f32 is read once (2 or 4 bytes and one comparison per element). Top-k reads the elements of one thread
// again for each of the k results. Of equal elements, the one with the lower index comes first; NaN is larger than all numbers.
#include "row.cuh"
#include "select.cuh"

template <class T>
struct Choice {
    const T* x;
    uint32_t* ids;
    float* values;  // of top-k only
    int cols, k;
};
struct ChoiceShared {
    uint64_t scratch[32];
};
constexpr int CHOICE_THREADS = 1024;

// The highest rank not above `limit` among this thread's elements, 0 if there is none.
template <class T>
__device__ inline uint64_t choice_best(const T* row, int cols, uint64_t limit) {
    uint64_t best = 0;
    each_of_row(row, cols, threadIdx.x, CHOICE_THREADS, [&](float x, int i) {
        const uint64_t rank = ranked(x, i);
        if (rank <= limit && rank > best) best = rank;
    });
    return best;
}

template <class T>
__device__ inline void argmax_row(const Choice<T>& p) {
    auto& s = shared<ChoiceShared>();
    const T* row = p.x + (size_t)blockIdx.x * p.cols;
    const uint64_t best = block_max<CHOICE_THREADS>(choice_best(row, p.cols, ~0ull), s.scratch);
    if (threadIdx.x == 0) p.ids[blockIdx.x] = (uint32_t)index_of(best);
}

// A tournament of k rounds: every thread enters its best element, and the winner of a round then enters its next best.
template <class T>
__device__ inline void topk_row(const Choice<T>& p) {
    auto& s = shared<ChoiceShared>();
    const T* row = p.x + (size_t)blockIdx.x * p.cols;
    uint64_t mine = choice_best(row, p.cols, ~0ull);
    for (int round = 0; round < p.k; round++) {
        const uint64_t best = block_max<CHOICE_THREADS>(mine, s.scratch);
        if (mine == best) {
            p.ids[(size_t)blockIdx.x * p.k + round] = (uint32_t)index_of(best);
            p.values[(size_t)blockIdx.x * p.k + round] = value_of(best);
            mine = choice_best(row, p.cols, best - 1);
        }
    }
}

KERNEL(argmax_fwd_bf16, Choice<bf16>, CHOICE_THREADS, sizeof(ChoiceShared)) { argmax_row(p); }
KERNEL(argmax_fwd_f32, Choice<float>, CHOICE_THREADS, sizeof(ChoiceShared)) { argmax_row(p); }
KERNEL(topk_fwd_bf16, Choice<bf16>, CHOICE_THREADS, sizeof(ChoiceShared)) { topk_row(p); }
KERNEL(topk_fwd_f32, Choice<float>, CHOICE_THREADS, sizeof(ChoiceShared)) { topk_row(p); }
