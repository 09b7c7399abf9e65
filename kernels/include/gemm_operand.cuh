// The tile of one operand in shared memory: how it gets there, and how a warp takes fragments of it.
//
// A tile is EXTENT of m (or n) by 32 of k. It lies as the operand does in memory, so that copies are of 16 bytes: rows of k when k
// is contiguous, rows of m when m is. Chunks of 8 elements are swizzled within a row by an exclusive or, so that the eight rows
// that ldmatrix reads at a time lie in eight different groups of four banks.
#pragma once
#include "gemm_params.cuh"
#include "ptx.cuh"

constexpr int GEMM_BK = 32;

enum class Major { K, MN };

template <Major MAJOR, int EXTENT>
struct OperandTile {
    static constexpr int ROWS = MAJOR == Major::K ? EXTENT : GEMM_BK;
    static constexpr int CHUNKS = (MAJOR == Major::K ? GEMM_BK : EXTENT) / 8;

    alignas(128) bf16 data[EXTENT * GEMM_BK];

    // With four chunks a row, two rows share 128 bytes.
    __device__ bf16* at(int row, int chunk) {
        const int swizzle = CHUNKS == 4 ? row >> 1 & 3 : row & 7;
        return data + (row * CHUNKS + (chunk ^ swizzle)) * 8;
    }

    // The A fragment of rows m .. m + 16 and k .. k + 16.
    __device__ void a_fragment(uint32_t (&a)[4], int m, int k) {
        const int l = lane_id();
        if constexpr (MAJOR == Major::K) {
            ldmatrix_x4(a, at(m + (l & 15), k / 8 + (l >> 4)));
        } else {
            ldmatrix_x4_trans(a, at(k + (l & 7) + (l >> 4) * 8, m / 8 + (l >> 3 & 1)));
        }
    }

    // The B fragments of k .. k + 16 and columns n .. n + 8, n + 8 .. n + 16.
    __device__ void b_fragments(uint32_t (&b0)[2], uint32_t (&b1)[2], int n, int k) {
        const int l = lane_id();
        uint32_t r[4];
        if constexpr (MAJOR == Major::K) {
            ldmatrix_x4(r, at(n + (l & 7) + (l >> 4) * 8, k / 8 + (l >> 3 & 1)));
        } else {
            ldmatrix_x4_trans(r, at(k + (l & 15), n / 8 + (l >> 4)));
        }
        b0[0] = r[0];
        b0[1] = r[1];
        b1[0] = r[2];
        b1[1] = r[3];
    }
};

// Brings tiles of one operand: THREADS threads copy PER chunks each, rows STEP apart. What lies outside of the operand becomes 0.
template <Major MAJOR, int EXTENT, int THREADS, bool ALIGNED>
struct OperandLoader {
    using Tile = OperandTile<MAJOR, EXTENT>;
    static constexpr int PER = EXTENT * GEMM_BK / 8 / THREADS;
    static constexpr int STEP = THREADS / Tile::CHUNKS;
    static_assert(PER * THREADS * 8 == EXTENT * GEMM_BK && STEP * Tile::CHUNKS == THREADS, "threads do not cover the tile evenly");

    const bf16* from;
    int64_t ld;
    int mn, mn_len, k_len;

    // Starts at m (or n) `first` of `len`, and at the k of which `k_first` .. `k_end` are to come.
    __device__ void start(const bf16* matrix, int leading, int first, int len, int k_first, int k_end) {
        const int row = (int)threadIdx.x / Tile::CHUNKS, col = (int)threadIdx.x % Tile::CHUNKS * 8;
        ld = leading;
        mn = first + (MAJOR == Major::K ? row : col);
        mn_len = len;
        k_len = k_end - k_first - (MAJOR == Major::K ? col : row);
        from = MAJOR == Major::K ? matrix + mn * ld + k_first + col : matrix + (k_first + row) * ld + mn;
    }

    // Brings the next 32 of k.
    __device__ void next(Tile& to) {
        const int row = (int)threadIdx.x / Tile::CHUNKS, chunk = (int)threadIdx.x % Tile::CHUNKS;
        const int along = min(max(MAJOR == Major::K ? k_len : mn_len - mn, 0), 8);
#pragma unroll
        for (int i = 0; i < PER; i++) {
            const bool inside = MAJOR == Major::K ? mn + i * STEP < mn_len : i * STEP < k_len;
            copy(to.at(row + i * STEP, chunk), from + i * STEP * ld, inside ? along : 0);
        }
        from += MAJOR == Major::K ? GEMM_BK : GEMM_BK * ld;
        k_len -= GEMM_BK;
    }

    __device__ static void copy(bf16* to, const bf16* chunk, int valid) {
        if constexpr (ALIGNED) {
            cp_async<16>(to, chunk, 2 * valid);
        } else {
            uint4 all;
            unsigned* const words[4] = {&all.x, &all.y, &all.z, &all.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const unsigned lo = 2 * i < valid ? chunk[2 * i].bits : 0;
                const unsigned hi = 2 * i + 1 < valid ? chunk[2 * i + 1].bits : 0;
                *words[i] = lo | hi << 16;
            }
            *reinterpret_cast<uint4*>(to) = all;
        }
    }
};
