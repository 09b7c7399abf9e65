//! Attention over spans of rows, tile by tile with a running softmax: no matrix of all queries by all keys.
//!
//! A task holds QUERIES × KEYS scores at a time (Dao et al., FlashAttention-2, arXiv 2307.08691, on one core's cache).

mod backward;
mod few;
mod forward;

use std::ops::Range;

use half::bf16;

use crate::gemm::{Element, Elements, MatRef, Panels, Start, gemm_packed};

pub use backward::{Output, backward};
pub use forward::forward;

/// Rows of queries that attend to rows of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Rows of the queries.
    pub q: Range<usize>,
    /// Rows of the keys and values.
    pub k: Range<usize>,
}

/// How the columns are cut into heads, and what each query sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Number of heads.
    pub heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// Factor of the scores q·k.
    pub scale: f32,
    /// Query i of a span of lq queries and lk keys sees its keys 0..=lk − lq + i only.
    pub causal: bool,
}

impl Heads {
    /// Columns of all heads.
    ///
    /// # Panics
    /// When they are more than can be counted.
    pub fn width(&self) -> usize {
        let Some(width) = self.heads.checked_mul(self.head_dim) else {
            panic!("{} heads of {} columns do not fit any matrix", self.heads, self.head_dim);
        };
        width
    }

    /// How many keys of `span` its query `i` sees: the first ones.
    #[inline(always)]
    fn visible(&self, span: &Span, i: usize) -> usize {
        if self.causal { (span.k.len() + i + 1).saturating_sub(span.q.len()) } else { span.k.len() }
    }
}

/// What backward makes a query's softmax of again: its largest score, and the sum of e^(score − largest).
///
/// One number, the logarithm of the denominator, would do; but rounding it moves every weight, and gradients of sharp
/// softmaxes show it.
pub type Norm = [f32; 2];

/// Of a query that sees no key: every weight is 0.
const UNSEEING: Norm = [f32::INFINITY, 1.0];

/// Keys and values, or their gradients.
#[derive(Debug, Clone, Copy)]
pub enum Kv<T> {
    /// Two matrices [rows, at least heads·head_dim].
    Split {
        /// Keys.
        k: T,
        /// Values.
        v: T,
    },
    /// One matrix [rows, 2·heads·head_dim], keys first.
    Fused(T),
}

impl<T> Kv<T> {
    /// The same layout of something else.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Kv<U> {
        match self {
            Kv::Split { k, v } => Kv::Split { k: f(k), v: f(v) },
            Kv::Fused(kv) => Kv::Fused(f(kv)),
        }
    }
}

impl<'a> Kv<Rows<'a>> {
    /// Keys and values, each `width` columns.
    pub fn parts(self, width: usize) -> (Rows<'a>, Rows<'a>) {
        match self {
            Kv::Split { k, v } => (k, v),
            Kv::Fused(kv) => (kv, Rows { data: kv.data.from(width), stride: kv.stride }),
        }
    }
}

/// Elements to read.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// bfloat16, widened as it is read.
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    fn len(self) -> usize {
        match self {
            Values::F32(x) => x.len(),
            Values::Bf16(x) => x.len(),
        }
    }

    /// Those from number `start` on.
    fn from(self, start: usize) -> Values<'a> {
        match self {
            Values::F32(x) => Values::F32(x.get(start..).unwrap_or(&[])),
            Values::Bf16(x) => Values::Bf16(x.get(start..).unwrap_or(&[])),
        }
    }

    /// Writes those from number `start` on to `to`.
    #[inline(always)]
    fn copy(self, to: &mut [f32], start: usize) {
        match self {
            Values::F32(x) => to.copy_from_slice(&x[start..][..to.len()]),
            Values::Bf16(x) => {
                let from = &x[start..][..to.len()];
                to.iter_mut().zip(from).for_each(|(to, x)| *to = x.wide());
            }
        }
    }
}

/// Rows to read, `stride` elements apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The elements from the first row's first on.
    pub data: Values<'a>,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// One head's columns of some rows.
    fn head(self, rows: Range<usize>, head: usize, h: &Heads) -> MatRef<'a> {
        let data = match self.data.from(rows.start * self.stride + head * h.head_dim) {
            Values::F32(x) => Elements::F32(x),
            Values::Bf16(x) => Elements::Bf16(x),
        };
        MatRef { data, rows: rows.len(), cols: h.head_dim, row_stride: self.stride, col_stride: 1 }
    }
}

/// Rows of f32 to write, `stride` elements apart.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// The elements from the first row's first on.
    pub data: &'a mut [f32],
    /// Elements from one row to the next.
    pub stride: usize,
}

/// The matrices that attention reads: q [rows, heads·head_dim], k and v [keys, at least heads·head_dim].
#[derive(Debug, Clone, Copy)]
pub struct Qkv<'a> {
    /// Queries.
    pub q: Rows<'a>,
    /// Keys.
    pub k: Rows<'a>,
    /// Values.
    pub v: Rows<'a>,
}

/// Whether all `rows`, of `width` elements and `stride` elements apart, lie in `len` elements and not in each other.
fn fit(rows: &Range<usize>, stride: usize, width: usize, len: usize) -> bool {
    let last = |row: usize| row.checked_mul(stride)?.checked_add(width);
    rows.is_empty() || stride >= width && last(rows.end - 1).is_some_and(|end| end <= len)
}

impl Qkv<'_> {
    /// Stops unless the spans lie in the matrices: from here on no place of an element can be too large a number.
    fn check(&self, spans: &[Span], width: usize) {
        let all = |m: &Rows<'_>, rows: fn(&Span) -> &Range<usize>| {
            spans.iter().all(|s| fit(rows(s), m.stride, width, m.data.len()))
        };
        assert!(all(&self.q, |s| &s.q), "spans do not fit the queries");
        assert!(all(&self.k, |s| &s.k) && all(&self.v, |s| &s.k), "spans do not fit the keys and values");
    }
}

/// Whether no row lies in two of the ranges.
pub fn disjoint(ranges: impl Iterator<Item = Range<usize>>) -> bool {
    let mut all: Vec<_> = ranges.filter(|r| !r.is_empty()).collect();
    all.sort_by_key(|r| r.start);
    all.windows(2).all(|w| w[0].end <= w[1].start)
}

/// Queries of a block, about.
const QUERIES: usize = 64;
/// Keys of a tile, about.
const KEYS: usize = 128;
/// Lanes in which the sum and the maximum of a row of scores run.
const LANES: usize = 8;

/// `queries` in blocks of about [`QUERIES`], as equal as can be: a block of the one query that is left over, as of the 65 of a
/// prompt or the 257 of a picture, would read all keys for it alone.
fn blocks(queries: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    equal(queries, QUERIES, 1)
}

/// `keys` in tiles of about [`KEYS`], whole vectors but for the last. Under a causal mask they are as long as blocks, so that few
/// scores are computed for nothing.
fn tiles(keys: Range<usize>, h: &Heads) -> impl Iterator<Item = Range<usize>> {
    equal(keys, if h.causal { QUERIES } else { KEYS }, LANES)
}

fn equal(range: Range<usize>, about: usize, multiple: usize) -> impl Iterator<Item = Range<usize>> {
    let count = ((range.len() + about / 2) / about).max(1);
    let size = range.len().div_ceil(count).max(1).next_multiple_of(multiple);
    range.clone().step_by(size).map(move |i| i..range.end.min(i + size))
}

/// The scores of one block and one tile, rows padded to whole lanes.
#[derive(Default)]
struct Scores {
    p: Vec<f32>,
    stride: usize,
}

/// Rows of one head without the gap between them: a stride of kilobytes would map them to a few sets of the cache.
#[derive(Default)]
struct Head(Vec<f32>);

impl Head {
    #[inline(always)]
    fn load(&mut self, from: Rows<'_>, rows: Range<usize>, head: usize, h: &Heads) {
        let d = h.head_dim;
        self.0.resize(rows.len() * d, 0.0);
        for (to, i) in self.0.chunks_exact_mut(d).zip(rows) {
            from.data.copy(to, i * from.stride + head * d);
        }
    }

    /// Those of `rows`, counted from the first that was loaded.
    #[inline(always)]
    fn mat(&self, rows: Range<usize>, h: &Heads) -> MatRef<'_> {
        let d = h.head_dim;
        MatRef::f32(&self.0[rows.start * d..rows.end * d], rows.len(), d)
    }
}

impl Scores {
    /// p = scale·q·kᵀ of n keys, −∞ beyond the first `visible(i)` keys of row i and in the padding.
    #[inline(always)]
    fn compute(
        &mut self,
        q: MatRef<'_>,
        (k, n): (&Panels, usize),
        scale: f32,
        visible: impl Fn(usize) -> usize,
    ) {
        self.stride = n.next_multiple_of(LANES);
        let len = q.rows * self.stride;
        if self.p.len() < len {
            self.p.resize(len, 0.0);
        }
        gemm_packed(&mut self.p[..len], self.stride, Start::Zero, scale, q, k);
        for (i, row) in self.p[..len].chunks_exact_mut(self.stride).enumerate() {
            row[visible(i).min(n)..].fill(f32::NEG_INFINITY);
        }
    }
}
