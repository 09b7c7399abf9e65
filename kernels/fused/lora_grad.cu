// The gradients of adapters: dA += dS^T drop(x), dB += dy^T S, in two kernels that add in a fixed order.
//
// lora_grad_bf16_32x128: partial [splits, rank, n] f32 = T^T drop(X) over the split's rows, T [k, rank] and X [k, n] bf16: T = dS, X = x
// for dA, and T = S, X = dy for dB. Rows without an adapter have zeros in T. It is a TN GEMM (include/gemm.cuh) with few rows of c;
// dropout is its prologue: the threads that copied a tile of X into shared memory zero the dropped elements there. Reads 2 k n bytes,
// 2 k n rank FLOPs. Element (k, j) of X is number k n + j of the mask; the scale 1 / (1 - p) is left to lora_grad_add.
#include "gemm.cuh"

GEMM_KERNEL(lora_grad_bf16_32x128, WeightGradEpilogue, GemmLayout::TN, 32, 128, 32, 32, 4, true, NoLowRank, DropB)
GEMM_KERNEL(lora_grad_bf16_32x128_any, WeightGradEpilogue, GemmLayout::TN, 32, 128, 32, 32, 4, false, NoLowRank, DropB)

// lora_grad_add_f32: grad += scale times the sum over splits of rows first .. first + rank of partial [splits, total, n], for up to eight
// gradients: grad [rank, n], or its transpose [n, rank]. Grid: [n rank / 256 of the largest, gradients, 1].
constexpr int LORA_GRADS = 8;
struct LoraGrad {
    const float* partial;
    float* grad;
    int splits, total, first, rank;
    int n, transposed;
    float scale;
};
struct LoraGrads {
    LoraGrad of[LORA_GRADS];
};

KERNEL(lora_grad_add_f32, LoraGrads, 256, 0, 256, LORA_GRADS) {
    const LoraGrad& g = p.of[blockIdx.y];
    const int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= (int64_t)g.rank * g.n) return;
    // A warp reads along rows of partial; the few transposed stores are combined in L2.
    const int row = (int)(i / g.n), col = (int)(i % g.n);
    const float* from = g.partial + (int64_t)(g.first + row) * g.n + col;
    float sum = 0.f;
    for (int s = 0; s < g.splits; s++) sum += from[(int64_t)s * g.total * g.n];
    float* const to = g.grad + (g.transposed != 0 ? (int64_t)col * g.rank + row : i);
    *to += g.scale * sum;
}
