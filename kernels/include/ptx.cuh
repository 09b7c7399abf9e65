// Wrappers of PTX instructions: asynchronous copies, ldmatrix, mma.sync, 2^x, named barriers, streaming accesses. Each wrapper
// has a host version for the emulator.
#pragma once
#include "bf16.cuh"

// cp.async: copies BYTES (4, 8 or 16) from global to shared memory without passing through registers. It reads only the first
// `valid` bytes and fills the rest with zeros; with valid = 0 it does not access the source. 16-byte copies bypass L1 (.cg).
template <int BYTES>
__device__ inline void cp_async(void* shared_to, const void* from, int valid = BYTES) {
#ifdef PHEYE_EMULATOR
    emu_cp_async(shared_to, from, BYTES, valid);
#else
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared_to);
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(BYTES), "r"(valid)
                     : "memory");
    }
#endif
}
__device__ inline void cp_async_commit() {
#ifdef PHEYE_EMULATOR
    emu_cp_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most the latest PENDING groups of this thread are in flight. Other threads see the data only after a barrier.
template <int PENDING>
__device__ inline void cp_async_wait() {
#ifdef PHEYE_EMULATOR
    emu_cp_async_wait(PENDING);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// ldmatrix: loads four 8x8 matrices of 16-bit values. Lane l passes the address of row l % 8 of matrix l / 8 (16 bytes, aligned).
// Of each matrix it receives the elements (l / 4, 2 (l % 4)) and (l / 4, 2 (l % 4) + 1), or of its transpose with `_trans`.
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
#ifdef PHEYE_EMULATOR
    emu_ldmatrix(r, 4, row, false);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
#ifdef PHEYE_EMULATOR
    emu_ldmatrix(r, 4, row, true);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}
// The same for two 8x8 matrices. Lanes 0 to 15 pass the addresses of the rows; the addresses of the other lanes are not used, but
// must be valid.
__device__ inline void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
#ifdef PHEYE_EMULATOR
    emu_ldmatrix(r, 2, row, false);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}
__device__ inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
#ifdef PHEYE_EMULATOR
    emu_ldmatrix(r, 2, row, true);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

// d += a b for a [16, 16], b [16, 8] and d [16, 8]. The 32 lanes of a warp hold the following elements (row, column), where
// g = lane / 4, t = lane % 4, and `2t..` stands for 2t and 2t + 1:
//   a[0] (g, 2t..), a[1] (g + 8, 2t..), a[2] (g, 2t + 8..), a[3] (g + 8, 2t + 8..)     two bf16 each
//   b[0] (2t.., g), b[1] (2t + 8.., g)                                                 two bf16 each
//   d[0], d[1] (g, 2t..), d[2], d[3] (g + 8, 2t..)                                     one float each
__device__ inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef PHEYE_EMULATOR
    emu_mma_bf16(d, a, b);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// 2^x in one instruction, with an error of about 2 ulp; 0 for -inf.
__device__ inline float exp2_fast(float x) {
#ifdef PHEYE_EMULATOR
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// Barrier number `id` (1 to 15) for `threads` threads, a multiple of 32.
__device__ inline void named_barrier(int id, int threads) {
#ifdef PHEYE_EMULATOR
    emu_named_barrier(id, threads);
#else
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// Loads and stores with the streaming hint (.cs, evict first), for data that is accessed once.
__device__ inline f32x4 load_streaming(const f32x4* from) {
#ifdef PHEYE_EMULATOR
    return *from;
#else
    f32x4 x;
    asm volatile("ld.global.cs.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(x.v[0]), "=f"(x.v[1]), "=f"(x.v[2]), "=f"(x.v[3])
                 : "l"(from));
    return x;
#endif
}
__device__ inline void store_streaming(f32x4* to, const f32x4& x) {
#ifdef PHEYE_EMULATOR
    *to = x;
#else
    asm volatile("st.global.cs.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(to), "f"(x.v[0]), "f"(x.v[1]), "f"(x.v[2]), "f"(x.v[3])
                 : "memory");
#endif
}
