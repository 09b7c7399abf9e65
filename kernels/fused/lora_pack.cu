// Packs the adapters of a linear side by side, as the GEMMs need them. The rank of each is padded with zeros to a multiple of 8,
// and `total` is the sum of the padded ranks.
//
//   a [total, ka] bf16 = the A [rank, k] of each adapter, from row `first` on; columns from k on are 0
//   b [n, total] bf16 = the B [n, rank] of each adapter, from column `first` on
//   bt [total, nt] bf16 = the B^T of each adapter, from row `first` on; columns from n on are 0
//
// One launch packs up to four adapters. Writes 2 total (ka + n + nt) bytes. Grid: [padded rank (ka + n + nt) / 256 of the largest
// adapter, adapters, 1].
#include "bf16.cuh"

constexpr int LORA_PACKED = 4;
struct LoraAdapter {
    const bf16* a;
    const bf16* b;
    int rank, first;
};
struct LoraPack {
    LoraAdapter of[LORA_PACKED];
    bf16* a;
    bf16* b;
    bf16* bt;
    int k, n, total;
    int ka, nt;
};

KERNEL(lora_pack_bf16, LoraPack, 256, 0, 256, LORA_PACKED) {
    const LoraAdapter& o = p.of[blockIdx.y];
    const int padded = (o.rank + 7) / 8 * 8;
    const int64_t as = (int64_t)padded * p.ka, bs = (int64_t)padded * p.n, bts = (int64_t)padded * p.nt;
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    const bf16 zero = {0};
    if (i < as) {
        const int r = (int)(i / p.ka), c = (int)(i % p.ka);
        p.a[(int64_t)o.first * p.ka + i] = r < o.rank && c < p.k ? o.a[(int64_t)r * p.k + c] : zero;
        return;
    }
    i -= as;
    if (i < bs) {
        const int row = (int)(i / padded), r = (int)(i % padded);
        p.b[(int64_t)row * p.total + o.first + r] = r < o.rank ? o.b[(int64_t)row * o.rank + r] : zero;
        return;
    }
    i -= bs;
    if (i < bts) {
        const int r = (int)(i / p.nt), c = (int)(i % p.nt);
        p.bt[(int64_t)o.first * p.nt + i] = r < o.rank && c < p.n ? o.b[(int64_t)c * o.rank + r] : zero;
    }
}
