//! AdamW and the gradient norm on a GPU.

use std::ops::Range;

use pheye_cpu::adamw::Step;
use pheye_kernels::params::{Adamw, AdamwControl, GradNorm};
use pheye_kernels::{In, Out, ParamField};
use pheye_tensor::{DType, Gpu, Grads, Masters, Param, Region, Tensor};

use super::Moments;
use crate::gpu::{by_dtype, typed};
use crate::{Cx, Result};

/// Philox key for the stochastic rounding of bf16 moments; the counter is made of the step and the element's index.
const SEED: [u32; 2] = [0x6D6F_6D65, 0x6E74_7321];

/// Arrays of equal length; `bf16` is the bf16 copy of p, `norm` the output of [`norm`].
struct Flat<'a> {
    p: &'a Tensor,
    bf16: Option<&'a Tensor>,
    m: Tensor,
    v: Tensor,
    g: Tensor,
    norm: Option<&'a Tensor>,
}

/// Uploads the scalars of a step.
pub(super) fn control(cx: &Cx, s: &Step, step: u64, clip: Option<f64>) -> Result<Region> {
    table(
        cx,
        &AdamwControl {
            scale: s.grad_scale,
            clip: clip.map_or(f32::INFINITY, |c| c as f32),
            decay: s.decay,
            rate1: s.rate1,
            beta2: s.beta2,
            rate2: s.rate2,
            correction2: s.correction2,
            eps: s.eps,
            lr: s.lr,
            step: step as u32,
            seed: SEED,
        },
    )
}

/// Updates the trained parameters with one launch each.
pub(super) fn step(
    cx: &Cx,
    gpu: &Gpu,
    params: &mut [&mut Param],
    grads: &Grads,
    moments: &Moments,
    (numbers, step): (&Step, u64),
) -> Result<()> {
    let control = control(cx, numbers, step, None)?;
    for p in params {
        let Some(at) = grads.table.range(p) else { continue };
        let view = |t: &Tensor| t.view(at.start, [at.len()]);
        let (g, m, v) = (view(&grads.flat)?, view(&moments.m)?, view(&moments.v)?);
        launch(gpu, &Flat { p: &p.value, bf16: p.bf16.as_ref(), m, v, g, norm: None }, &control)?;
    }
    Ok(())
}

/// Updates the parameters in the range `at` in one launch, with the gradients multiplied by the factor that [`norm`] computed.
pub(super) fn step_flat(
    gpu: &Gpu,
    masters: &Masters,
    at: Range<usize>,
    grads: &Grads,
    moments: &Moments,
    norm: &Tensor,
    control: &Region,
) -> Result<()> {
    let view = |t: &Tensor| t.view(at.start, [at.len()]);
    let (m, v, g) = (view(&moments.m)?, view(&moments.v)?, view(&grads.flat)?);
    let (p, bf16) = (&view(&masters.values)?, &view(&masters.bf16_copies)?);
    launch(gpu, &Flat { p, bf16: Some(bf16), m, v, g, norm: Some(norm) }, control)
}

fn table(cx: &Cx, control: &AdamwControl) -> Result<Region> {
    let mut words = [0u32; AdamwControl::SIZE / 4];
    control.store(bytemuck::cast_slice_mut(&mut words));
    cx.table(&words)
}

fn launch(gpu: &Gpu, flat: &Flat, control: &Region) -> Result<()> {
    let dtype = flat.m.dtype();
    let mut l = gpu.launch(by_dtype(dtype, "adamw_bf16", "adamw_f32")?)?;
    let n = flat.p.shape().elements();
    let p = Adamw {
        p: l.update(typed(flat.p, DType::F32)?),
        half: flat.bf16.map_or(Ok(Out::NULL), |copy| typed(copy, DType::Bf16).map(|r| l.update(r)))?,
        m: l.update(typed(&flat.m, dtype)?),
        v: l.update(typed(&flat.v, dtype)?),
        g: l.read(typed(&flat.g, DType::F32)?),
        control: l.read(control.clone()),
        norm: flat.norm.map_or(Ok(In::NULL), |norm| typed(norm, DType::F32).map(|r| l.read(r)))?,
        n: n as u64,
    };
    let grid = [n.div_ceil(l.spec().tile[0]), 1, 1];
    Ok(l.run(grid, &p)?)
}

/// On the device: the gradient norm and the factor for the gradients (see [`super::queue_norm`]).
pub(super) fn norm(cx: &Cx, gpu: &Gpu, g: &Tensor, scale: f64, clip: Option<f64>) -> Result<Tensor> {
    let n = g.shape().elements();
    let mut l = gpu.launch("grad_norm_f32")?;
    let [per_block, most, _] = l.spec().tile;
    let blocks = n.div_ceil(per_block).clamp(1, most);
    // An f64 takes two f32 elements.
    let (norm, partials, arrived) = (cx.empty_f32([2])?, cx.empty_f32([2 * blocks])?, cx.empty_f32([1])?);
    gpu.clear(arrived.region()?)?;
    let clip = clip.map_or(f32::INFINITY, |c| c as f32);
    let control = table(cx, &AdamwControl { scale: scale as f32, clip, ..AdamwControl::default() })?;
    let p = GradNorm {
        g: l.read(typed(g, DType::F32)?),
        partials: l.update(partials.region()?),
        arrived: l.update(arrived.region()?),
        control: l.read(control),
        norm: l.write(norm.region()?),
        n: n as u64,
    };
    l.run([blocks, 1, 1], &p)?;
    Ok(norm)
}
