// Kernels with planted faults. With fault = 0 a kernel is correct and the emulator must accept it; with each other number listed
// at the kernel, the emulator must report a fault.
//
// x and y are [n] f32. Each block has one or more warps. A thread works on element threadIdx.x + blockDim.x blockIdx.x.
#include "ptx.cuh"
#include "reduce.cuh"

struct Planted {
    const float* x;
    float* y;
    int n;
    int fault;  // 0: the correct kernel
};

struct Words {
    alignas(16) float a[256];
    float spare[4];
};

__device__ inline int element() { return (int)(blockIdx.x * blockDim.x + threadIdx.x); }

// y = x reversed within the block, through shared memory. Fault 1: the barrier is missing.
KERNEL(planted_barrier, Planted, 64, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x, i = element();
    s.a[t] = p.x[i];
    if (p.fault != 1) __syncthreads();
    p.y[i] = s.a[63 - t];
}

// The same within a warp. Fault 1: a shuffle in place of __syncwarp; a shuffle does not order memory accesses.
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

// Two rounds through the same shared memory. Fault 1: no barrier between the reads of one round and the writes of the next.
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

// y = x by cp.async, for faults 0 and 3 reversed within the block. Fault 1: no wait. Fault 2: waits only for earlier groups.
// Fault 3: reads another thread's copy without a barrier.
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

// Shared memory. Fault 1: reads past the end. Fault 2: writes before the start. Fault 3: reads a word that no thread wrote.
KERNEL(planted_shared, Planted, 32, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x, i = element();
    s.a[t] = p.x[i];
    if (p.fault == 2 && t == 0) s.a[-1] = 0.f;
    __syncthreads();
    const int from = p.fault == 1 ? (int)(sizeof(Words) / 4) : p.fault == 3 ? 40 : t;
    p.y[i] = s.a[from];
}

// y = sum of x over the warp. Fault 1: the upper half of the warp returns before the shuffle. Fault 2: the upper half waits in
// __syncwarp while the lower half shuffles.
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

// y = x. Fault 1: half of the threads return before the barrier. Fault 2: half of the threads wait at another barrier.
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

// Thread 0 writes a word of shared memory that all threads read. Fault 1: all threads write it.
KERNEL(planted_race, Planted, 64, sizeof(Words)) {
    auto& s = shared<Words>();
    const int i = element();
    if (threadIdx.x == 0 || p.fault == 1) s.a[0] = p.x[i];
    __syncthreads();
    p.y[i] = s.a[0];
}

// Two pairs of warps exchange values, each pair with its own named barrier. Fault 1: the second pair has no barrier.
KERNEL(planted_named, Planted, 128, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x, i = element(), pair = t / 64;
    s.a[t] = p.x[i];
    if (p.fault != 1 || pair == 0) named_barrier(1 + pair, 64);
    p.y[i] = s.a[t ^ 32];
}

// y = x. Fault 1: the last element is not written. Fault 2: every block writes the first element.
KERNEL(planted_output, Planted, 32, 0) {
    const int i = element();
    if (i < p.n - (p.fault == 1)) p.y[i] = p.x[i];
    if (p.fault == 2 && threadIdx.x == 0) p.y[0] = p.x[0];
}

struct PlantedUpdate {
    float* y;
    unsigned* arrived;  // 0 before the launch
    int fault;          // 0: the correct kernel
};

// y[i] += y of the next thread of its block. Fault 1: no barrier between the reads and the writes. Fault 2: reads from the next block.
KERNEL(planted_update, PlantedUpdate, 64, 0) {
    const int t = threadIdx.x, first = (int)(blockIdx.x * 64), blocks = (int)gridDim.x;
    const int from = p.fault == 2 ? (first + 64) % (64 * blocks) + t : first + (t + 1) % 64;
    const float y = p.y[from];
    if (p.fault != 1) __syncthreads();
    p.y[first + t] += y;
}

// The last block to arrive stores the sum of the blocks' first elements of y in y[1]. Fault 1: no fence before the arrival. Fault 2:
// none after it. Fault 3: another thread than the one that wrote the element does the fence, with no barrier between them.
KERNEL(planted_last, PlantedUpdate, 64, sizeof(Words)) {
    auto& s = shared<Words>();
    const int t = threadIdx.x;
    if (t == 0) p.y[64 * blockIdx.x] = 1.f + (float)blockIdx.x;
    if (t == (p.fault == 3 ? 40 : 0)) {
        if (p.fault != 1) __threadfence();
        s.a[0] = atomicAdd(p.arrived, 1u) == gridDim.x - 1 ? 1.f : 0.f;
        if (p.fault != 2) __threadfence();
    }
    __syncthreads();
    if (s.a[0] == 0.f || t != 32) return;
    float sum = 0.f;
    for (unsigned b = 0; b < gridDim.x; b++) sum += p.y[64 * b];
    p.y[1] = sum;
}
