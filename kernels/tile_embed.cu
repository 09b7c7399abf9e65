// The media sequence: the global tokens of an image, then the tokens of its t tiles, each plus its tile's embedding.
//
//   tile_embed_fwd   media[b, j] = (j == 0 ? global[b] : local[b t + j - 1]) + table[j], for global [b, n, cols], local
//                    [b t, n, cols], table [at least 1 + t, cols] and media [b, 1 + t, n, cols] (=), all of one type. Reads and
//                    writes 2 bytes per element in bf16, 4 in f32; 1 FLOP. Saves nothing.
//   tile_embed_bwd   dglobal and dlocal (=) are the rows of dmedia. Unless `partial` is null, row (b pieces + piece, j) of
//                    partial [b pieces, 1 + t, cols] f32 = the sum of the piece's rows of tile j, and `sum_rows_f32` adds these
//                    rows to dtable. Bytes as forward; 1 FLOP per element.
//
// Grids: forward one block per tile[0] vectors of eight elements; backward (b (1 + t), pieces, ceil(cols / tile[0])), where
// pieces = ceil(n / tile[1]).
#include "columns.cuh"
#include "vec.cuh"

template <class T>
struct TileEmbedFwd {
    const T* global;
    const T* local;
    const T* table;
    T* media;
    int images, tiles, tokens, cols;
};
template <class T>
struct TileEmbedBwd {
    const T* dmedia;
    T* dglobal;
    T* dlocal;
    float* partial;
    int images, tiles, tokens, cols;
};

constexpr int SPREAD_THREADS = 256, PIECE_ROWS = 64;

template <class T>
__device__ inline void forward(const TileEmbedFwd<T>& p) {
    const int groups = (p.cols + 7) / 8, views = 1 + p.tiles;
    const uint64_t unit = (uint64_t)blockIdx.x * SPREAD_THREADS + threadIdx.x, row = unit / groups;
    if (row >= (uint64_t)p.images * views * p.tokens) return;
    const int at = 8 * (int)(unit % groups), left = p.cols - at;
    const uint64_t tile = row / p.tokens, token = row % p.tokens, image = tile / views;
    const int j = (int)(tile % views);
    const T* from = j == 0 ? p.global + (image * p.tokens + token) * p.cols
                           : p.local + ((image * p.tiles + j - 1) * p.tokens + token) * p.cols;
    const T* table = p.table + (uint64_t)j * p.cols;
    T* media = p.media + row * p.cols;
    const bool wide = p.cols % 8 == 0 && aligned16(p.global) && aligned16(p.local) && aligned16(table) && aligned16(media);
    float x[8], e[8];
    if (wide) {
        load8(x, from + at);
        load8(e, table + at);
    } else {
        load_up_to8<false>(x, from + at, left);
        load_up_to8<false>(e, table + at, left);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] += e[i];
    if (wide) {
        store8(media + at, x);
    } else {
        store_up_to8<false>(media + at, x, left);
    }
}

template <bool WIDE, class T>
__device__ inline void backward(const TileEmbedBwd<T>& p) {
    auto& s = shared<ColumnSums>();
    const int views = 1 + p.tiles, j = blockIdx.x % views, image = blockIdx.x / views;
    const int first = blockIdx.z * COLUMN_TILE, at = first + 8 * lane_id(), left = p.cols - at;
    const uint64_t from = (uint64_t)blockIdx.x * p.tokens;
    const uint64_t to = (uint64_t)(j == 0 ? image : image * p.tiles + j - 1) * p.tokens;
    T* out = j == 0 ? p.dglobal : p.dlocal;
    const int begin = blockIdx.y * PIECE_ROWS, end = min(begin + PIECE_ROWS, p.tokens);
    float sum[8] = {}, x[8];
#pragma unroll 4
    for (int i = begin + warp_id(); i < end; i += COLUMN_WARPS) {
        load_up_to8<WIDE>(x, p.dmedia + (from + i) * p.cols + at, left);
        store_up_to8<WIDE>(out + (to + i) * p.cols + at, x, left);
#pragma unroll
        for (int k = 0; k < 8; k++) sum[k] += x[k];
    }
    if (p.partial == nullptr) return;
    const float total = sum_over_warps(s, sum);
    const int column = first + threadIdx.x;
    const uint64_t row = ((uint64_t)image * gridDim.y + blockIdx.y) * views + j;
    if (column < p.cols) p.partial[row * p.cols + column] = total;
}
template <class T>
__device__ inline void backward_any(const TileEmbedBwd<T>& p) {
    if (p.cols % 8 == 0 && aligned16(p.dmedia) && aligned16(p.dglobal) && aligned16(p.dlocal)) {
        backward<true>(p);
    } else {
        backward<false>(p);
    }
}

KERNEL(tile_embed_fwd_bf16, TileEmbedFwd<bf16>, SPREAD_THREADS, 0, SPREAD_THREADS) { forward(p); }
KERNEL(tile_embed_fwd_f32, TileEmbedFwd<float>, SPREAD_THREADS, 0, SPREAD_THREADS) { forward(p); }
KERNEL(tile_embed_bwd_bf16, TileEmbedBwd<bf16>, COLUMN_THREADS, sizeof(ColumnSums), COLUMN_TILE, PIECE_ROWS) { backward_any(p); }
KERNEL(tile_embed_bwd_f32, TileEmbedBwd<float>, COLUMN_THREADS, sizeof(ColumnSums), COLUMN_TILE, PIECE_ROWS) { backward_any(p); }
