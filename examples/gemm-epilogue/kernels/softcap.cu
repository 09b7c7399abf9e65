// y = cap tanh((x W^T + bias) / cap): logits that stay within a bound, as Gemma 2 has them (arXiv 2408.00118). Alone, the cap would read
// and write y once more, 8 bytes an element in f32; here it is a step of the GEMM's epilogue.
#include "gemm.cuh"

struct CappedGemm {
    Gemm gemm;
    float cap;
};
struct SoftCap {
    float cap;
    __device__ void operator()(const Gemm&, const GemmAt&, Floats8& x) const {
#pragma unroll
        for (int i = 0; i < 8; i++) x.v[i] = cap * tanhf(x.v[i] / cap);
    }
};

using Tile = GemmTile<GemmLayout::NT, 64, 64, 32, 32, 4, true>;
KERNEL(gemm_softcap, CappedGemm, Tile::THREADS, sizeof(Tile::Shared), Tile::BM, Tile::BN) {
    gemm<Tile>(p.gemm, (int)blockIdx.x, ScaleByAlpha{}, AddBias{}, SoftCap{p.cap});
}
