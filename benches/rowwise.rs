//! LayerNorm and GELU by themselves: bound by memory.

mod common;

use common::{Bench, Case, place, random, work};
use pheye_ops::RandomInit;
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::layernorm::{self, LayerNorm};
use pheye_tensor::Scope;
use serde::Deserialize;

#[derive(Clone, Deserialize)]
struct Row {
    op: String,
    rows: usize,
    cols: usize,
    /// Whether weight and bias are trained.
    #[serde(default)]
    trained: bool,
}

fn measure(bench: &mut Bench, row: &Row, back: bool) {
    let Row { rows, cols, trained, .. } = *row;
    let (op, kind, flops) = match row.op.as_str() {
        "gelu quick" => ("gelu quick", Some(Gelu::Quick), [20, 20]),
        "gelu exact" => ("gelu exact", Some(Gelu::Exact), [20, 20]),
        "gelu tanh" => ("gelu tanh", Some(Gelu::Tanh), [20, 20]),
        _ => ("layernorm", None, [8, 17]),
    };
    let elements = (rows * cols) as u64;
    let case = Case {
        op,
        shape: format!("{rows}x{cols}{}", if trained { " trained" } else { "" }),
        direction: if back { "backward" } else { "forward" },
        flops: flops[back as usize] * elements,
        // x, y; backward: x, dy, dx.
        bytes: bench.element() * elements * if back { 3 } else { 2 },
    };
    bench.row(case, move |cx| {
        let (x, dy) = (random(cx, "x", [rows, cols])?, random(cx, "dy", [rows, cols])?);
        if let Some(kind) = kind {
            if !back {
                return work(move |cx| gelu::forward(cx, &x, kind));
            }
            let (_, saved) = gelu::forward(cx, &x, kind)?;
            return work(move |cx| gelu::backward(cx, &saved, &dy, kind));
        }
        let mut norm = LayerNorm::new(&mut Scope::new(&mut RandomInit::new(1), "norm"), cols, 1e-5);
        let mut grads = place(cx, norm.params_mut(), trained)?;
        if !back {
            return work(move |cx| layernorm::forward(cx, &x, &norm));
        }
        let (_, saved) = layernorm::forward(cx, &x, &norm)?;
        work(move |cx| layernorm::backward(cx, &saved, &dy, &norm, Some(&mut grads)))
    });
}

fn main() {
    common::run("rowwise", |bench| {
        for row in bench.rows::<Row>()? {
            measure(bench, &row, false);
            measure(bench, &row, true);
        }
        Ok(())
    });
}
