// CUDA's keywords, types and intrinsics for a host compiler: all that the .cu files may use, as the emulator implements it.
//
// Kernels are compiled with -fsanitize=thread,alignment, so that every load and store calls __tsan_readN or __tsan_writeN. The
// emulator defines these functions and checks addresses, races and unwritten memory in them. It also defines the handler that
// `alignment` calls for misaligned vectors. No sanitizer runtime is linked.
#pragma once
#include <math.h>
#include <stdint.h>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

struct uint3 {
    unsigned x, y, z;
};
typedef uint3 dim3;
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

extern "C" {
// Constant within a thread, so the compiler may call them once and reuse the result.
unsigned emu_thread_x() __attribute__((const));
unsigned emu_block_x() __attribute__((const));
unsigned emu_block_y() __attribute__((const));
unsigned emu_block_z() __attribute__((const));
unsigned emu_block_dim() __attribute__((const));
unsigned emu_grid_x() __attribute__((const));
unsigned emu_grid_y() __attribute__((const));
unsigned emu_grid_z() __attribute__((const));
void* emu_shared(unsigned long bytes);
void emu_barrier();
void emu_named_barrier(int id, int threads);
void emu_warp_barrier(unsigned mask);
void emu_fence();
unsigned emu_shuffle(unsigned mask, unsigned value, unsigned lane);
unsigned emu_ballot(unsigned mask, int predicate);
unsigned emu_atomic_add(unsigned* to, unsigned x);
unsigned emu_atomic_exchange(unsigned* to, unsigned x);
unsigned emu_atomic_cas(unsigned* to, unsigned expected, unsigned x);
void emu_cp_async(void* to, const void* from, int bytes, int valid);
void emu_cp_async_commit();
void emu_cp_async_wait(int pending);
void emu_ldmatrix(uint32_t* r, int count, const void* row, bool transpose);
void emu_mma_bf16(float* d, const uint32_t* a, const uint32_t* b);
void emu_trap(const char* what);
}

#define threadIdx (uint3{emu_thread_x(), 0, 0})
#define blockIdx (uint3{emu_block_x(), emu_block_y(), emu_block_z()})
#define blockDim (uint3{emu_block_dim(), 1, 1})
#define gridDim (uint3{emu_grid_x(), emu_grid_y(), emu_grid_z()})

inline void __syncthreads() { emu_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emu_warp_barrier(mask); }
inline void __threadfence() { emu_fence(); }
inline void __trap() { emu_trap("__trap"); }

// The bits of x as another type, without going through memory, where the accesses would be checked.
template <class To, class From>
inline To emu_bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    return __builtin_bit_cast(To, x);
}
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline int __float_as_int(float x) { return emu_bits<int>(x); }

// Shuffles of 4-byte types. A lane whose source is outside its segment receives its own value, as on a GPU.
template <class T>
inline T emu_shuffle_from(unsigned mask, T x, unsigned lane) {
    return emu_bits<T>(emu_shuffle(mask, emu_bits<unsigned>(x), lane));
}
template <class T>
inline T __shfl_sync(unsigned mask, T x, int lane, int width = 32) {
    const unsigned self = emu_thread_x() & 31, segment = self & ~(unsigned)(width - 1);
    return emu_shuffle_from(mask, x, segment | ((unsigned)lane & (unsigned)(width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T x, int bits, int width = 32) {
    const unsigned self = emu_thread_x() & 31, from = self ^ (unsigned)bits;
    const bool inside = (from & ~(unsigned)(width - 1)) <= (self & ~(unsigned)(width - 1));
    return emu_shuffle_from(mask, x, inside ? from : self);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T x, unsigned delta, int width = 32) {
    const unsigned self = emu_thread_x() & 31, from = self + delta;
    return emu_shuffle_from(mask, x, (self & (unsigned)(width - 1)) + delta < (unsigned)width ? from : self);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T x, unsigned delta, int width = 32) {
    const unsigned self = emu_thread_x() & 31;
    return emu_shuffle_from(mask, x, (self & (unsigned)(width - 1)) >= delta ? self - delta : self);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return emu_ballot(mask, predicate); }
inline int __any_sync(unsigned mask, int predicate) { return emu_ballot(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return emu_ballot(mask, !predicate) == 0; }

inline unsigned atomicAdd(unsigned* to, unsigned x) { return emu_atomic_add(to, x); }
inline int atomicAdd(int* to, int x) { return (int)emu_atomic_add((unsigned*)to, (unsigned)x); }
inline unsigned atomicExch(unsigned* to, unsigned x) { return emu_atomic_exchange(to, x); }
inline unsigned atomicCAS(unsigned* to, unsigned expected, unsigned x) { return emu_atomic_cas(to, expected, x); }

inline uint32_t emu_round_bf16(float x) {
    const uint32_t bits = emu_bits<uint32_t>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

template <class T>
inline T __ldg(const T* from) {
    return *from;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
