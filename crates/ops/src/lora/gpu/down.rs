//! The down projection S = s·drop(x) Aᵀ of LoRA on a GPU, for one linear or for several that take the same x. The
//! matrices A of all adapters of a route are stacked, each rank padded to a multiple of 8, so that one launch serves
//! all rows. S [rows, total] is zero where a row does not use the adapter of a column.

use pheye_cpu::dropout::Mask;
use pheye_kernels::Out;
use pheye_kernels::params::{self, LoraAdapter, LoraPack, LoraSelect};
use pheye_tensor::{DType, Gpu, Tensor};

use super::super::{Adapter, LoraLinear, Route, rank};
use crate::gpu::gemm::{MatOperand, dropout_mask};
use crate::gpu::typed;
use crate::layernorm::{self, LayerNorm, LoraDown};
use crate::{Cx, Error, Result};

/// Maximum number of adapters that one launch packs.
const PACKED: usize = 4;

/// Columns `first .. first + total` of the matrix `all`, which holds S [rows, total] of one or more linears.
#[derive(Debug, Clone)]
pub(in crate::lora) struct Columns {
    pub all: Tensor,
    pub first: usize,
    pub total: usize,
}

impl Columns {
    /// All columns of `all`.
    pub(crate) fn whole(all: Tensor) -> Columns {
        let total = all.shape().cols();
        Columns { all, first: 0, total }
    }

    /// Number of rows of S.
    pub(crate) fn rows(&self) -> usize {
        self.all.shape().rows()
    }

    /// S as an operand of a GEMM.
    pub(crate) fn mat(&self) -> Result<MatOperand> {
        let ld = self.all.shape().cols();
        let len = (self.rows().max(1) - 1) * ld + self.total;
        MatOperand::with(&self.all.view(self.first, [len])?, ld)
    }
}

/// The computed down projection of a linear and its packed adapters. The linear is then a single GEMM.
#[derive(Debug)]
pub(in crate::lora) struct DownProjected {
    pub packed: PackedAdapters,
    pub s: Columns,
    /// Whether backward needs S, because some B is trained.
    pub keep: bool,
}

impl DownProjected {
    /// Checks that its shapes fit x and p.
    pub(crate) fn check(&self, x: &Tensor, p: &LoraLinear) -> Result<()> {
        let shape_error = |left_name, left, right_name, right| {
            Err(Error::Shapes { op: "lora", left_name, left, right_name, right })
        };
        if self.s.rows() != x.shape().rows() {
            return shape_error("x", x.shape(), "S", self.s.all.shape());
        }
        if self.packed.b.shape().rows() != p.base.n() {
            return shape_error("B", self.packed.b.shape(), "weight", p.base.weight.shape());
        }
        Ok(())
    }
}

/// An adapter of the route, and the columns of S that belong to it.
#[derive(Debug, Clone, Copy)]
pub(in crate::lora) struct Placed<'a> {
    pub adapter: &'a Adapter,
    pub first: usize,
    pub rank: usize,
}

/// The adapters of a route, packed into one matrix each for A, B and Bᵀ.
#[derive(Debug, Clone)]
pub(in crate::lora) struct PackedAdapters {
    /// [total, k padded to a multiple of 8].
    pub a: Tensor,
    /// [n, total].
    pub b: Tensor,
    /// [total, n padded to a multiple of 8].
    pub bt: Tensor,
    pub total: usize,
}

/// The distinct adapters that are chosen, with their columns, and the total number of columns.
pub(in crate::lora) fn places<'a>(chosen: &[Option<&'a Adapter>]) -> (Vec<Placed<'a>>, usize) {
    let (mut places, mut total) = (Vec::<Placed>::new(), 0);
    for &adapter in chosen.iter().flatten() {
        if !places.iter().any(|p| std::ptr::eq(p.adapter, adapter)) {
            let rank = rank(&adapter.a);
            places.push(Placed { adapter, first: total, rank });
            total += rank.next_multiple_of(8);
        }
    }
    (places, total)
}

/// Six u32 per range: first row, end row, first column, end column, the bits of s, 0 (`kernels/fused/lora_down.cu`).
pub(in crate::lora) fn ranges(
    route: &Route,
    chosen: &[Option<&Adapter>],
    places: &[Placed],
    first: usize,
) -> Vec<u32> {
    let mut words = Vec::with_capacity(route.ranges.len() * 6);
    for (range, adapter) in route.ranges.iter().zip(chosen) {
        let Some(adapter) = adapter else { continue };
        let Some(place) = places.iter().find(|p| std::ptr::eq(p.adapter, *adapter)) else { continue };
        let cols = first + place.first..first + place.first + place.rank;
        words.extend([range.rows.start, range.rows.end, cols.start, cols.end].map(|x| x as u32));
        words.extend([adapter.scale.to_bits(), 0]);
    }
    words
}

impl PackedAdapters {
    /// Packs the adapters of one linear. A is packed into `a` [total, k padded].
    fn new(cx: &Cx, gpu: &Gpu, p: &LoraLinear, places: &[Placed], a: Tensor) -> Result<PackedAdapters> {
        let (k, n, total) = (p.base.k(), p.base.n(), a.shape().rows());
        let (ka, nt) = (a.shape().cols(), n.next_multiple_of(8));
        let packed = PackedAdapters { a, b: cx.empty([n, total])?, bt: cx.empty([total, nt])?, total };
        for group in places.chunks(PACKED) {
            let mut launch = gpu.launch("lora_pack_bf16")?;
            let threads = launch.spec().tile[0];
            let all = places.len() <= PACKED;
            let mut to = |t: &Tensor| -> Result<Out> {
                let region = t.region()?;
                Ok(if all { launch.write(region) } else { launch.update(region) })
            };
            let (a, b, bt) = (to(&packed.a)?, to(&packed.b)?, to(&packed.bt)?);
            let mut of = [LoraAdapter::default(); PACKED];
            for (of, place) in of.iter_mut().zip(group) {
                let Adapter { a, b, .. } = place.adapter;
                *of = LoraAdapter {
                    a: launch.read(typed(a.matrix(), DType::Bf16)?),
                    b: launch.read(typed(b.matrix(), DType::Bf16)?),
                    rank: place.rank as i32,
                    first: place.first as i32,
                };
            }
            let [k, n, total, ka, nt] = [k, n, total, ka, nt].map(|x| x as i32);
            let params = LoraPack { of, a, b, bt, k, n, total, ka, nt };
            let widest = group.iter().map(|p| p.rank.next_multiple_of(8)).max().unwrap_or(0);
            let elements = widest * (ka + n + nt) as usize;
            launch.run([elements.div_ceil(threads), group.len(), 1], &params)?;
        }
        Ok(packed)
    }
}

/// The GEMM S = s·drop(x) Aᵀ for x [rows, k], where `words` gives the scale of each range.
pub(in crate::lora) struct Down<'a> {
    pub x: MatOperand,
    pub rows: usize,
    pub k: usize,
    pub a: &'a Tensor,
    pub words: &'a [u32],
    pub mask: Option<Mask>,
}

impl Down<'_> {
    /// Launches the GEMM and returns S.
    pub(crate) fn run(&self, cx: &Cx, gpu: &Gpu) -> Result<Tensor> {
        let total = self.a.shape().rows();
        let s = cx.empty([self.rows, total])?;
        let a = MatOperand::of(self.a)?;
        let name = match self.x.is_aligned() && self.k.is_multiple_of(8) {
            true if total <= 16 => "lora_down_bf16_16",
            true => "lora_down_bf16_32",
            false => "lora_down_bf16_32_any",
        };
        let mut launch = gpu.launch(name)?;
        let [tile_rows, tile_cols, _] = launch.spec().tile;
        let params = params::LoraDown {
            x: launch.read(self.x.region.clone()),
            a: launch.read(a.region),
            s: launch.write(s.region()?),
            ranges: launch.read(cx.table(self.words)?),
            mask: dropout_mask(cx, self.mask, &mut launch)?,
            rows: self.rows as i32,
            k: self.k as i32,
            rank: total as i32,
            count: (self.words.len() / 6) as i32,
            ld_x: self.x.ld as i32,
            ld_a: a.ld as i32,
        };
        launch.run([total.div_ceil(tile_cols), self.rows.div_ceil(tile_rows), 1], &params)?;
        Ok(s)
    }
}

/// The packed adapters of linears that take the same x, with all their A stacked in `a`.
struct StackedAdapters {
    a: Tensor,
    packed: Vec<PackedAdapters>,
    words: Vec<u32>,
    keep: Vec<bool>,
}

impl StackedAdapters {
    /// `None` if there is nothing to compute, if one of the linears has no adapter on these rows, or if their widths
    /// differ.
    fn new(
        cx: &Cx,
        gpu: &Gpu,
        ps: &[&LoraLinear],
        route: &Route,
        rows: usize,
    ) -> Result<Option<StackedAdapters>> {
        let chosen: Vec<_> = ps.iter().map(|p| p.adapters_of(route, rows)).collect::<Result<_>>()?;
        let places: Vec<_> = chosen.iter().map(|c| places(c)).collect();
        let Some(k) = ps.first().map(|p| p.base.k()) else { return Ok(None) };
        if rows == 0 || places.iter().any(|p| p.1 == 0) || ps.iter().any(|p| p.base.k() != k) {
            return Ok(None);
        }
        let ka = k.next_multiple_of(8);
        let a = cx.empty([places.iter().map(|p| p.1).sum(), ka])?;
        let (mut packed, mut words, mut keep, mut first) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for ((p, chosen), (places, total)) in ps.iter().zip(&chosen).zip(&places) {
            packed.push(PackedAdapters::new(cx, gpu, p, places, a.view(first * ka, [*total, ka])?)?);
            words.extend(ranges(route, chosen, places, first));
            keep.push(places.iter().any(|p| p.adapter.b.is_trained()));
            first += total;
        }
        Ok(Some(StackedAdapters { a, packed, words, keep }))
    }

    /// Splits S [rows, all columns] among the linears.
    fn with(self, s: &Tensor) -> Vec<DownProjected> {
        let mut first = 0;
        let lows = self.packed.into_iter().zip(self.keep).map(|(packed, keep)| {
            let part = Columns { all: s.clone(), first, total: packed.total };
            first += packed.total;
            DownProjected { packed, s: part, keep }
        });
        lows.collect()
    }
}

/// The down projections of `ps` for x, in one pass over x; with dropout in one pass per linear, because each has its
/// own mask. Empty if [`super::forward`] has to compute them.
pub(in crate::lora) fn of_input(
    cx: &Cx,
    gpu: &Gpu,
    x: &Tensor,
    ps: &[&LoraLinear],
    route: &Route,
) -> Result<Vec<DownProjected>> {
    let rows = x.shape().rows();
    if ps.len() > 1 && ps.iter().any(|p| p.mask(route).is_some()) {
        let each = ps.iter().map(|p| of_input(cx, gpu, x, &[p], route)).collect::<Result<Vec<_>>>()?;
        return Ok(if each.iter().all(|e| e.len() == 1) {
            each.into_iter().flatten().collect()
        } else {
            Vec::new()
        });
    }
    let Some(stack) = StackedAdapters::new(cx, gpu, ps, route, rows)? else { return Ok(Vec::new()) };
    let mask = ps.first().and_then(|p| p.mask(route));
    let k = ps.first().map_or(0, |p| p.base.k());
    let down = Down { x: MatOperand::of(x)?, rows, k, a: &stack.a, words: &stack.words, mask };
    let s = down.run(cx, gpu)?;
    Ok(stack.with(&s))
}

/// LayerNorm fused with the down projections of `ps` for its result. `None` with dropout, or if the shapes are not
/// supported.
pub(in crate::lora) fn of_norm(
    cx: &Cx,
    gpu: &Gpu,
    x: &Tensor,
    norm: &LayerNorm,
    ps: &[&LoraLinear],
    route: &Route,
) -> Result<Option<(LoraDown, Vec<DownProjected>)>> {
    let rows = x.shape().rows();
    let padded = !x.shape().cols().is_multiple_of(8);
    if padded || ps.iter().any(|p| p.mask(route).is_some() || p.base.k() != x.shape().cols()) {
        return Ok(None);
    }
    let Some(stack) = StackedAdapters::new(cx, gpu, ps, route, rows)? else { return Ok(None) };
    let down = layernorm::forward_lora_down(cx, x, norm, &stack.a)?;
    let mut launch = gpu.launch("lora_select_bf16")?;
    let threads = launch.spec().tile[0];
    let total = stack.a.shape().rows();
    let params = LoraSelect {
        s: launch.update(typed(&down.s, DType::Bf16)?),
        ranges: launch.read(cx.table(&stack.words)?),
        rows: rows as i32,
        rank: total as i32,
        count: (stack.words.len() / 6) as i32,
    };
    launch.run([(rows * total).div_ceil(threads), 1, 1], &params)?;
    let lows = stack.with(&down.s);
    Ok(Some((down, lows)))
}
