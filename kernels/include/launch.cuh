// How a kernel is declared, and what the host reads of it.
//
//   struct GeluFwd { const bf16* x; bf16* y; int n; int pad; };
//   KERNEL(gelu_fwd_bf16, GeluFwd, 256, 0, 2048) { ... p.x[i] ... }
//
// declares `extern "C" __global__ void gelu_fwd_bf16(GeluFwd p)` for 256 threads and the record `gelu_fwd_bf16_spec`, from which
// the launcher takes threads, dynamic shared bytes and up to three tile sizes: what a grid depends on is said once, here.
#pragma once

#ifdef PHEYE_EMULATOR
#include "emulator.h"
#endif
#include <stdint.h>

struct KernelSpec {
    unsigned threads, shared, params, tile[3];
};

#ifdef PHEYE_EMULATOR
#define PHEYE_SPEC(name) extern "C" KernelSpec name##_spec
#define PHEYE_ENTRY(name, Params, threads) extern "C" void name(const Params& p)
#else
#define PHEYE_SPEC(name) extern "C" __device__ __attribute__((used)) KernelSpec name##_spec
#define PHEYE_ENTRY(name, Params, threads) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Params p)
#endif

#define KERNEL(name, Params, threads, shared_bytes, ...)                                                         \
    PHEYE_SPEC(name) = {(unsigned)(threads), (unsigned)(shared_bytes), (unsigned)sizeof(Params), {__VA_ARGS__}}; \
    PHEYE_ENTRY(name, Params, threads)

// The block's dynamic shared memory seen as a T. A kernel has one such struct and passes sizeof(T) to KERNEL.
#ifdef PHEYE_EMULATOR
template <class T>
__device__ inline T& shared() {
    return *reinterpret_cast<T*>(emu_shared(sizeof(T)));
}
#else
extern __shared__ __align__(128) unsigned char pheye_shared_memory[];
template <class T>
__device__ __forceinline__ T& shared() {
    return *reinterpret_cast<T*>(pheye_shared_memory);
}
#endif

__device__ inline int lane_id() { return threadIdx.x & 31; }
__device__ inline int warp_id() { return threadIdx.x >> 5; }
