//! LoRA on a GPU: y = [x, S] [W, B]ᵀ is one GEMM whose K is extended by the ranks. The scale s and the factor 1 / (1 −
//! p) of dropout are applied to S and to dS = s·dy B, so B is used as stored.

pub(super) mod down;

use pheye_cpu::dropout::Mask;
use pheye_kernels::params;
use pheye_tensor::{Gpu, Grads, Region, Tensor};

use self::down::{Columns, Down, DownProjected, PackedAdapters, Placed, places, ranges};
use super::{LoraLinear, Route};
use crate::gpu::gemm::{Gemm, GemmEpilogue, Layout, LowRank, MatOperand, TILE_K, dropout_mask, splits};
use crate::linear::gpu as base;
use crate::{Cx, Error, Result};

/// Maximum number of gradients that one launch adds to.
const GRADS: usize = 8;

/// Values that backward needs besides x.
#[derive(Debug, Clone)]
pub(super) struct Saved {
    packed: PackedAdapters,
    /// S, if some B is trained.
    s: Option<Columns>,
}

/// x [rows, k] and W [n, k], whose row strides may exceed k (padding).
#[derive(Debug, Clone)]
pub(crate) struct Operands<'a> {
    pub x: &'a Tensor,
    pub w: MatOperand,
}

impl<'a> Operands<'a> {
    /// x and W without padding.
    ///
    /// # Errors
    /// When W is not bf16.
    pub(crate) fn of(x: &'a Tensor, p: &LoraLinear) -> Result<Self> {
        Ok(Operands { x, w: MatOperand::with(p.base.weight.matrix(), p.base.k())? })
    }
}

/// The GEMM y = f(x Wᵀ + S Bᵀ + b). The caller sets all of `epilogue` except the bias.
pub(super) fn gemm(
    from: &Operands,
    p: &LoraLinear,
    low: Option<&DownProjected>,
    (y, epilogue): (&Tensor, GemmEpilogue),
) -> Result<Gemm> {
    let (x, rows, k, n) = (MatOperand::of(from.x)?, from.x.shape().rows(), p.base.k(), p.base.n());
    let mut call = Gemm::new(Layout::Nt, [rows, n, k], x, from.w.clone(), base::activation(y)?);
    call.epilogue = GemmEpilogue { bias: base::bias(&p.base)?, ..epilogue };
    let low_rank = |l: &DownProjected| -> Result<LowRank> {
        Ok(LowRank { a: l.s.mat()?, b: MatOperand::of(&l.packed.b)?, k: l.packed.total, mask: None })
    };
    call.low_rank = low.map(low_rank).transpose()?;
    Ok(call)
}

/// Computes y. The caller sets all of `epilogue` except the bias.
pub(crate) fn forward(
    cx: &Cx,
    gpu: &Gpu,
    from: &Operands,
    p: &LoraLinear,
    route: &Route,
    y: (&Tensor, GemmEpilogue),
) -> Result<super::Saved> {
    let low = down::of_input(cx, gpu, from.x, &[p], route)?.pop();
    gemm(from, p, low.as_ref(), y)?.run(cx, gpu)?;
    Ok(saved(from.x, p, route, low))
}

/// The values that backward needs, given the down projection of forward.
pub(super) fn saved(x: &Tensor, p: &LoraLinear, route: &Route, low: Option<DownProjected>) -> super::Saved {
    super::Saved { x: p.keeps_x(route).then(|| x.clone()), s: Vec::new(), gpu: Saved::of(low) }
}

impl Saved {
    /// The values to keep of the down projection of forward.
    fn of(low: Option<DownProjected>) -> Option<Saved> {
        low.map(|l| Saved { packed: l.packed, s: l.keep.then_some(l.s) })
    }
}

/// The arguments of backward.
pub(super) struct Backward<'a> {
    pub saved: &'a super::Saved,
    pub dy: &'a Tensor,
    /// W, whose rows may be padded.
    pub w: MatOperand,
    /// The output dx and the epilogue of its GEMM, if dx is wanted.
    pub dx: Option<(&'a Tensor, GemmEpilogue)>,
}

impl<'a> Backward<'a> {
    /// The arguments for W without padding.
    ///
    /// # Errors
    /// When W is not bf16.
    pub(super) fn of(
        saved: &'a super::Saved,
        dy: &'a Tensor,
        p: &LoraLinear,
        dx: Option<(&'a Tensor, GemmEpilogue)>,
    ) -> Result<Self> {
        let w = MatOperand::with(p.base.weight.matrix(), p.base.k())?;
        Ok(Backward { saved, dy, w, dx })
    }

    /// What forward saved, after checking that it fits these rows and adapters.
    fn saved(&self, total: usize) -> Result<Option<&'a Saved>> {
        let (dy, saved) = (self.dy.shape(), self.saved.gpu.as_ref());
        let shape_error = |right_name, right| {
            Err(Error::Shapes { op: "lora", left_name: "dy", left: dy, right_name, right })
        };
        if let Some(x) = self.saved.x.as_ref().filter(|x| x.shape().rows() != dy.rows()) {
            return shape_error("x", x.shape());
        }
        if let Some(s) = saved.and_then(|s| s.s.as_ref()).filter(|s| s.rows() != dy.rows()) {
            return shape_error("S", s.all.shape());
        }
        match saved {
            Some(s) if s.packed.total != total => shape_error("the adapters of forward", s.packed.b.shape()),
            None if total > 0 && dy.rows() > 0 => shape_error("the adapters of forward", [0, 0].into()),
            saved => Ok(saved.filter(|_| dy.rows() > 0)),
        }
    }
}

/// Computes dx if it is wanted, and adds the other gradients to `grads`.
pub(super) fn backward(
    cx: &Cx,
    gpu: &Gpu,
    from: &Backward,
    p: &LoraLinear,
    route: &Route,
    grads: Option<&Grads>,
) -> Result<()> {
    let (k, n, rows, dy) = (p.base.k(), p.base.n(), from.dy.shape().rows(), MatOperand::of(from.dy)?);
    let call = from.dx.as_ref().map(|(dx, epilogue)| -> Result<Gemm> {
        let call = Gemm::new(Layout::Nn, [rows, k, n], dy.clone(), from.w.clone(), base::activation(dx)?);
        Ok(Gemm { epilogue: epilogue.clone(), ..call })
    });
    let mut call = call.transpose()?;
    let chosen = p.adapters_of(route, rows)?;
    let (places, total) = places(&chosen);
    if let Some(Saved { packed, s }) = from.saved(total)? {
        let x = from.saved.x.as_ref();
        let (da, db) = grads.map_or(Ok((Vec::new(), Vec::new())), |g| targets(g, &places))?;
        let x = x.filter(|_| !da.is_empty());
        let mask = p.mask(route);
        let ds = if call.is_some() || x.is_some() {
            let words = ranges(route, &chosen, &places, 0);
            Some(Down { x: dy.clone(), rows, k: n, a: &packed.bt, words: &words, mask: None }.run(cx, gpu)?)
        } else {
            None
        };
        let mut sums = Vec::new();
        if let (Some(x), Some(ds)) = (x, &ds) {
            let t = Columns::whole(ds.clone());
            let partial = TransposedGemm { t: &t, x: MatOperand::of(x)?, cols: k, mask }.run(cx, gpu)?;
            sums.extend(da.into_iter().map(|target| Sum {
                partial: partial.clone(),
                target,
                transposed: false,
                scale: mask.map_or(1.0, |m| 1.0 / (1.0 - m.p)),
            }));
        }
        if let Some(s) = s.as_ref().filter(|_| !db.is_empty()) {
            let partial = TransposedGemm { t: s, x: dy, cols: n, mask: None }.run(cx, gpu)?;
            sums.extend(db.into_iter().map(|target| Sum {
                partial: partial.clone(),
                target,
                transposed: true,
                scale: 1.0,
            }));
        }
        add_sums(gpu, &sums)?;
        if let (Some(call), Some(ds)) = (&mut call, &ds) {
            call.low_rank =
                Some(LowRank { a: MatOperand::of(ds)?, b: MatOperand::of(&packed.a)?, k: total, mask });
            call.run(cx, gpu)?;
        }
    } else if let Some(call) = call {
        call.run(cx, gpu)?;
    }
    match grads {
        Some(grads) => base::add_grads(cx, gpu, from.saved.x.as_ref(), from.dy, &p.base, grads),
        None => Ok(()),
    }
}

/// The gradient of an adapter matrix, and the rows of the partial results that belong to it.
struct Target {
    grad: Region,
    first: usize,
    rank: usize,
}

/// Gradient targets of the trained A and B matrices.
fn targets(grads: &Grads, places: &[Placed]) -> Result<(Vec<Target>, Vec<Target>)> {
    let (mut da, mut db) = (Vec::new(), Vec::new());
    for &Placed { adapter, first, rank } in places {
        for (param, targets) in [(&adapter.a, &mut da), (&adapter.b, &mut db)] {
            if let Some(grad) = grads.view(param)? {
                targets.push(Target { grad: grad.region()?, first, rank });
            }
        }
    }
    Ok((da, db))
}

/// The GEMM tᵀ drop(x) for t [rows, total] and x [rows, cols], split along the rows: partial results [splits, total,
/// cols] in f32.
struct TransposedGemm<'a> {
    t: &'a Columns,
    x: MatOperand,
    cols: usize,
    mask: Option<Mask>,
}

impl TransposedGemm<'_> {
    fn run(&self, cx: &Cx, gpu: &Gpu) -> Result<Tensor> {
        let (rows, total) = (self.t.rows(), self.t.total);
        let name = match self.x.is_aligned() {
            true => "lora_grad_bf16_32x128",
            false => "lora_grad_bf16_32x128_any",
        };
        let mut launch = gpu.launch(name)?;
        let [tile_m, tile_n, _] = launch.spec().tile;
        let tiles = total.div_ceil(tile_m) * self.cols.div_ceil(tile_n);
        let splits = splits(gpu.sms(), tiles, rows.div_ceil(TILE_K), 4);
        let partial = cx.empty_f32([splits, total, self.cols])?;
        let t = self.t.mat()?;
        let params = params::Gemm {
            a: launch.read(t.region),
            b: launch.read(self.x.region.clone()),
            partial: launch.write(partial.region()?),
            mask: dropout_mask(cx, self.mask, &mut launch)?,
            m: total as i32,
            n: self.cols as i32,
            k: rows as i32,
            lda: t.ld as i32,
            ldb: self.x.ld as i32,
            splits: splits as i32,
            batch: 1,
            alpha: 1.0,
            ..params::Gemm::default()
        };
        launch.run([tiles, splits, 1], &params)?;
        Ok(partial)
    }
}

/// grad += scale·Σ of the partial results over the splits, for the rows of the target.
struct Sum {
    partial: Tensor,
    target: Target,
    transposed: bool,
    scale: f32,
}

fn add_sums(gpu: &Gpu, sums: &[Sum]) -> Result<()> {
    for group in sums.chunks(GRADS) {
        let mut launch = gpu.launch("lora_grad_add_f32")?;
        let threads = launch.spec().tile[0];
        let (mut params, mut elements) = (params::LoraGrads::default(), 0);
        for (params, sum) in params.of.iter_mut().zip(group) {
            let [splits, total, n] = [0, 1, 2].map(|d| sum.partial.shape().dims()[d]);
            *params = params::LoraGrad {
                partial: launch.read(sum.partial.region()?),
                grad: launch.update(sum.target.grad.clone()),
                splits: splits as i32,
                total: total as i32,
                first: sum.target.first as i32,
                rank: sum.target.rank as i32,
                n: n as i32,
                transposed: sum.transposed.into(),
                scale: sum.scale,
            };
            elements = elements.max(n * sum.target.rank);
        }
        launch.run([elements.div_ceil(threads), group.len(), 1], &params)?;
    }
    Ok(())
}
