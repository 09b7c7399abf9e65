//! Attention: cross-attention from text to image tokens, attention within a tile of the ViT, and causal
//! attention of Phi.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use common::{Bench, Case, Kept, random, work};
use pheye_ops::attention::{self, Heads, Kv, Span};
use serde::Deserialize;

#[derive(Clone, Deserialize)]
struct Row {
    op: String,
    batch: usize,
    lq: usize,
    lk: usize,
    heads: usize,
    head_dim: usize,
    #[serde(default)]
    forward_only: bool,
    /// The storage type of keys and values, for cross-attention.
    kept: Option<Kept>,
}

impl Row {
    fn spans(&self) -> Vec<Span> {
        let rows = |i: usize, len: usize| i * len..(i + 1) * len;
        (0..self.batch).map(|i| Span { q: rows(i, self.lq), k: rows(i, self.lk) }).collect()
    }

    fn heads(&self) -> Heads {
        Heads {
            heads: self.heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).powf(-0.5),
            causal: self.op.starts_with("causal"),
        }
    }
}

fn measure(bench: &mut Bench, row: &Row, back: bool) {
    let Row { batch, lq, lk, heads, head_dim, .. } = *row;
    let (spans, of) = (row.spans(), row.heads());
    let width = of.width();
    // Forward reads q, k and v and writes o; backward reads q, o, do, k and v and writes dq, dk and dv.
    let [queries, keys] = [lq, lk].map(|rows| (if back { 4 } else { 2 }) * batch * rows * width);
    let kept = row.kept.map(Kept::dtype);
    let flops = attention::flops(&spans, &of);
    let case = Case {
        op: match row.op.as_str() {
            "ViT attention" => "ViT attention",
            "causal attention" => "causal attention",
            _ => "cross attention",
        },
        shape: format!("{batch}x{lq}x{lk}x{heads}x{head_dim}")
            + &kept.map(|k| format!(" {k} k,v")).unwrap_or_default(),
        direction: if back { "backward" } else { "forward" },
        flops: if back { flops / 2 * 5 } else { flops },
        bytes: bench.element() * queries as u64
            + kept.map_or(bench.element(), |k| k.size() as u64) * keys as u64,
    };
    bench.row(case, move |cx| {
        let q = random(cx, "q", [batch * lq, width])?;
        // The keys and values of cross-attention are side by side in the output of one linear.
        let fused = random(cx, "kv", [batch * lk, 2 * width])?;
        let fused = kept.map_or(Ok(fused.clone()), |k| fused.to_dtype(k))?;
        let (k, v) = (random(cx, "k", [batch * lk, width])?, random(cx, "v", [batch * lk, width])?);
        let split = lq == lk;
        if !back {
            return work(move |cx| {
                let kv = if split { Kv::Split { k: &k, v: &v } } else { Kv::Fused(&fused) };
                attention::forward(cx, &q, kv, &spans, &of)
            });
        }
        let kv = if split { Kv::Split { k: &k, v: &v } } else { Kv::Fused(&fused) };
        let (_, saved) = attention::forward(cx, &q, kv, &spans, &of)?;
        let dout = random(cx, "dout", [batch * lq, width])?;
        work(move |cx| attention::backward(cx, &saved, &dout, &spans, &of))
    });
}

fn main() {
    common::run("attention", |bench| {
        for row in bench.rows::<Row>()? {
            measure(bench, &row, false);
            if !row.forward_only {
                measure(bench, &row, true);
            }
        }
        Ok(())
    });
}
