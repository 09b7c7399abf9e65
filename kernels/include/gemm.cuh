// The matrix product: mma.sync m16n8k16 over a ring of tiles that cp.async fills.
//
// A block makes BM x BN of c, each of its warps WM x WN, 32 of k at a time, with STAGES tiles in flight and one barrier a tile. The
// low-rank product a2 b2 comes first, because then dropout can be applied to it where it lies: in the accumulators.
// A block's result goes through shared memory, warp by warp, so that rows are stored, and what is added to them is read, 16 bytes a
// lane, by one copy of the code that finishes them.
#pragma once
#include "gemm_epilogue.cuh"
#include "gemm_operand.cuh"

enum class GemmLayout { NT, NN, TN };

template <GemmLayout LAYOUT, int BM_, int BN_, int WM_, int WN_, int STAGES_, bool ALIGNED_, bool DROP_B_ = false>
struct GemmTile {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr int WARPS_N = BN / WN, WARPS = BM / WM * WARPS_N, THREADS = WARPS * 32;
    static constexpr int MT = WM / 16, NT = WN / 8;
    static constexpr bool ALIGNED = ALIGNED_, DROP_B = DROP_B_;
    static constexpr bool LOW_RANK = LAYOUT != GemmLayout::TN;
    static constexpr bool DROPOUT = LAYOUT == GemmLayout::NN;
    static constexpr Major A = LAYOUT == GemmLayout::TN ? Major::MN : Major::K;
    static constexpr Major B = LAYOUT == GemmLayout::NT ? Major::K : Major::MN;
    struct Stage {
        OperandTile<A, BM> a;
        OperandTile<B, BN> b;
    };
    union Shared {
        Stage stage[STAGES];
        alignas(16) float out[WARPS][WM * WN];
    };

    // Eight columns of a warp's result: those of four rows that half a warp stores at a time lie in different banks.
    __device__ static int out_at(int row, int chunk) { return row * WN + (chunk ^ (row & 3)) * 8; }
};

template <class T>
struct GemmBlock {
    typename T::Shared& s;
    const Gemm& p;
    int m0, n0;
    OperandLoader<T::A, T::BM, T::THREADS, T::ALIGNED> load_a;
    OperandLoader<T::B, T::BN, T::THREADS, T::ALIGNED> load_b;
    float acc[T::MT][T::NT][4];

    __device__ int warp_m() const { return warp_id() / T::WARPS_N * T::WM; }
    __device__ int warp_n() const { return warp_id() % T::WARPS_N * T::WN; }

    __device__ void multiply(int stage, int k) {
        auto& tile = s.stage[stage];
        uint32_t a[T::MT][4], b[T::NT][2];
#pragma unroll
        for (int i = 0; i < T::MT; i++) tile.a.a_fragment(a[i], warp_m() + i * 16, k);
#pragma unroll
        for (int j = 0; j < T::NT; j += 2) tile.b.b_fragments(b[j], b[j + 1], warp_n() + j * 8, k);
#pragma unroll
        for (int i = 0; i < T::MT; i++)
#pragma unroll
            for (int j = 0; j < T::NT; j++) mma_bf16(acc[i][j], a[i], b[j]);
    }

    // acc times the factors of its elements. Four columns share a block of random words and lie in two lanes, which draw a row each
    // and exchange them.
    __device__ void drop() {
        const uint64_t rng_offset = *p.mask.rng_offset;
        const float keep = 1.f / (1.f - p.mask.p);
        const int l = lane_id(), odd = l & 1;
#pragma unroll
        for (int i = 0; i < T::MT; i++)
#pragma unroll
            for (int j = 0; j < T::NT; j++) {
                const int row = m0 + warp_m() + i * 16 + l / 4, col = n0 + warp_n() + j * 8 + (l & 2) * 2;
                const uint32_t mine = kept_bits4(p.mask, rng_offset, (uint64_t)(row + odd * 8) * p.n + col);
                const uint32_t other = __shfl_xor_sync(0xffffffffu, mine, 1);
                const uint32_t top = (odd ? other >> 2 : mine) & 3, low = (odd ? mine >> 2 : other) & 3;
                acc[i][j][0] *= top & 1 ? keep : 0.f;
                acc[i][j][1] *= top & 2 ? keep : 0.f;
                acc[i][j][2] *= low & 1 ? keep : 0.f;
                acc[i][j][3] *= low & 2 ? keep : 0.f;
            }
    }

    // Zeroes the dropped elements among those this thread has copied of the tile of b; its element (k, n) is number k ldb + n.
    __device__ void drop_b(int stage, int k0) {
        using Tile = OperandTile<T::B, T::BN>;
        const uint64_t rng_offset = *p.mask.rng_offset;
        const int row = (int)threadIdx.x / Tile::CHUNKS, chunk = (int)threadIdx.x % Tile::CHUNKS;
#pragma unroll
        for (int i = 0; i < decltype(load_b)::PER; i++) {
            const int r = row + i * decltype(load_b)::STEP;
            uint4* const at = reinterpret_cast<uint4*>(s.stage[stage].b.at(r, chunk));
            uint4 x = *at;
            const uint32_t bits = kept_bits8(p.mask, rng_offset, (uint64_t)(k0 + r) * p.n + n0 + chunk * 8);
            unsigned* const words[4] = {&x.x, &x.y, &x.z, &x.w};
#pragma unroll
            for (int w = 0; w < 4; w++) {
                *words[w] &= (bits >> 2 * w & 1 ? 0xffffu : 0u) | (bits >> 2 * w & 2 ? 0xffff0000u : 0u);
            }
            *at = x;
        }
    }
};

// Which tile a block makes: tiles are numbered down bands of eight rows of tiles, so that blocks that run at a time share rows
// of a and columns of b in L2.
__device__ inline int2 gemm_place(int tile, int tiles_m, int tiles_n) {
    const int band = tile / (8 * tiles_n), first = band * 8;
    const int high = min(8, tiles_m - first), within = tile - band * 8 * tiles_n;
    return make_int2(first + within % high, within / high);
}

// Grid: [tiles of c, splits, batch]. `steps` are the epilogue's (gemm_epilogue.cuh); of their own they allow one split only, because
// gemm_reduce, which finishes what several made, has those of the model.
template <class T, class... Steps>
__device__ inline void gemm(const Gemm& p, int tile, const Steps&... steps) {
    constexpr int BK = GEMM_BK, STAGES = T::STAGES;
    const int2 place = gemm_place(tile, (p.m + T::BM - 1) / T::BM, (p.n + T::BN - 1) / T::BN);
    const int batch = (int)blockIdx.z, split = (int)blockIdx.y;
    GemmBlock<T> block{shared<typename T::Shared>(), p, place.x * T::BM, place.y * T::BN};
    auto& s = block.s;
    auto& acc = block.acc;
#pragma unroll
    for (int i = 0; i < T::MT; i++)
#pragma unroll
        for (int j = 0; j < T::NT; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][j][e] = 0.f;

    // Tiles of k: first those of the low-rank product, in split 0 alone, then this split's share of the others.
    const int tiles = (p.k + BK - 1) / BK;
    const int first = (int)((int64_t)tiles * split / p.splits), last = (int)((int64_t)tiles * (split + 1) / p.splits);
    const int low = T::LOW_RANK && split == 0 ? (p.k2 + BK - 1) / BK : 0;
    const int count = low + last - first;
    const bf16* const a = p.a + batch * p.stride_a;
    const bf16* const b = p.b + batch * p.stride_b;

    const auto start = [&] {
        block.load_a.start(a, p.lda, block.m0, p.m, first * BK, p.k);
        block.load_b.start(b, p.ldb, block.n0, p.n, first * BK, p.k);
    };
    if (T::LOW_RANK && low > 0) {
        block.load_a.start(p.a2, p.lda2, block.m0, p.m, 0, p.k2);
        block.load_b.start(p.b2, p.ldb2, block.n0, p.n, 0, p.k2);
    } else {
        start();
    }
    int fetched = 0;
    const auto fetch = [&] {
        if (T::LOW_RANK && fetched == low && low > 0) start();
        if (fetched < count) {
            block.load_a.next(s.stage[fetched % STAGES].a);
            block.load_b.next(s.stage[fetched % STAGES].b);
        }
        cp_async_commit();
        fetched++;
    };
    for (int i = 0; i < STAGES - 1; i++) fetch();

    // Tile t has landed for all threads, and the next is on its way into the place of tile t - 1, which all are done with.
    const auto arrive = [&](int t) {
        cp_async_wait<STAGES - 2>();
        if (T::DROP_B && p.mask.p > 0.f) block.drop_b(t % STAGES, (first + t) * BK);
        __syncthreads();
        fetch();
    };
    int t = 0;
    if constexpr (T::LOW_RANK) {
        for (; t < low; t++) {
            arrive(t);
            block.multiply(t % STAGES, 0);
            if (p.k2 - t * BK > 16) block.multiply(t % STAGES, 16);
        }
        if constexpr (T::DROPOUT) {
            if (low > 0 && p.mask.p > 0.f) block.drop();
        }
    }
    for (; t < count; t++) {
        arrive(t);
        block.multiply(t % STAGES, 0);
        block.multiply(t % STAGES, 16);
    }
    cp_async_wait<0>();
    __syncthreads();

    const int l = lane_id(), row0 = block.m0 + block.warp_m(), col0 = block.n0 + block.warp_n();
    float* const out = s.out[warp_id()];
#pragma unroll
    for (int i = 0; i < T::MT; i++)
#pragma unroll
        for (int j = 0; j < T::NT; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float* const at = out + T::out_at(i * 16 + half * 8 + l / 4, j) + l % 4 * 2;
                *reinterpret_cast<float2*>(at) = make_float2(acc[i][j][2 * half], acc[i][j][2 * half + 1]);
            }
    __syncwarp();
    float* const partial = p.partial + ((int64_t)split * p.batch + batch) * p.m * p.n;
    constexpr int LANES = T::WN / 8;
    const int col = col0 + l % LANES * 8, len = min(8, p.n - col);
#pragma unroll 1
    for (int r = l / LANES; r < T::WM && row0 + r < p.m && len > 0; r += 32 / LANES) {
        const Floats8 x = load8(out + T::out_at(r, l % LANES), 8, true);
        if (p.partial != nullptr) {
            store8(partial + (int64_t)(row0 + r) * p.n + col, x, len, p.n % 4 == 0);
        } else {
            gemm_finish(p, batch, row0 + r, col, len, x, steps...);
        }
    }
}

#define GEMM_KERNEL(name, ...)                                                                                \
    using name##_tile = GemmTile<__VA_ARGS__>;                                                                \
    KERNEL(name, Gemm, name##_tile::THREADS, sizeof(name##_tile::Shared), name##_tile::BM, name##_tile::BN) { \
        gemm<name##_tile>(p, (int)blockIdx.x);                                                                \
    }
// Several products in one launch, Grid: [tiles of all, 1, 1].
#define GEMM_SEVERAL_KERNEL(name, ...)                                                                               \
    using name##_tile = GemmTile<__VA_ARGS__>;                                                                       \
    KERNEL(name, GemmSeveral, name##_tile::THREADS, sizeof(name##_tile::Shared), name##_tile::BM, name##_tile::BN) { \
        const int i = gemm_of_tile(p, (int)blockIdx.x);                                                              \
        gemm<name##_tile>(p.of[i], (int)blockIdx.x - p.first[i]);                                                    \
    }
