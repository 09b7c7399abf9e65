//! Linears, with and without a LoRA adapter, at the sizes of ViT-H, of the cross-attention blocks and of Phi.
//!
//! On a GPU with feature `cublaslt`, cuBLASLt runs the GEMMs of each row in the same process: y = x Wᵀ (NT),
//! dx = dy W (NN) and dW += dyᵀ x (TN), without bias and adapter. This is not a rival but the cost of the row
//! if everything else were free.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use common::{Bench, Case, Kept, Result, Work, linear, place, random, random_f32, work};
use pheye_ops::Cx;
use pheye_ops::gelu;
use pheye_ops::linear::{self as plain, BackwardEpilogue, Epilogue};
use pheye_ops::lora::{self, Adapter, Dropout, LoraLinear, Route, RowRange};
use pheye_tensor::{BlasGemm, Device, GemmOperand, Init, Param, Source, Tensor};
use serde::Deserialize;

#[derive(Clone, Deserialize)]
struct Row {
    op: String,
    m: usize,
    k: usize,
    n: usize,
    r: Option<usize>,
    /// The dropout probability before the adapter.
    dropout: Option<f32>,
    /// Whether W is trained; the bias never is.
    #[serde(default)]
    trained: bool,
    #[serde(default)]
    forward_only: bool,
    /// The storage type of W, if it differs from the activations.
    kept: Option<Kept>,
    /// The kind of GELU: the epilogue of the GEMM in `linear gelu`; the operation before the linear in
    /// `gelu linear`, of which only backward is measured.
    gelu: Option<String>,
    /// For `linears of one x`, the columns of each linear; n is their sum.
    #[serde(default)]
    widths: Vec<usize>,
}

/// The part of a row that is timed.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Forward,
    /// dx and the gradients of everything trained.
    Backward,
    /// dW only.
    Weight,
}

impl Row {
    fn passes(&self) -> &'static [Pass] {
        match (self.forward_only, self.trained) {
            _ if self.op == "gelu linear" => &[Pass::Backward],
            (true, _) => &[Pass::Forward],
            (false, true) => &[Pass::Forward, Pass::Backward, Pass::Weight],
            (false, false) => &[Pass::Forward, Pass::Backward],
        }
    }

    fn case(&self, pass: Pass, e: u64) -> Case {
        let Row { m, k, n, r, .. } = *self;
        let [m, k, n, rank] = [m, k, n, r.unwrap_or(0)].map(|x| x as u64);
        let mut shape = format!("{m}x{k}x{n}");
        if self.trained {
            shape += " trained";
        }
        // The FLOPs of the GEMM and of the adapter's two GEMMs.
        let gemm = 2 * m * k * n;
        let mut flops = gemm + 2 * m * rank * (k + n);
        // Bytes of x, y and W; of A, B and S = x Aᵀ.
        let mut bytes = e * (m * (k + n + rank) + k * n + rank * (k + n));
        if let Some(kept) = self.kept {
            shape += &format!(" {} W", kept.dtype());
            bytes -= (e - kept.dtype().size() as u64) * k * n;
        }
        if let (Some(r), Some(p)) = (r, self.dropout) {
            shape += &format!(" r{r} p{p}");
        }
        if let Some(gelu) = &self.gelu {
            shape += &format!(" {gelu}");
            flops += 20 * m * if pass == Pass::Forward { n } else { k };
            // Backward also reads the input of GELU.
            bytes += if pass == Pass::Forward { 0 } else { e * m * k };
        }
        match pass {
            Pass::Forward => {}
            Pass::Backward => {
                // dy, dx, W. A trained W adds x and dW += dyᵀ x; adapters add x, S, and dA and dB,
                // accumulated in f32.
                let sums = if self.trained { k * n } else { rank * (k + n) };
                flops += if self.trained { gemm } else { 2 * m * rank * (k + n) };
                bytes += 8 * sums + if sums > 0 { e * m * k } else { 0 };
            }
            // dy, x, and dW, accumulated in f32.
            Pass::Weight => (flops, bytes) = (gemm, e * m * (k + n) + 8 * k * n),
        }
        Case {
            op: match self.op.as_str() {
                "lora" => "lora",
                "linear gelu" => "linear gelu",
                "gelu linear" => "gelu linear",
                "linears of one x" => "linears of one x",
                _ => "linear",
            },
            shape,
            direction: match pass {
                Pass::Forward => "forward",
                Pass::Backward => "backward",
                Pass::Weight => "dW",
            },
            flops,
            bytes,
        }
    }
}

fn plain_row(bench: &mut Bench, row: &Row, pass: Pass) {
    let (case, row) = (row.case(pass, bench.element()), row.clone());
    bench.row(case, move |cx| {
        let x = random(cx, "x", [row.m, row.k])?;
        let mut layer = linear(row.n, row.k, true);
        if let Some(kept) = row.kept {
            layer.weight.value = layer.weight.value.to_dtype(kept.dtype())?;
        }
        place(cx, layer.bias.iter_mut().collect(), false)?;
        let mut grads = place(cx, vec![&mut layer.weight], row.trained)?;
        let kind = row.gelu.as_deref().map(common::gelu).transpose()?;
        if pass == Pass::Forward {
            // Forward keeps nothing for backward, as in inference and as the rivals run it.
            let after = Epilogue { gelu: kind, ..Epilogue::default() };
            return work(move |cx| plain::forward_with(cx, &x, &layer, after));
        }
        let (_, saved) = plain::forward(cx, &x, &layer)?;
        let dy = random(cx, "dy", [row.m, row.n])?;
        if let Some(kind) = kind {
            let (_, act) = gelu::forward(cx, &x, kind)?;
            return work(move |cx| {
                let before = BackwardEpilogue { gelu: Some((&act, kind)), sum: None };
                plain::backward_with(cx, &saved, &dy, &layer, before, Some(&mut grads))
            });
        }
        if pass == Pass::Weight {
            return work(move |cx| plain::backward_params(cx, &saved, &dy, &layer, Some(&mut grads)));
        }
        work(move |cx| plain::backward(cx, &saved, &dy, &layer, Some(&mut grads)))
    });
}

/// Several linears with the same input x, such as q, k, v and fc1 of Phi.
fn several_row(bench: &mut Bench, row: &Row) {
    let (case, row) = (row.case(Pass::Forward, bench.element()), row.clone());
    bench.row(case, move |cx| {
        let x = random(cx, "x", [row.m, row.k])?;
        let mut layers: Vec<_> = row.widths.iter().map(|&n| linear(n, row.k, true)).collect();
        for layer in &mut layers {
            place(cx, layer.params_mut(), false)?;
        }
        let layers = <[_; 4]>::try_from(layers).map_err(|_| "shapes.json: a row has four widths")?;
        work(move |cx| {
            plain::forward_several(cx, &x, layers.each_ref().map(|layer| (layer, Epilogue::default())))
        })
    });
}

fn lora_row(bench: &mut Bench, row: &Row, rank: usize, pass: Pass) {
    let (case, row) = (row.case(pass, bench.element()), row.clone());
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
        let dropout = row.dropout.filter(|&p| p > 0.0).map(|p| Dropout { p, seed: 1, rng_offset: 1 });
        let route = Route { ranges: vec![RowRange { rows: 0..m, adapter: Some(0) }], dropout };
        if pass == Pass::Forward {
            return work(move |cx| lora::forward(cx, &x, &layer, &route));
        }
        let (_, saved) = lora::forward(cx, &x, &layer, &route)?;
        let dy = random(cx, "dy", [m, n])?;
        work(move |cx| lora::backward(cx, &saved, &dy, &layer, &route, Some(&mut grads)))
    });
}

/// A bf16 matrix as an operand of a GEMM.
fn operand(t: &Tensor, transposed: bool) -> Result<GemmOperand> {
    Ok(GemmOperand { region: t.region()?, ld: t.shape().cols(), transposed })
}

/// The GEMM C = A·B, or C += A·B in f32, for cuBLASLt.
fn gemm(a: GemmOperand, b: GemmOperand, c: &Tensor, inner: usize, add: bool) -> Result<BlasGemm> {
    let (rows, ldc) = (c.shape().rows(), c.shape().cols());
    Ok(BlasGemm {
        dims: [rows, ldc, inner],
        a,
        b,
        c: c.region()?,
        ldc,
        wide: add,
        alpha: 1.0,
        beta: if add { 1.0 } else { 0.0 },
    })
}

/// The GEMMs of a row, by cuBLASLt.
fn gemms(cx: &Cx, row: &Row, pass: Pass) -> Result<Work> {
    let Device::Gpu(gpu) = cx.device.clone() else { return Err("cuBLASLt needs a GPU".into()) };
    let Row { m, k, n, trained, .. } = *row;
    let (x, w) = (random(cx, "x", [m, k])?, random(cx, "w", [n, k])?);
    // The values of y also serve as dy.
    let (y, dx) = (random(cx, "y", [m, n])?, cx.empty([m, k])?);
    let dw = random_f32(cx, "dw", n * k)?.reshape([n, k])?;
    let nt = gemm(operand(&x, false)?, operand(&w, true)?, &y, k, false)?;
    let nn = gemm(operand(&y, false)?, operand(&w, false)?, &dx, n, false)?;
    let tn = gemm(operand(&y, true)?, operand(&x, false)?, &dw, m, true)?;
    let all = match pass {
        Pass::Forward => vec![nt],
        Pass::Backward if trained => vec![nn, tn],
        Pass::Backward => vec![nn],
        Pass::Weight => vec![tn],
    };
    Ok(Box::new(move |_| {
        // If the tensors were dropped, their memory would return to the arena and be reused.
        let _memory = (&x, &w, &y, &dx, &dw);
        for gemm in &all {
            if !gpu.blas(gemm)? {
                return Err("cuBLASLt has no algorithm for this GEMM".into());
            }
        }
        Ok(())
    }))
}

fn main() {
    common::run("linear", |bench| {
        for row in bench.rows::<Row>()? {
            for &pass in row.passes() {
                match row.r {
                    _ if !row.widths.is_empty() => several_row(bench, &row),
                    Some(rank) => lora_row(bench, &row, rank, pass),
                    None => plain_row(bench, &row, pass),
                }
                if cfg!(feature = "cublaslt") && bench.on_gpu() {
                    let case = row.case(pass, bench.element());
                    bench.rival(case, "cuBLASLt", |cx| gemms(cx, &row, pass));
                }
            }
        }
        Ok(())
    });
}
