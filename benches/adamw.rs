//! AdamW and the norm of the gradients, over as many values as Pheye-x4 and Pheye-x2 train.

mod common;

use common::{Bench, Case, place, random_f32, work};
use pheye_ops::RandomInit;
use pheye_ops::adamw::{self, AdamW, Moments};
use pheye_tensor::{Init, Param, Source};
use serde::Deserialize;

#[derive(Clone, Deserialize)]
struct Row {
    op: String,
    params: usize,
    /// Elements of each of the tensors they are in.
    tensor: usize,
}

const HYPER: AdamW = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };

fn measure(bench: &mut Bench, row: &Row) {
    let Row { params, tensor, .. } = *row;
    let norm = row.op == "gradient norm";
    // p, g, m, v read, p, m, v written, all f32; on a GPU also the copy in bf16.
    let copy = if bench.element() == 2 { 2 } else { 0 };
    let case = Case {
        op: if norm { "gradient norm" } else { "adamw" },
        shape: format!("{params}"),
        direction: "forward",
        flops: params as u64 * if norm { 2 } else { 14 },
        bytes: params as u64 * if norm { 4 } else { 28 + copy },
        // The norm is a number.
        queues: !norm,
    };
    bench.row(case, move |cx| {
        let mut source = RandomInit::new(1);
        let mut all: Vec<Param> = (0..params.div_ceil(tensor))
            .map(|i| {
                let name = format!("p{i}");
                let rows = tensor.min(params - i * tensor) / 1024;
                let value = source.tensor(&name, [rows.max(1), 1024].into(), Init::Uniform(0.1));
                Param::frozen(name, value)
            })
            .collect();
        let mut grads = place(cx, all.iter_mut().collect(), true)?;
        let len = grads.table.len();
        grads.flat = random_f32(cx, "g", len)?;
        if norm {
            return work(move |cx| {
                let norm = adamw::global_norm(cx, &grads)?;
                std::hint::black_box(norm);
                Ok(())
            });
        }
        // Gradients stand in for moments of their size; the second moment is never negative.
        let mut moments = Moments { m: random_f32(cx, "m", len)?, v: random_f32(cx, "v", len)? };
        let mut step = 0;
        work(move |cx| {
            step += 1;
            let mut params: Vec<&mut Param> = all.iter_mut().collect();
            Ok(adamw::step(cx, &mut params, &grads, &mut moments, &HYPER, step, 1.0)?)
        })
    });
}

fn main() {
    common::run("adamw", |bench| {
        for row in bench.rows::<Row>()? {
            measure(bench, &row);
        }
        Ok(())
    });
}
