//! A LoRA linear on the CPU: the linear, then GEMMs for the rows of each range.

use pheye_cpu::dropout::{self, Mask};
use pheye_cpu::gemm::{Init, gemm};
use pheye_cpu::mat::MatRef;
use pheye_tensor::{Grads, Tensor};

use super::{Adapter, LoraLinear, Route, Saved, rank};
use crate::cpu::matrix;
use crate::{Cx, Result, linear};

/// y, and the values that backward needs. `chosen` is the adapter of each range.
pub(super) fn forward(
    cx: &Cx,
    x: &Tensor,
    p: &LoraLinear,
    route: &Route,
    chosen: &[Option<&Adapter>],
) -> Result<(Tensor, Saved)> {
    let (k, n) = (p.base.k(), p.base.n());
    let (mut y, _) = linear::forward(cx, x, &p.base)?;
    let mut saved = Vec::with_capacity(chosen.len());
    let out = y.f32_mut()?;
    for (range, adapter) in route.ranges.iter().zip(chosen) {
        let Some(Adapter { a, b, scale }) = *adapter else {
            saved.push(None);
            continue;
        };
        let (m, r) = (range.rows.len(), rank(a));
        let dropped = dropped(cx, &x.rows(range.rows.clone())?, range.rows.start * k, p.mask(route))?;
        let mut s = cx.empty([m, r])?;
        let a_t = matrix(&a.value, r, k)?.t();
        gemm(s.f32_mut()?, r, Init::Zero, 1.0, MatRef::f32(dropped.f32()?, m, k), a_t);
        let y = &mut out[range.rows.start * n..range.rows.end * n];
        gemm(y, n, Init::Accumulate, *scale, MatRef::f32(s.f32()?, m, r), matrix(&b.value, n, r)?.t());
        saved.push(b.is_trained().then_some(s));
    }
    Ok((y, Saved { x: p.keeps_x(route).then(|| x.clone()), s: saved, gpu: None }))
}

/// drop(x), or x itself without dropout; `first` is the index of its first element in the whole input.
fn dropped(cx: &Cx, x: &Tensor, first: usize, mask: Option<Mask>) -> Result<Tensor> {
    let Some(mask) = mask else { return Ok(x.clone()) };
    let mut out = cx.empty(x.shape())?;
    dropout::apply(out.f32_mut()?, x.f32()?, first, mask);
    Ok(out)
}

/// All gradients except dy W: adds to `grads` and to `dx` where they are given.
pub(super) fn backward(
    cx: &Cx,
    saved: &Saved,
    dy: &Tensor,
    p: &LoraLinear,
    route: &Route,
    mut grads: Option<&mut Grads>,
    mut dx: Option<&mut Tensor>,
) -> Result<()> {
    let (k, n) = (p.base.k(), p.base.n());
    linear::add_grads(cx, saved.x.as_ref(), dy, &p.base, grads.as_deref_mut())?;
    let chosen = p.adapters_of(route, dy.shape().rows())?;
    for ((range, adapter), s) in route.ranges.iter().zip(&chosen).zip(&saved.s) {
        let Some(Adapter { a, b, scale }) = *adapter else { continue };
        let (rows, m, r) = (range.rows.clone(), range.rows.len(), rank(a));
        let dy = dy.rows(rows.clone())?;
        let dy = MatRef::f32(dy.f32()?, m, n);
        let db = grads.as_deref_mut().map(|g| g.of(b)).transpose()?.flatten();
        if let (Some(s), Some(db)) = (s, db) {
            gemm(db, r, Init::Accumulate, *scale, dy.t(), MatRef::f32(s.f32()?, m, r));
        }
        let mut ds = cx.empty([m, r])?;
        gemm(ds.f32_mut()?, r, Init::Zero, *scale, dy, matrix(&b.value, n, r)?);
        let ds = MatRef::f32(ds.f32()?, m, r);
        let first = rows.start * k;
        let da = grads.as_deref_mut().map(|g| g.of(a)).transpose()?.flatten();
        if let (Some(x), Some(da)) = (&saved.x, da) {
            let x = dropped(cx, &x.rows(rows.clone())?, first, p.mask(route))?;
            gemm(da, k, Init::Accumulate, 1.0, ds.t(), MatRef::f32(x.f32()?, m, k));
        }
        if let Some(dx) = dx.as_deref_mut() {
            let dx = &mut dx.f32_mut()?[rows.start * k..rows.end * k];
            let a = matrix(&a.value, r, k)?;
            match p.mask(route) {
                None => gemm(dx, k, Init::Accumulate, 1.0, ds, a),
                Some(mask) => {
                    let mut t = cx.empty([m, k])?;
                    gemm(t.f32_mut()?, k, Init::Zero, 1.0, ds, a);
                    dropout::add(dx, t.f32()?, first, mask);
                }
            }
        }
    }
    Ok(())
}
