// How a kernel is declared, and what the host reads from the declaration.
//
//   struct GeluFwd { const bf16* x; bf16* y; int n; };
//   KERNEL(gelu_fwd_bf16, GeluFwd, 256, 0, 2048) { ... p.x[i] ... }
//
// declares `extern "C" __global__ void gelu_fwd_bf16(GeluFwd p)` with 256 threads per block, and the record `gelu_fwd_bf16_spec`.
// From this record the launcher reads the threads per block, the bytes of dynamic shared memory and up to three tile sizes, from
// which the host computes the grid. These numbers are therefore written only here. The build script generates the Rust struct
// `params::GeluFwd` from the C++ struct. The record also holds the size of the struct and a hash of its name, so that a launch
// with a different struct is refused.
#pragma once

#ifdef PHEYE_EMULATOR
#include "emulator.h"
#endif
#include <stdint.h>

struct KernelSpec {
    unsigned threads, shared, params, tile[3], params_name;
};

// The FNV-1a hash of a struct's name, without template arguments.
constexpr unsigned pheye_name_hash(const char* name) {
    unsigned hash = 2166136261u;
    for (int i = 0; name[i] != 0 && name[i] != '<'; i++) hash = (hash ^ (unsigned)(unsigned char)name[i]) * 16777619u;
    return hash;
}

#ifdef PHEYE_EMULATOR
// The kernels of all crates are linked into one program, so each kernel's name is prefixed with the name of its crate.
#ifndef PHEYE_PREFIX
#define PHEYE_PREFIX
#endif
#define PHEYE_JOIN_TOKENS(a, b) a##b
#define PHEYE_JOIN(a, b) PHEYE_JOIN_TOKENS(a, b)
#define PHEYE_SPEC(name) extern "C" KernelSpec PHEYE_JOIN(PHEYE_PREFIX, name##_spec)
#define PHEYE_ENTRY(name, Params, threads) extern "C" void PHEYE_JOIN(PHEYE_PREFIX, name)(const Params& p)
#else
#define PHEYE_SPEC(name) extern "C" __device__ __attribute__((used)) KernelSpec name##_spec
#define PHEYE_ENTRY(name, Params, threads) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Params p)
#endif

#define KERNEL(name, Params, threads, shared_bytes, ...)                                                        \
    PHEYE_SPEC(name) = {(unsigned)(threads), (unsigned)(shared_bytes), (unsigned)sizeof(Params), {__VA_ARGS__}, \
                        pheye_name_hash(#Params)};                                                              \
    PHEYE_ENTRY(name, Params, threads)

// The block's dynamic shared memory as a T. A kernel has one such struct and passes sizeof(T) to KERNEL.
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
