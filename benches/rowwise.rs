//! LayerNorm alone and fused, and GELU alone: operations bound by memory bandwidth.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use common::{Bench, Case, Result, place, random, work};
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
    /// The total number of rows of A, over all linears that follow the LayerNorm.
    rank: Option<usize>,
}

impl Row {
    fn case(&self, op: &'static str, back: bool, flops: u64, moved: usize, e: u64) -> Case {
        let Row { rows, cols, trained, rank, .. } = *self;
        let mut shape = format!("{rows}x{cols}");
        if trained {
            shape += " trained";
        }
        if let Some(rank) = rank {
            shape += &format!(" r{rank}");
        }
        let (elements, rank) = ((rows * cols) as u64, rank.unwrap_or(0) as u64);
        Case {
            op,
            shape,
            direction: if back { "backward" } else { "forward" },
            flops: flops * elements + 2 * elements * rank,
            bytes: e * (elements * moved as u64 + rank * (rows + cols) as u64),
        }
    }
}

fn gelu_row(bench: &mut Bench, row: &Row, op: &'static str, kind: Gelu, back: bool) {
    // Forward reads x and writes y; backward reads x and dy and writes dx.
    let case = row.case(op, back, 20, if back { 3 } else { 2 }, bench.element());
    let shape = [row.rows, row.cols];
    bench.row(case, move |cx| {
        let (x, dy) = (random(cx, "x", shape)?, random(cx, "dy", shape)?);
        if !back {
            return work(move |cx| gelu::forward(cx, &x, kind));
        }
        let (_, saved) = gelu::forward(cx, &x, kind)?;
        work(move |cx| gelu::backward(cx, &saved, &dy, kind))
    });
}

/// LayerNorm alone, or its backward with the gradient of the residual connection added.
fn norm_row(bench: &mut Bench, row: &Row, residual: bool, back: bool) {
    // Forward reads x and writes y; backward reads x and dy and writes dx, and with the residual also reads
    // dres.
    let moved = if back { 3 + residual as usize } else { 2 };
    let op = if residual { "layernorm residual" } else { "layernorm" };
    let case = row.case(op, back, if back { 17 } else { 8 } + residual as u64, moved, bench.element());
    let Row { rows, cols, trained, .. } = *row;
    bench.row(case, move |cx| {
        let [x, dres, dy] = ["x", "r", "dy"].map(|name| random(cx, name, [rows, cols]));
        let (x, dres, dy) = (x?, dres?, dy?);
        let mut norm = LayerNorm::new(&mut Scope::new(&mut RandomInit::new(1), "norm"), cols, 1e-5);
        let mut grads = place(cx, norm.params_mut(), trained)?;
        if !back {
            return work(move |cx| layernorm::forward(cx, &x, &norm));
        }
        let (_, saved) = layernorm::forward(cx, &x, &norm)?;
        match residual {
            false => work(move |cx| layernorm::backward(cx, &saved, &dy, &norm, Some(&mut grads))),
            true => work(move |cx| {
                layernorm::backward_residual(cx, &saved, &dy, dres.clone(), &norm, Some(&mut grads))
            }),
        }
    });
}

/// y = LN(x), and the LoRA down-projection y Aᵀ of the linears that follow.
fn lora_row(bench: &mut Bench, row: &Row, rank: usize) {
    let case = row.case("layernorm lora", false, 8, 2, bench.element());
    let Row { rows, cols, .. } = *row;
    bench.row(case, move |cx| {
        let (x, a) = (random(cx, "x", [rows, cols])?, random(cx, "a", [rank, cols])?);
        let mut norm = LayerNorm::new(&mut Scope::new(&mut RandomInit::new(1), "norm"), cols, 1e-5);
        place(cx, norm.params_mut(), false)?;
        work(move |cx| layernorm::forward_lora_down(cx, &x, &norm, &a))
    });
}

fn measure(bench: &mut Bench, row: &Row) -> Result<()> {
    if let Some(rank) = row.rank {
        lora_row(bench, row, rank);
        return Ok(());
    }
    for back in [false, true] {
        match row.op.as_str() {
            "layernorm" => norm_row(bench, row, false, back),
            "layernorm residual" if back => norm_row(bench, row, true, back),
            "layernorm residual" => {}
            op => {
                let kind = common::gelu(op.strip_prefix("gelu ").unwrap_or(op))?;
                let op = match kind {
                    Gelu::Quick => "gelu quick",
                    Gelu::Exact => "gelu exact",
                    Gelu::Tanh => "gelu tanh",
                };
                gelu_row(bench, row, op, kind, back);
            }
        }
    }
    Ok(())
}

fn main() {
    common::run("rowwise", |bench| {
        for row in bench.rows::<Row>()? {
            measure(bench, &row)?;
        }
        Ok(())
    });
}
