// Access to a row of a matrix by all threads of a block: 16-byte vectors where aligned, single elements at both ends.
#pragma once
#include "bf16.cuh"

// 16 bytes of a row, converted to float.
template <class T>
struct RowPiece;
template <>
struct RowPiece<bf16> {
    static constexpr int WIDTH = 8;
    float x[8];
    __device__ void load(const bf16* from) {
        const uint4 w = *reinterpret_cast<const uint4*>(from);
        const uint32_t bits[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = __uint_as_float(bits[i] << 16);
            x[2 * i + 1] = __uint_as_float(bits[i] & 0xffff0000u);
        }
    }
    __device__ void store(bf16* to) const {
        const uint4 w = {pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7])};
        *reinterpret_cast<uint4*>(to) = w;
    }
};
template <>
struct RowPiece<float> {
    static constexpr int WIDTH = 4;
    float x[4];
    __device__ void load(const float* from) {
        const float4 w = *reinterpret_cast<const float4*>(from);
        x[0] = w.x, x[1] = w.y, x[2] = w.z, x[3] = w.w;
    }
    __device__ void store(float* to) const { *reinterpret_cast<float4*>(to) = make_float4(x[0], x[1], x[2], x[3]); }
};

// Splits a row of n elements into aligned 16-byte pieces, from element `start` on, and loose elements before and after them.
template <class T>
struct RowCut {
    int start, pieces;
    __device__ RowCut(const T* row, int n) {
        const int off = (int)(reinterpret_cast<unsigned long long>(row) & 15);
        start = min(n, ((16 - off) & 15) / (int)sizeof(T));
        pieces = (n - start) / RowPiece<T>::WIDTH;
    }
    // loose(n) is the number of loose elements, and loose_at(i) is the index in the row of loose element i.
    __device__ int loose(int n) const { return n - pieces * RowPiece<T>::WIDTH; }
    __device__ int loose_at(int i) const { return i < start ? i : i + pieces * RowPiece<T>::WIDTH; }
};

// Calls see(x, index) for each element of thread `thread` of `threads`. Every call assigns the same elements to a thread.
template <class T, class See>
__device__ inline void each_of_row(const T* row, int n, int thread, int threads, See see) {
    constexpr int WIDTH = RowPiece<T>::WIDTH;
    const RowCut<T> cut(row, n);
    for (int i = thread; i < cut.loose(n); i += threads) see(to_f32(row[cut.loose_at(i)]), cut.loose_at(i));
    for (int i = thread; i < cut.pieces; i += threads) {
        const int at = cut.start + i * WIDTH;
        RowPiece<T> piece;
        piece.load(row + at);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) see(piece.x[k], at + k);
    }
}

// row[index] = change(row[index], index) for each element of the thread, as each_of_row assigns them. The order is reversed,
// because the elements that each_of_row read last are the most likely to be cached.
template <class T, class Change>
__device__ inline void change_row(T* row, int n, int thread, int threads, Change change) {
    constexpr int WIDTH = RowPiece<T>::WIDTH;
    const RowCut<T> cut(row, n);
    const int rounds = (cut.pieces - thread + threads - 1) / threads;
    for (int i = thread + (rounds - 1) * threads; i >= 0; i -= threads) {
        const int at = cut.start + i * WIDTH;
        RowPiece<T> piece;
        piece.load(row + at);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) piece.x[k] = change(piece.x[k], at + k);
        piece.store(row + at);
    }
    for (int i = thread; i < cut.loose(n); i += threads) {
        const int at = cut.loose_at(i);
        store(row[at], change(to_f32(row[at]), at));
    }
}
