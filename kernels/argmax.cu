// The largest element of each row, and the k largest. A block does a row.
//
//   x [rows, cols] bf16 or f32 is read once (2 or 4 bytes an element, one comparison), for the k largest once more in small parts.
//   ids [rows] u32 =                                                    argmax_fwd_{bf16,f32}
//   ids [rows, k] u32 =, values [rows, k] f32 =, descending             topk_fwd_{bf16,f32}
//
// Of equal elements the one with the lower index comes first; a NaN is larger than every number.
#include "row.cuh"
#include "select.cuh"

template <class T>
struct Choice {
    const T* x;
    uint32_t* ids;
    float* values;  // top-k only
    int cols, k;
};
struct ChoiceShared {
    uint64_t scratch[32];
};
constexpr int CHOICE_THREADS = 1024;

// The highest rank of this thread's elements up to `limit`; 0 if there is none.
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

// A tournament: every thread enters the best of its elements, and whoever wins a round enters its next best.
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
