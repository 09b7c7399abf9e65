//! Linears, plain and with a LoRA adapter, at the sizes of ViT-H, of the cross-attention blocks and of Phi.

mod common;

use common::{Bench, Case, linear, place, random, work};
use pheye_ops::linear as plain;
use pheye_ops::lora::{self, Adapter, Dropout, LoraLinear, Route, RowRange};
use pheye_tensor::{Init, Param, Source};
use serde::Deserialize;

#[derive(Clone, Deserialize)]
struct Row {
    m: usize,
    k: usize,
    n: usize,
    r: Option<usize>,
    /// Chance of a zero before the adapter.
    dropout: Option<f32>,
    /// Whether W is trained; b never is.
    #[serde(default)]
    trained: bool,
    #[serde(default)]
    forward_only: bool,
}

impl Row {
    fn case(&self, back: bool, e: u64) -> Case {
        let Row { m, k, n, r, .. } = *self;
        let [m, k, n, rank] = [m, k, n, r.unwrap_or(0)].map(|x| x as u64);
        let mut shape = format!("{m}x{k}x{n}");
        if self.trained {
            shape += " trained";
        }
        let mut flops = 2 * m * k * n + 2 * m * rank * (k + n);
        // x, y, W; A, B and S = xAᵀ
        let mut bytes = e * (m * (k + n + rank) + k * n + rank * (k + n));
        if let (Some(r), Some(p)) = (r, self.dropout) {
            shape += &format!(" r{r} p{p}");
        }
        if back {
            // dy, dx, W; for a trained W also x and dW += dyᵀx; for adapters also x, S, and A's and B's += in f32
            let sums = if self.trained { k * n } else { rank * (k + n) };
            flops += if self.trained { 2 * m * k * n } else { 2 * m * rank * (k + n) };
            bytes += 8 * sums + if sums > 0 { e * m * k } else { 0 };
        }
        Case {
            op: if r.is_some() { "lora" } else { "linear" },
            shape,
            direction: if back { "backward" } else { "forward" },
            flops,
            bytes,
        }
    }
}

/// y, or dx and the gradients of what is trained.
fn plain_row(bench: &mut Bench, row: &Row, back: bool) {
    let (case, row) = (row.case(back, bench.element()), row.clone());
    bench.row(case, move |cx| {
        let x = random(cx, "x", [row.m, row.k])?;
        let mut layer = linear(row.n, row.k, true);
        place(cx, layer.bias.iter_mut().collect(), false)?;
        let mut grads = place(cx, vec![&mut layer.weight], row.trained)?;
        if !back {
            return work(move |cx| plain::forward(cx, &x, &layer));
        }
        let (_, saved) = plain::forward(cx, &x, &layer)?;
        let dy = random(cx, "dy", [row.m, row.n])?;
        work(move |cx| plain::backward(cx, &saved, &dy, &layer, Some(&mut grads)))
    });
}

fn lora_row(bench: &mut Bench, row: &Row, rank: usize, back: bool) {
    let (case, row) = (row.case(back, bench.element()), row.clone());
    bench.row(case, move |cx| {
        let Row { m, k, n, .. } = row;
        let x = random(cx, "x", [m, k])?;
        let param = |name: &str, shape: [usize; 2]| {
            let values = pheye_ops::RandomInit::new(3).tensor(name, shape.into(), Init::Uniform(0.02));
            Param::frozen(name, values)
        };
        let mut adapter = Adapter { a: param("a", [rank, k]), b: param("b", [n, rank]), scale: 2.0 };
        let mut base = linear(n, k, true);
        place(cx, base.params_mut(), false)?;
        let mut grads = place(cx, vec![&mut adapter.a, &mut adapter.b], true)?;
        let layer = LoraLinear { base, adapters: vec![Some(adapter)], module: 0 };
        let dropout = row.dropout.filter(|&p| p > 0.0).map(|p| Dropout { p, seed: 1, stream: 1 });
        let route = Route { ranges: vec![RowRange { rows: 0..m, adapter: Some(0) }], dropout };
        if !back {
            return work(move |cx| lora::forward(cx, &x, &layer, &route));
        }
        let (_, saved) = lora::forward(cx, &x, &layer, &route)?;
        let dy = random(cx, "dy", [m, n])?;
        work(move |cx| lora::backward(cx, &saved, &dy, &layer, &route, Some(&mut grads)))
    });
}

fn main() {
    common::run("linear", |bench| {
        for row in bench.rows::<Row>()? {
            for back in [false, true] {
                match row.r {
                    _ if back && row.forward_only => {}
                    Some(rank) => lora_row(bench, &row, rank, back),
                    None => plain_row(bench, &row, back),
                }
            }
        }
        Ok(())
    });
}
