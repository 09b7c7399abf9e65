//! The linears that produce the queries, keys and values of an attention layer with rotary positions, as one operation.
//! On a GPU the rotation is part of the GEMM's epilogue, and new keys and values are stored directly to their cache, so
//! that no further launch reads and writes q, k and v.

use pheye_tensor::{DType, Device, Gpu, Shape, Tensor};

use super::{Cache, Rotary, check, forward, forward_cached};
use crate::gpu::gemm::{Gemm, GemmEpilogue, RotateHeads};
use crate::linear::{self, Epilogue, Linear, Saved, check_input, forward_several};
use crate::{Cx, Result, rows};

/// Four linears of the same x: those of the queries, keys and values, and a fourth, which in a parallel block is the
/// first linear of the MLP. Row i of x is at position `positions[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Linears<'a> {
    /// The linears of queries, keys and values.
    pub qkv: [&'a Linear; 3],
    /// The fourth linear and its epilogue.
    pub other: (&'a Linear, Epilogue<'a>),
    /// The position of each row of x.
    pub positions: &'a [u32],
    /// The rotation of queries and keys.
    pub rotary: &'a Rotary,
}

/// The results of [`Linears`] except keys and values.
#[derive(Debug)]
pub struct Projected {
    /// The queries, rotated, [rows, heads·head_dim].
    pub q: Tensor,
    /// The values that the backward of the linears of q, k and v needs.
    pub saved: [Saved; 3],
    /// The output of the fourth linear.
    pub other: linear::Output,
}

impl Linears<'_> {
    /// q = rotate(x Wqᵀ + bq), k = rotate(x Wkᵀ + bk), v = x Wvᵀ + bv and the output of the fourth linear, for x [rows,
    /// d]. Returns k and v separately.
    ///
    /// For backward, rotate the gradients of q and k with [`super::backward`], and continue with [`linear::backward`].
    ///
    /// ```
    /// use pheye_ops::linear::{Epilogue, Linear};
    /// use pheye_ops::rotary::{Linears, Rotary};
    /// use pheye_ops::tensor::{Init, Scope, Tensor};
    /// use pheye_ops::{Cx, RandomInit};
    ///
    /// // One head of two elements, of which both turn.
    /// let (mut init, p) = (RandomInit::new(1), Rotary::new(1, 2, 2, 10_000.0, 16));
    /// let mut linear = |name| Linear::new(&mut Scope::new(&mut init, name), 3, 2, true, Init::Normal(0.1));
    /// let [q, k, v, fc1] = ["q", "k", "v", "fc1"].map(&mut linear);
    /// let linears =
    ///     Linears { qkv: [&q, &k, &v], other: (&fc1, Epilogue::default()), positions: &[0, 1], rotary: &p };
    /// let x = Tensor::from_f32([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// let (projected, [k, v]) = linears.forward(&Cx::cpu(), &x)?;
    /// assert!([&projected.q, &k, &v].iter().all(|t| t.shape().dims() == [2, 2]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`linear::forward_several`] and [`forward`].
    pub fn forward(&self, cx: &Cx, x: &Tensor) -> Result<(Projected, [Tensor; 2])> {
        if let Device::Gpu(gpu) = &cx.device {
            let [_, k, v] = self.qkv.map(|linear| cx.empty(x.shape().with_cols(linear.n())));
            let kv = [k?, v?];
            if let Some(projected) = self.fused(cx, gpu, x, [&kv[0], &kv[1]], None)? {
                return Ok((projected, kv));
            }
        }
        let (projected, [k, v]) = self.unrotated(cx, x)?;
        let [q, k] = [projected.q, k].map(|t| forward(cx, t, self.positions, self.rotary));
        Ok((Projected { q: q?, ..projected }, [k?, v]))
    }

    /// The same as [`Linears::forward`], with k and v stored to a cache.
    ///
    /// # Errors
    /// The errors of [`linear::forward_several`] and [`forward_cached`].
    pub fn forward_cached(&self, cx: &Cx, x: &Tensor, cache: Cache) -> Result<Projected> {
        if let Device::Gpu(gpu) = &cx.device {
            let shape = |linear: &Linear| x.shape().with_cols(linear.n());
            rows::check_scatter(cache.k, shape(self.qkv[1]), cache.rows)?;
            rows::check_scatter(cache.v, shape(self.qkv[2]), cache.rows)?;
            let bf16 = [&*cache.k, &*cache.v].iter().all(|t| t.dtype() == DType::Bf16);
            if let (None, to) = rows::last_of_each(cache.rows)
                && bf16
                && let Some(projected) = self.fused(cx, gpu, x, [cache.k, cache.v], Some(&to))?
            {
                return Ok(projected);
            }
        }
        let (projected, [k, v]) = self.unrotated(cx, x)?;
        let q = forward_cached(cx, projected.q, (k, v), self.positions, self.rotary, cache)?;
        Ok(Projected { q, ..projected })
    }

    /// The four linears without the rotation.
    fn unrotated(&self, cx: &Cx, x: &Tensor) -> Result<(Projected, [Tensor; 2])> {
        let [q, k, v] = self.qkv.map(|linear| (linear, Epilogue::default()));
        let [(q, sq, _), (k, sk, _), (v, sv, _), other] = forward_several(cx, x, [q, k, v, self.other])?;
        Ok((Projected { q, saved: [sq, sk, sv], other }, [k, v]))
    }

    /// All in one launch, with keys and values stored to the rows `to` of `kv`; `None` if that is not possible.
    fn fused(
        &self,
        cx: &Cx,
        gpu: &Gpu,
        x: &Tensor,
        kv: [&Tensor; 2],
        to: Option<&[u32]>,
    ) -> Result<Option<Projected>> {
        let ([q_linear, k_linear, v_linear], (other, epilogue)) = (self.qkv, self.other);
        if !fits_gemm(self.rotary) || self.positions.is_empty() {
            return Ok(None);
        }
        for linear in [q_linear, k_linear, v_linear, other] {
            check_input(x, linear)?;
        }
        epilogue.check("linear", x, other.n())?;
        let shape = |linear: &Linear| -> Shape { x.shape().with_cols(linear.n()) };
        check(shape(q_linear), self.positions, self.rotary)?;
        check(shape(k_linear), self.positions, self.rotary)?;
        let angles = cx.upload(&self.rotary.tables)?;
        let rotate = Some(RotateHeads {
            angles: angles.region()?,
            position: cx.table(self.positions)?,
            head_dim: self.rotary.head_dim,
            rot: self.rotary.rot,
        });
        let rows = to.map(|to| cx.table(to)).transpose()?;
        let (q, y) = (cx.empty(shape(q_linear))?, cx.empty(shape(other))?);
        let (epilogue, u) = epilogue.epilogue(cx, &y)?;
        let none = GemmEpilogue::default();
        let gemms = [
            linear::gpu::gemm(x, q_linear, &q, GemmEpilogue { rotate: rotate.clone(), ..none.clone() })?,
            linear::gpu::gemm(
                x,
                k_linear,
                kv[0],
                GemmEpilogue { rotate, rows: rows.clone(), ..none.clone() },
            )?,
            linear::gpu::gemm(x, v_linear, kv[1], GemmEpilogue { rows, ..none })?,
            linear::gpu::gemm(x, other, &y, epilogue)?,
        ];
        if Gemm::kernel_for_several(&gemms, gpu).is_none() {
            return Ok(None);
        }
        Gemm::run_several(&gemms, cx, gpu)?;
        let saved = self.qkv.map(|linear| Saved::of(x, linear));
        Ok(Some(Projected { q, saved, other: (y, Saved::of(x, other), u) }))
    }
}

/// Whether both columns of each rotated pair are in the same tile of the GEMM (`RotateHeads` in
/// `kernels/include/gemm_epilogue.cuh`).
fn fits_gemm(p: &Rotary) -> bool {
    let whole = p.head_dim.is_multiple_of(32) || 32_usize.is_multiple_of(p.head_dim.max(1));
    p.rot > 0 && p.rot <= 32 && p.rot.is_multiple_of(16) && whole
}
