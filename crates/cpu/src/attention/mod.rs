//! Variable-length (varlen) attention with an online softmax: the full matrix of scores is never stored.
//!
//! The pairs of query and key ranges, which other libraries pass as `cu_seqlens`, are explicit [`Span`]s. A task
//! computes a tile of QUERIES × KEYS scores at a time, sized for the cache of one core (FlashAttention-2, Dao, arXiv
//! 2307.08691).

mod backward;
mod decode;
mod forward;

use std::ops::Range;

use crate::element::Element;
use crate::gemm::{Init, Panels, gemm_packed};
use crate::mat::{Elements, MatRef};

pub use backward::{Output, backward};
pub use forward::forward;

/// A range of query rows that attends to a range of key rows: one sequence of a varlen batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Rows of the queries.
    pub q: Range<usize>,
    /// Rows of the keys and values.
    pub k: Range<usize>,
}

/// The heads, the scale and the mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Number of heads.
    pub heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// The scale of the scores q·k.
    pub scale: f32,
    /// Causal mask: query i of a span with lq queries and lk keys attends only to its keys 0..=lk − lq + i.
    pub causal: bool,
}

impl Heads {
    /// The number of columns of all heads.
    ///
    /// # Panics
    /// When heads·head_dim overflows.
    pub fn width(&self) -> usize {
        let Some(width) = self.heads.checked_mul(self.head_dim) else {
            panic!("{} heads of {} columns do not fit any matrix", self.heads, self.head_dim);
        };
        width
    }

    /// The number of keys of `span`, counted from the first, that its query `i` attends to.
    #[inline(always)]
    fn visible(&self, span: &Span, i: usize) -> usize {
        if self.causal { (span.k.len() + i + 1).saturating_sub(span.q.len()) } else { span.k.len() }
    }
}

/// The softmax statistics of a query, from which backward recomputes its softmax: the maximum score, and the
/// sum of e^(score − maximum).
///
/// A single value, the log-sum-exp, would suffice, but rounding it changes every weight, which is visible in the
/// gradients of sharp softmaxes.
pub type SoftmaxStats = [f32; 2];

/// The statistics of a query that attends to no key: every weight becomes 0.
const NO_KEYS: SoftmaxStats = [f32::INFINITY, 1.0];

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
    /// Applies `f` to each matrix and keeps the layout.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Kv<U> {
        match self {
            Kv::Split { k, v } => Kv::Split { k: f(k), v: f(v) },
            Kv::Fused(kv) => Kv::Fused(f(kv)),
        }
    }
}

impl<'a> Kv<MatRef<'a>> {
    /// The keys and the values, each with `width` columns.
    pub fn parts(self, width: usize) -> (MatRef<'a>, MatRef<'a>) {
        match self {
            Kv::Split { k, v } => (k, v),
            Kv::Fused(kv) => {
                (kv.block(0..kv.rows, 0..width), kv.block(0..kv.rows, width..width.saturating_mul(2)))
            }
        }
    }
}

/// The columns of one head, for a range of rows.
fn head_of<'a>(x: MatRef<'a>, rows: Range<usize>, head: usize, h: &Heads) -> MatRef<'a> {
    x.block(rows, head * h.head_dim..(head + 1) * h.head_dim)
}

/// The inputs of attention: q [rows, heads·head_dim], k and v [keys, at least heads·head_dim], in f32 or bf16, with
/// contiguous rows.
#[derive(Debug, Clone, Copy)]
pub struct Qkv<'a> {
    /// Queries.
    pub q: MatRef<'a>,
    /// Keys.
    pub k: MatRef<'a>,
    /// Values.
    pub v: MatRef<'a>,
}

/// Whether `rows`, with `width` elements each and a stride of `stride` elements, fit into `len` elements without
/// overlap.
fn rows_fit(rows: &Range<usize>, stride: usize, width: usize, len: usize) -> bool {
    let last = |row: usize| row.checked_mul(stride)?.checked_add(width);
    rows.is_empty() || stride >= width && last(rows.end - 1).is_some_and(|end| end <= len)
}

impl Qkv<'_> {
    /// Panics unless the spans fit the matrices. After this check no element index can overflow.
    fn check(&self, spans: &[Span], width: usize) {
        let fits = |m: &MatRef<'_>, rows: fn(&Span) -> &Range<usize>| {
            assert!(m.col_stride == 1 && !matches!(m.data, Elements::Int8(..)), "rows of f32 or bf16");
            let in_shape = |rows: &Range<usize>| rows.end <= m.rows && width <= m.cols;
            spans.iter().map(rows).all(|rows| {
                rows.is_empty() || in_shape(rows) && rows_fit(rows, m.row_stride, width, m.data.len())
            })
        };
        assert!(fits(&self.q, |s| &s.q), "spans do not fit the queries");
        assert!(fits(&self.k, |s| &s.k) && fits(&self.v, |s| &s.k), "spans do not fit the keys and values");
    }
}

/// Whether the ranges do not overlap.
pub fn disjoint(ranges: impl Iterator<Item = Range<usize>>) -> bool {
    let mut all: Vec<_> = ranges.filter(|r| !r.is_empty()).collect();
    all.sort_by_key(|r| r.start);
    all.windows(2).all(|w| w[0].end <= w[1].start)
}

/// The approximate number of queries in a block.
const QUERIES: usize = 64;
/// The approximate number of keys in a tile.
const KEYS: usize = 128;
/// The number of lanes in which a row of scores is reduced.
const LANES: usize = 8;

/// Divides `queries` into blocks of about [`QUERIES`], as equal as possible. A block with a single remaining query, as
/// with the 65 of a prompt or the 257 of an image, would read all keys for that query alone.
fn blocks(queries: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    equal_ranges(queries, QUERIES, 1)
}

/// Divides `keys` into tiles of about [`KEYS`], all but the last a multiple of [`LANES`]. Under a causal
/// mask, tiles are as long as blocks, so that few masked scores are computed.
fn tiles(keys: Range<usize>, h: &Heads) -> impl Iterator<Item = Range<usize>> {
    equal_ranges(keys, if h.causal { QUERIES } else { KEYS }, LANES)
}

fn equal_ranges(range: Range<usize>, about: usize, multiple: usize) -> impl Iterator<Item = Range<usize>> {
    let count = ((range.len() + about / 2) / about).max(1);
    let size = range.len().div_ceil(count).max(1).next_multiple_of(multiple);
    range.clone().step_by(size).map(move |i| i..range.end.min(i + size))
}

/// The scores of one block and one tile, with rows padded to full lanes.
#[derive(Default)]
struct Scores {
    p: Vec<f32>,
    stride: usize,
}

/// The rows of one head, copied to contiguous memory: with a stride of kilobytes they would map to few sets of the
/// cache.
#[derive(Default)]
struct Head(Vec<f32>);

impl Head {
    #[inline(always)]
    fn load(&mut self, from: MatRef<'_>, rows: Range<usize>, head: usize, h: &Heads) {
        let d = h.head_dim;
        self.0.resize(rows.len() * d, 0.0);
        for (to, i) in self.0.chunks_exact_mut(d).zip(rows) {
            let start = i * from.row_stride + head * d;
            match from.data {
                Elements::F32(x) => to.copy_from_slice(&x[start..][..d]),
                Elements::Bf16(x) => {
                    to.iter_mut().zip(&x[start..][..d]).for_each(|(to, x)| *to = x.widen());
                }
                Elements::Int8(..) => unreachable!("attention takes no int8"),
            }
        }
    }

    /// The rows `rows`, relative to the first row that was loaded.
    #[inline(always)]
    fn mat(&self, rows: Range<usize>, h: &Heads) -> MatRef<'_> {
        let d = h.head_dim;
        MatRef::f32(&self.0[rows.start * d..rows.end * d], rows.len(), d)
    }
}

impl Scores {
    /// p = scale·q·kᵀ for n keys; −∞ beyond the first `visible(i)` keys of row i and in the padding.
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
        gemm_packed(&mut self.p[..len], self.stride, Init::Zero, scale, q, k);
        for (i, row) in self.p[..len].chunks_exact_mut(self.stride).enumerate() {
            row[visible(i).min(n)..].fill(f32::NEG_INFINITY);
        }
    }
}
