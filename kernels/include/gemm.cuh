// The GEMM: mma.sync m16n8k16 over a ring buffer of tiles that cp.async fills.
//
// A block computes BM x BN of c, and each of its warps WM x WN of that, 32 of k at a time, with STAGES tiles in flight and one barrier
// for each tile. What a kernel fuses into it is chosen at compile time by functors, in three places:
//
//   prologue   changes an operand's tile in shared memory before it is multiplied (template argument B_PROLOGUE)
//   low rank   adds a2 b2, the update of LoRA, and may apply dropout to it (template argument LOW_RANK). a2 b2 is computed first,
//              because dropout can then be applied to the accumulators, in registers
//   epilogue   changes the result before it is stored (the functors of gemm_epilogue.cuh, arguments of gemm())
//
// The result passes through shared memory, warp by warp, so that a lane stores, and reads what is added, 16 bytes of a row at a time.
#pragma once
#include "gemm_epilogue.cuh"
#include "gemm_operand.cuh"

enum class GemmLayout { NT, NN, TN };

// The prologue that changes nothing.
struct NoPrologue {
    static constexpr bool ANY = false;
};
// Dropout of b: zeroes the dropped elements. Element (row, col) of b as it is in memory is number row n + col of the mask. The scale
// 1 / (1 - p) is left to whoever reads c. A prologue's arguments are eight neighbouring elements of a row of the operand.
struct DropB {
    static constexpr bool ANY = true;
    __device__ bool is_used(const Gemm& p) const { return p.mask.p > 0.f; }
    __device__ void operator()(const Gemm& p, uint4& x, int row, int col) const {
        drop8(x, p.mask, *p.mask.rng_offset, (uint64_t)row * p.n + col);
    }
};

// No a2 b2: p.k2 is not read.
struct NoLowRank {
    static constexpr bool ANY = false;
};
// a2 b2 is added as it is. A low-rank functor is called once, when the accumulators hold a2 b2 alone.
struct LowRank {
    static constexpr bool ANY = true;
    template <class Block>
    __device__ void operator()(const Gemm&, Block&) const {}
};
// a2 b2 is added after dropout, if p.mask.p > 0. Four neighbouring columns share one call of Philox and are held by two lanes; each
// lane calls it for one of two rows, and they exchange the results.
struct LowRankDropout {
    static constexpr bool ANY = true;
    template <class Block>
    __device__ void operator()(const Gemm& p, Block& block) const {
        if (!(p.mask.p > 0.f)) return;
        const uint64_t rng_offset = *p.mask.rng_offset;
        const float keep = 1.f / (1.f - p.mask.p);
        const int l = lane_id(), odd = l & 1;
        const int row0 = block.m0 + block.warp_m() + l / 4, col0 = block.n0 + block.warp_n() + (l & 2) * 2;
#pragma unroll
        for (int i = 0; i < Block::Tile::MT; i++)
#pragma unroll
            for (int j = 0; j < Block::Tile::NT; j++) {
                float(&acc)[4] = block.acc[i][j];
                const uint64_t row = (uint64_t)(row0 + i * 16 + odd * 8);
                const uint32_t mine = kept_bits4(p.mask, rng_offset, row * p.n + col0 + j * 8);
                const uint32_t other = __shfl_xor_sync(0xffffffffu, mine, 1);
                const uint32_t top = (odd ? other >> 2 : mine) & 3, low = (odd ? mine >> 2 : other) & 3;
                acc[0] *= top & 1 ? keep : 0.f;
                acc[1] *= top & 2 ? keep : 0.f;
                acc[2] *= low & 1 ? keep : 0.f;
                acc[3] *= low & 2 ? keep : 0.f;
            }
    }
};

template <GemmLayout LAYOUT, int BM_, int BN_, int WM_, int WN_, int STAGES_, bool ALIGNED_, class LOW_RANK_ = NoLowRank,
          class B_PROLOGUE_ = NoPrologue>
struct GemmTile {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr int WARPS_N = BN / WN, WARPS = BM / WM * WARPS_N, THREADS = WARPS * 32;
    static constexpr int MT = WM / 16, NT = WN / 8;
    static constexpr bool ALIGNED = ALIGNED_;
    using LOW_RANK = LOW_RANK_;
    using B_PROLOGUE = B_PROLOGUE_;
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

    // The offset of eight columns of a row in `out`: the four rows that half a warp stores at a time fall into different banks.
    __device__ static int out_at(int row, int chunk) { return row * WN + (chunk ^ (row & 3)) * 8; }
};

template <class T>
struct GemmBlock {
    using Tile = T;
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

    // Applies the prologue to those elements of the tile of b that this thread has copied; k0 is the first k of the tile.
    __device__ void prologue(int stage, int k0) {
        using Tile = OperandTile<T::B, T::BN>;
        constexpr bool ROWS_OF_K = T::B == Major::MN;
        const int row = (int)threadIdx.x / Tile::CHUNKS, chunk = (int)threadIdx.x % Tile::CHUNKS;
        const int row0 = (ROWS_OF_K ? k0 : n0) + row, col = (ROWS_OF_K ? n0 : k0) + chunk * 8;
#pragma unroll
        for (int i = 0; i < decltype(load_b)::PER; i++) {
            uint4* const at = reinterpret_cast<uint4*>(s.stage[stage].b.at(row + i * decltype(load_b)::STEP, chunk));
            uint4 x = *at;
            typename T::B_PROLOGUE{}(p, x, row0 + i * decltype(load_b)::STEP, col);
            *at = x;
        }
    }

    // The sums of eight columns of a row of this warp, which are in shared memory.
    struct RowSums {
        const float* out;
        int row, chunk;
        __device__ Floats8 operator()(int columns) const { return load8(out + T::out_at(row, chunk + columns / 8), 8, true); }
    };
};

// Which tile a block computes: tiles are numbered down bands of eight rows of tiles, so that blocks that run at the same time share
// rows of a and columns of b in L2.
__device__ inline int2 gemm_place(int tile, int tiles_m, int tiles_n) {
    const int band = tile / (8 * tiles_n), first = band * 8;
    const int high = min(8, tiles_m - first), within = tile - band * 8 * tiles_n;
    return make_int2(first + within % high, within / high);
}

// Grid: [tiles of c, splits, batch]. `steps` is the epilogue (gemm_epilogue.cuh). With functors that ReduceEpilogue does not have,
// `splits` must be 1, because gemm_reduce finishes the GEMMs that were split along k.
template <class T, class... Steps>
__device__ inline void gemm(const Gemm& p, int tile, const Steps&... steps) {
    constexpr int BK = GEMM_BK, STAGES = T::STAGES;
    using LowRank = typename T::LOW_RANK;
    using Prologue = typename T::B_PROLOGUE;
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

    // Tiles of k: first those of a2 b2, in split 0 alone, then this split's share of those of a b.
    const int tiles = (p.k + BK - 1) / BK;
    const int first = (int)((int64_t)tiles * split / p.splits), last = (int)((int64_t)tiles * (split + 1) / p.splits);
    const int low = LowRank::ANY && split == 0 ? (p.k2 + BK - 1) / BK : 0;
    const int count = low + last - first;
    const bf16* const a = p.a + batch * p.stride_a;
    const bf16* const b = p.b + batch * p.stride_b;

    const auto start = [&] {
        block.load_a.start(a, p.lda, block.m0, p.m, first * BK, p.k);
        block.load_b.start(b, p.ldb, block.n0, p.n, first * BK, p.k);
    };
    if (LowRank::ANY && low > 0) {
        block.load_a.start(p.a2, p.lda2, block.m0, p.m, 0, p.k2);
        block.load_b.start(p.b2, p.ldb2, block.n0, p.n, 0, p.k2);
    } else {
        start();
    }
    int fetched = 0;
    const auto fetch = [&] {
        if (LowRank::ANY && fetched == low && low > 0) start();
        if (fetched < count) {
            block.load_a.next(s.stage[fetched % STAGES].a);
            block.load_b.next(s.stage[fetched % STAGES].b);
        }
        cp_async_commit();
        fetched++;
    };
    for (int i = 0; i < STAGES - 1; i++) fetch();

    // Waits until all threads have copied tile t, and starts to copy the next tile to where tile t - 1 was, which all threads have read.
    const auto arrive = [&](int t) {
        cp_async_wait<STAGES - 2>();
        if constexpr (Prologue::ANY) {
            if (Prologue{}.is_used(p)) block.prologue(t % STAGES, (first + t) * BK);
        }
        __syncthreads();
        fetch();
    };
    int t = 0;
    if constexpr (LowRank::ANY) {
        for (; t < low; t++) {
            arrive(t);
            block.multiply(t % STAGES, 0);
            if (p.k2 - t * BK > 16) block.multiply(t % STAGES, 16);
        }
        if (low > 0) LowRank{}(p, block);
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
        const typename GemmBlock<T>::RowSums sums = {out, r, l % LANES};
        if (p.partial != nullptr) {
            store8(partial + (int64_t)(row0 + r) * p.n + col, sums(0), len, p.n % 4 == 0);
        } else {
            gemm_finish(p, batch, row0 + r, col, len, sums, steps...);
        }
    }
}

// A kernel: its name, its epilogue, and the arguments of GemmTile.
#define GEMM_KERNEL(name, epilogue, ...)                                                                      \
    using name##_tile = GemmTile<__VA_ARGS__>;                                                                \
    KERNEL(name, Gemm, name##_tile::THREADS, sizeof(name##_tile::Shared), name##_tile::BM, name##_tile::BN) { \
        gemm<name##_tile>(p, (int)blockIdx.x, epilogue{});                                                    \
    }
// Several GEMMs in one launch, Grid: [tiles of all, 1, 1].
#define GEMM_SEVERAL_KERNEL(name, epilogue, ...)                                                                     \
    using name##_tile = GemmTile<__VA_ARGS__>;                                                                       \
    KERNEL(name, GemmSeveral, name##_tile::THREADS, sizeof(name##_tile::Shared), name##_tile::BM, name##_tile::BN) { \
        const int i = gemm_of_tile(p, (int)blockIdx.x);                                                              \
        gemm<name##_tile>(p.of[i], (int)blockIdx.x - p.first[i], epilogue{});                                        \
    }
