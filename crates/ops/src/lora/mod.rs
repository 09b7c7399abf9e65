//! A linear with low-rank adapters, each on a part of the rows: y = x Wᵀ + b + s·(drop(x) Aᵀ) Bᵀ (LoRA, Hu et al.,
//! arXiv 2106.09685).
//!
//! x [rows, k], W [n, k], A [r, k], B [n, r], s = α / r; `drop` zeroes an element with probability p and scales the
//! others by 1 / (1 − p). With S = drop(x) Aᵀ and dS = s·dy B: dB += s·dyᵀ S, dA += dSᵀ drop(x), dx = dy W + drop'(dS
//! A).
//!
//! Saves x if W or some A is trained, and S [rows, r] if some B is. Backward regenerates the dropout mask, which is
//! never stored. The adapters add 2·rows·r·(k + n) FLOPs to the 2·rows·k·n of the linear, and twice that in backward.

use std::ops::Range;

use pheye_cpu::dropout::Mask;
use pheye_tensor::{Device, Grads, Param, Tensor};

use crate::gpu::gemm::GemmEpilogue;
use crate::linear::{self, Linear};
use crate::{Cx, Error, Result};

mod cpu;
mod down;
mod epilogue;
pub(crate) mod gpu;

pub use down::{Down, Normed, down, norm_down};
pub use epilogue::{Output, backward_with, forward_several, forward_with};

/// One low-rank adapter.
#[derive(Debug)]
pub struct Adapter {
    /// A [r, k], or any shape whose first dimension is r.
    pub a: Param,
    /// B [n, r], or any shape with as many elements.
    pub b: Param,
    /// s = α / r.
    pub scale: f32,
}

/// A linear and its LoRA adapters.
#[derive(Debug)]
pub struct LoraLinear {
    /// The linear.
    pub base: Linear,
    /// The adapters that a route chooses from; a `None` entry adds nothing to the linear.
    pub adapters: Vec<Option<Adapter>>,
    /// Index of this module in its network; each module has its own dropout mask.
    pub module: u32,
}

/// Dropout on the input of the adapters, during training. Together with the module's index it determines the dropout
/// mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Probability of zeroing an element, in 0..1.
    pub p: f32,
    /// Seed of the run.
    pub seed: u64,
    /// Offset of the Philox generator, different for each step and micro-batch.
    pub rng_offset: u64,
}

/// The assignment of row ranges to adapters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Route {
    /// Disjoint and ascending; rows outside all ranges use no adapter.
    pub ranges: Vec<RowRange>,
    /// The dropout, if any.
    pub dropout: Option<Dropout>,
}

impl Route {
    /// Assigns all `rows` rows to `adapter`, without dropout.
    pub fn all(rows: usize, adapter: usize) -> Route {
        Route { ranges: vec![RowRange { rows: 0..rows, adapter: Some(adapter) }], dropout: None }
    }
}

/// A range of rows and its adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRange {
    /// The rows.
    pub rows: Range<usize>,
    /// Index of the adapter, or `None` for the linear alone.
    pub adapter: Option<usize>,
}

/// Values that the backward of a LoRA linear needs.
#[derive(Debug, Clone)]
pub struct Saved {
    x: Option<Tensor>,
    /// S of each range of the route; CPU only.
    s: Vec<Option<Tensor>>,
    /// The GPU's counterpart of `s`.
    gpu: Option<gpu::Saved>,
}

impl Saved {
    /// Drops the saved input. Returns true if backward needs it; the caller then recomputes it and calls
    /// [`Saved::with_input`].
    pub fn forget_input(&mut self) -> bool {
        self.x.take().is_some()
    }

    /// A copy with the recomputed input x.
    pub fn with_input(&self, x: Tensor) -> Saved {
        Saved { x: Some(x), ..self.clone() }
    }
}

impl LoraLinear {
    /// The parameters of the linear, then A and B of each adapter.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        self.base.params().chain(self.adapters.iter().flatten().flat_map(|a| [&a.a, &a.b]))
    }

    /// The parameters of the linear, then A and B of each adapter.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.base.params_mut();
        all.extend(self.adapters.iter_mut().flatten().flat_map(|a| [&mut a.a, &mut a.b]));
        all
    }

    /// Whether backward needs x.
    fn keeps_x(&self, route: &Route) -> bool {
        let adapters = || route.ranges.iter().filter_map(|r| self.adapters.get(r.adapter?)?.as_ref());
        self.base.weight.is_trained() || adapters().any(|a| a.a.is_trained())
    }

    /// The dropout mask of this module for the route, if there is dropout.
    fn mask(&self, route: &Route) -> Option<Mask> {
        let Dropout { p, seed, rng_offset } = route.dropout.filter(|d| d.p > 0.0)?;
        Some(Mask { p, seed, rng_offset, module: self.module })
    }

    /// Validates the route and returns the adapter of each range.
    fn adapters_of(&self, route: &Route, rows: usize) -> Result<Vec<Option<&Adapter>>> {
        let range_error = |what, value: String, allowed| Error::Range { op: "lora", what, value, allowed };
        if let Some(d) = route.dropout.filter(|d| !(0.0..1.0).contains(&d.p)) {
            return Err(range_error("dropout", d.p.to_string(), "0..1".to_owned()));
        }
        let mut from = 0;
        route
            .ranges
            .iter()
            .map(|r| {
                if r.rows.start < from || r.rows.start > r.rows.end || r.rows.end > rows {
                    return Err(range_error(
                        "range of rows",
                        format!("{:?}", r.rows),
                        format!("{from}..{rows}"),
                    ));
                }
                from = r.rows.end;
                let Some(i) = r.adapter else { return Ok(None) };
                let Some(adapter) = self.adapters.get(i) else {
                    return Err(range_error("adapter", i.to_string(), format!("0..{}", self.adapters.len())));
                };
                let Some(Adapter { a, b, .. }) = adapter else { return Ok(None) };
                let (weight, r) = (self.base.weight.shape(), rank(a));
                for (name, p, len) in [("A", a, r * self.base.k()), ("B", b, r * self.base.n())] {
                    if p.shape().elements() != len {
                        let (left, right) = (p.shape(), weight);
                        return Err(Error::Shapes {
                            op: "lora",
                            left_name: name,
                            left,
                            right_name: "weight",
                            right,
                        });
                    }
                }
                Ok(adapter.as_ref())
            })
            .collect()
    }
}

fn rank(a: &Param) -> usize {
    a.shape().dims().first().copied().unwrap_or(1)
}

/// y [rows, n] for x [rows, k]; the other dimensions of x are kept.
///
/// ```
/// use pheye_ops::linear::Linear;
/// use pheye_ops::lora::{self, Adapter, LoraLinear, Route};
/// use pheye_ops::tensor::{Param, Tensor};
/// use pheye_ops::Cx;
///
/// let param = |name, shape: [usize; 2], values: &[f32]|
///     Ok::<_, pheye_ops::tensor::Error>(Param::frozen(name, Tensor::from_f32(shape, values)?));
/// let base = Linear { weight: param("weight", [1, 2], &[2.0, 3.0])?, bias: None };
/// let adapter = Adapter { a: param("A", [1, 2], &[1.0, -1.0])?, b: param("B", [1, 1], &[0.5])?, scale: 2.0 };
/// let p = LoraLinear { base, adapters: vec![Some(adapter)], module: 0 };
/// let x = Tensor::from_f32([1, 2], &[1.0, 10.0])?;
/// let (y, _saved) = lora::forward(&Cx::cpu(), &x, &p, &Route::all(1, 0))?;
/// assert_eq!(y.f32()?, [2.0 + 30.0 + 2.0 * 0.5 * (1.0 - 10.0)]); // x Wᵀ + scale·(x Aᵀ) Bᵀ
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The errors of [`linear::forward`]; [`Error::Range`] when the route exceeds the rows of x or names an unknown
/// adapter, or p is outside 0..1; [`Error::Shapes`] when an adapter does not fit the weight.
pub fn forward(cx: &Cx, x: &Tensor, p: &LoraLinear, route: &Route) -> Result<(Tensor, Saved)> {
    linear::check_input(x, &p.base)?;
    let chosen = p.adapters_of(route, x.shape().rows())?;
    match cx.device {
        Device::Cpu => cpu::forward(cx, x, p, route, &chosen),
        Device::Gpu(ref gpu) => {
            let y = cx.empty(x.shape().with_cols(p.base.n()))?;
            let from = gpu::Operands::of(x, p)?;
            let saved = gpu::forward(cx, gpu, &from, p, route, (&y, GemmEpilogue::default()))?;
            Ok((y, saved))
        }
    }
}

/// dx for dy [rows, n]; the gradients of trained parameters are added to `grads`.
///
/// # Errors
/// The errors of [`forward`], with dy in place of x, and [`Error::Shapes`] when `saved` belongs to another input.
pub fn backward(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &LoraLinear,
    route: &Route,
    grads: Option<&mut Grads>,
) -> Result<Tensor> {
    match &cx.device {
        Device::Cpu => {
            let mut dx = linear::input_grad(cx, dy, &p.base)?;
            cpu::backward(cx, saved, dy, p, route, grads, Some(&mut dx))?;
            Ok(dx)
        }
        Device::Gpu(gpu) => {
            linear::check_output(dy, &p.base)?;
            let dx = cx.empty(dy.shape().with_cols(p.base.k()))?;
            let from = gpu::Backward::of(saved, dy, p, Some((&dx, GemmEpilogue::default())))?;
            gpu::backward(cx, gpu, &from, p, route, grads.as_deref())?;
            Ok(dx)
        }
    }
}

/// [`backward`] without dx, for the first trained layer of a network.
///
/// # Errors
/// The errors of [`backward`].
pub fn backward_params(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &LoraLinear,
    route: &Route,
    grads: Option<&mut Grads>,
) -> Result<()> {
    match &cx.device {
        Device::Cpu => cpu::backward(cx, saved, dy, p, route, grads, None),
        Device::Gpu(gpu) => {
            linear::check_output(dy, &p.base)?;
            let from = gpu::Backward::of(saved, dy, p, None)?;
            gpu::backward(cx, gpu, &from, p, route, grads.as_deref())
        }
    }
}
