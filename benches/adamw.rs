//! AdamW and the gradient norm, for as many parameters as Pheye-x4 and Pheye-x2 train.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use common::{Bench, Case, Result, Work, random_f32, work};
use pheye_ops::adamw::{self, AdamW, Moments};
use pheye_ops::{Cx, RandomInit};
use pheye_tensor::{DType, Device, Grads, Init, Param, ParamTable, Source, Tensor};
use serde::Deserialize;

#[derive(Clone, Deserialize)]
struct Row {
    op: String,
    params: usize,
    /// The number of elements per tensor.
    tensor: usize,
    /// Whether the moments are bf16, which is supported only on a GPU.
    #[serde(default)]
    bf16_moments: bool,
}

const HYPER: AdamW = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };

fn measure(bench: &mut Bench, row: &Row) {
    let Row { params, tensor, bf16_moments, .. } = *row;
    let norm = row.op == "gradient norm";
    // The step reads p, g, m and v and writes p, m and v, in f32 except bf16 moments. On a GPU it also writes
    // the bf16 copy of p.
    let copy = if bench.element() == 2 { 2 } else { 0 };
    let step = if bf16_moments { 20 } else { 28 } + copy;
    let case = Case {
        op: if norm { "gradient norm" } else { "adamw" },
        shape: format!("{params}{}", if bf16_moments { " bf16 moments" } else { "" }),
        direction: "forward",
        flops: params as u64 * if norm { 2 } else { 14 },
        bytes: params as u64 * if norm { 4 } else { step },
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
        let table = ParamTable::assign(&mut all, |_| true)?;
        let len = table.len();
        let grads = Grads { flat: random_f32(cx, "g", len)?, table };
        if let Device::Gpu(_) = cx.device {
            return gpu(cx, all, grads, (norm, bf16_moments));
        }
        if norm {
            return work(move |cx| adamw::global_norm(cx, &grads));
        }
        let mut moments = Moments { m: random_f32(cx, "m", len)?, v: random_f32(cx, "v", len)? };
        work(move |cx| {
            let mut params: Vec<&mut Param> = all.iter_mut().collect();
            adamw::step(cx, &mut params, &grads, &mut moments, &HYPER, 1, 1.0)
        })
    });
}

/// The functions of a training step on a GPU, which never waits for the norm.
fn gpu(cx: &Cx, mut all: Vec<Param>, grads: Grads, (norm, bf16_moments): (bool, bool)) -> Result<Work> {
    if norm {
        return work(move |cx| adamw::queue_norm(cx, &grads, 1.0, Some(1.0)));
    }
    let len = grads.table.len();
    let masters = grads.table.upload(&mut all, &cx.device)?;
    let dtype = if bf16_moments { DType::Bf16 } else { DType::F32 };
    let values = |name| -> Result<Tensor> {
        Ok(random_f32(&Cx::cpu(), name, len)?.to_dtype(dtype)?.to_device(&cx.device)?)
    };
    let mut moments = Moments { m: values("m")?, v: values("v")? };
    let norm = adamw::queue_norm(cx, &grads, 1.0, Some(1.0))?;
    let group = adamw::Group { at: 0..len, hp: HYPER };
    work(move |cx| adamw::queue_step(cx, &masters, &group, &grads, &mut moments, 1, &norm))
}

fn main() {
    common::run("adamw", |bench| {
        for row in bench.rows::<Row>()? {
            measure(bench, &row);
        }
        Ok(())
    });
}
