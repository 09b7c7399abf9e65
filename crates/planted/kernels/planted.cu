// Kernels with one fault each, and for each a right one: what the emulator must find, and what it must let pass.
//
// x and y are [n] f32. All kernels have one warp or more a block and work on element threadIdx.x + blockDim.x blockIdx.x.
#include "ptx.cuh"
#include "reduce.cuh"

struct Planted {
    const float* x;
    float* y;
    int n;
    int fault;  // 0: the right kernel
};

struct Words {
    alignas(16) float a[256];
    float spare[4];
};

__device__ inline int element() { return (int)(blockIdx.x * blockDim.x + threadIdx.x); }

// y = x reversed within the block, by way of shared memory. Fault 1: no barrier.
KERNEL(planted_barrier, Planted, 64, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x, i = element();
    s.a[t] = p.x[i];
    if (p.fault != 1) __syncthreads();
    p.y[i] = s.a[63 - t];
}

// As before within a warp. Fault 1: a shuffle instead of __syncwarp, which orders no memory.
KERNEL(planted_warp_barrier, Planted, 32, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x, i = element();
    s.a[t] = p.x[i];
    if (p.fault != 1) {
        __syncwarp();
    } else {
        __shfl_sync(0xffffffffu, t, 0);
    }
    p.y[i] = s.a[31 - t];
}

// A second round over the same memory. Fault 1: no barrier between the reads of one round and the writes of the next.
KERNEL(planted_reuse, Planted, 64, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x, i = element();
    float sum = 0.f;
    for (int round = 0; round < 2; round++) {
        s.a[t] = p.x[i] + round;
        __syncthreads();
        sum += s.a[63 - t];
        if (p.fault != 1) __syncthreads();
    }
    p.y[i] = sum;
}

// y = x by cp.async. Fault 1: no wait. Fault 2: waits for the group before. Fault 3: another thread's copy without a barrier.
KERNEL(planted_copy, Planted, 32, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x, i = element();
    cp_async<4>(&s.a[t], &p.x[i]);
    cp_async_commit();
    if (p.fault == 2) {
        cp_async_wait<1>();
    } else if (p.fault != 1) {
        cp_async_wait<0>();
    }
    if (p.fault != 3) __syncthreads();
    p.y[i] = s.a[p.fault == 0 || p.fault == 3 ? 31 - t : t];
}

// Global memory. Fault 1: reads past the end. Fault 2: writes past the end. Fault 3: writes its input. Fault 4: misaligned.
KERNEL(planted_global, Planted, 32, 0) {
    const int i = element();
    if (i < p.n || p.fault == 1) {
        p.y[min(i, p.n - 1)] = p.x[i];
    } else if (p.fault == 2) {
        p.y[i] = 1.f;
    }
    if (p.fault == 3 && i == 0) const_cast<float*>(p.x)[0] = 1.f;
    if (p.fault == 4 && i == 0) p.y[0] = reinterpret_cast<const float4*>(p.x + 1)->x;
}

// Shared memory. Fault 1: reads past the end. Fault 2: writes before the start. Fault 3: reads what nobody wrote.
KERNEL(planted_shared, Planted, 32, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x, i = element();
    s.a[t] = p.x[i];
    if (p.fault == 2 && t == 0) s.a[-1] = 0.f;
    __syncthreads();
    const int from = p.fault == 1 ? (int)(sizeof(Words) / 4) : p.fault == 3 ? 40 : t;
    p.y[i] = s.a[from];
}

// Sum of x over the warp. Fault 1: the upper half has returned before the shuffle. Fault 2: lanes at different operations.
KERNEL(planted_shuffle, Planted, 32, 0) {
    const int i = element();
    const float x = p.x[i];
    if (p.fault == 1 && threadIdx.x >= 16) {
        p.y[i] = x;
        return;
    }
    if (p.fault == 2 && threadIdx.x >= 16) __syncwarp();
    p.y[i] = warp_sum(x);
}

// y = x. Fault 1: half of the threads return before the barrier. Fault 2: half of them never come to the same one.
KERNEL(planted_reach, Planted, 64, 0) {
    const int i = element();
    p.y[i] = p.x[i];
    if (p.fault == 1 && threadIdx.x >= 32) return;
    if (p.fault == 2 && threadIdx.x >= 32) {
        named_barrier(1, 64);
    } else {
        __syncthreads();
    }
}

// One word of shared memory that thread 0 fills. Fault 1: all threads fill it.
KERNEL(planted_race, Planted, 64, sizeof(Words)) {
    auto& s = shared<Words>();
    const int i = element();
    if (threadIdx.x == 0 || p.fault == 1) s.a[0] = p.x[i];
    __syncthreads();
    p.y[i] = s.a[0];
}

// Two warps exchange halves at a named barrier each. Fault 1: one of the two pairs has no barrier.
KERNEL(planted_named, Planted, 128, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x, i = element(), pair = t / 64;
    s.a[t] = p.x[i];
    if (p.fault != 1 || pair == 0) named_barrier(1 + pair, 64);
    p.y[i] = s.a[t ^ 32];
}

// y = x. Fault 1: the last element is left out. Fault 2: two blocks write the first.
KERNEL(planted_output, Planted, 32, 0) {
    const int i = element();
    if (i < p.n - (p.fault == 1)) p.y[i] = p.x[i];
    if (p.fault == 2 && threadIdx.x == 0) p.y[0] = p.x[0];
}
