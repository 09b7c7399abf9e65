//! GEMM on a GPU: the choice of the kernel, the number of blocks, and the splits of K (`kernels/gemm*.cu`).
//!
//! c = f(α(a b + a2 b2) + bias)·gelu′(slope) + residual, assigned or added to c. A GEMM with too few tiles to fill the
//! multiprocessors is split along K (split-K), and the partial results are added in order. The splits depend on shape
//! and device alone, so results are bit-identical from run to run.

use pheye_cpu::dropout::Mask;
use pheye_kernels::params::{self, DropoutMask};
use pheye_kernels::{In, Out};
use pheye_tensor::{BlasGemm, DType, GemmOperand, Gpu, Launch, Region, Tensor};

use super::typed;
use crate::gelu::{self, Gelu};
use crate::{Cx, Result};

/// The layout of the operands in memory, as in BLAS: N if K runs along the columns of the stored matrix, T if along its
/// rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// a [m, k], b [n, k].
    Nt,
    /// a [m, k], b [k, n].
    Nn,
    /// a [k, m], b [k, n].
    Tn,
}

/// A matrix operand in GPU memory: bf16, row-major with a row stride of `ld` elements.
#[derive(Debug, Clone)]
pub(crate) struct MatOperand {
    pub region: Region,
    pub ld: usize,
}

impl MatOperand {
    /// `t` as a matrix whose rows are its last dimension.
    ///
    /// # Errors
    /// When `t` is not bf16 or not on a GPU.
    pub(crate) fn of(t: &Tensor) -> Result<MatOperand> {
        MatOperand::with(t, t.shape().cols())
    }

    /// `t` as a matrix with `ld` columns.
    ///
    /// # Errors
    /// When `t` is not bf16 or not on a GPU.
    pub(crate) fn with(t: &Tensor, ld: usize) -> Result<MatOperand> {
        Ok(MatOperand { region: typed(t, DType::Bf16)?, ld })
    }

    /// Whether all rows start on 16-byte boundaries.
    pub(crate) fn is_aligned(&self) -> bool {
        aligned(&self.region) && self.ld.is_multiple_of(8)
    }
}

fn aligned(region: &Region) -> bool {
    region.addr().is_multiple_of(16)
}

/// The dropout mask in the form that kernels take. The RNG offset is in a table, so that recorded work can be replayed
/// with another offset.
pub(crate) fn dropout_mask(cx: &Cx, mask: Option<Mask>, launch: &mut Launch) -> Result<DropoutMask> {
    let Some(Mask { p, seed, rng_offset, module }) = mask else { return Ok(DropoutMask::default()) };
    Ok(DropoutMask { rng_offset: launch.read(cx.rng_offset(rng_offset)?), seed, module, p })
}

/// Operands a2 [m, k2] and b2, in the layouts of a and b.
#[derive(Debug, Clone)]
pub(crate) struct LowRank {
    pub a: MatOperand,
    pub b: MatOperand,
    pub k: usize,
    /// Dropout applied to a2 b2; only in layout [`Layout::Nn`].
    pub mask: Option<Mask>,
}

/// Rotary position embedding of the result, whose columns are heads of `head_dim` elements.
#[derive(Debug, Clone)]
pub(crate) struct RotateHeads {
    /// cos and sin for each position, f32 [positions, 2, rot / 2].
    pub angles: Region,
    /// The position of each row, u32.
    pub position: Region,
    pub head_dim: usize,
    pub rot: usize,
}

/// The epilogue, applied before the result is stored. The regions are bf16 with the shape of c; the bias is f32.
#[derive(Debug, Clone, Default)]
pub(crate) struct GemmEpilogue {
    pub bias: Option<Region>,
    pub activation: Option<Gelu>,
    /// Receives the pre-activation, if backward needs it.
    pub pre: Option<Region>,
    /// Multiplies by the derivative of this GELU at the values in the region.
    pub slope: Option<(Region, Gelu)>,
    pub residual: Option<Region>,
    /// Supported only by [`Gemm::run_several`] in a single launch.
    pub rotate: Option<RotateHeads>,
    /// The row of c for each row of the result, u32. Supported only by [`Gemm::run_several`] in a single launch.
    pub rows: Option<Region>,
}

/// The output c.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub region: Region,
    pub ld: usize,
    pub dtype: DType,
    /// `+=` instead of `=`; only for f32.
    pub add: bool,
}

/// A strided batch: GEMMs of one shape, with fixed strides between their operands and results, in elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub count: usize,
    pub strides: [usize; 3],
}

/// One GEMM, or a strided batch of them.
#[derive(Debug, Clone)]
pub(crate) struct Gemm {
    pub layout: Layout,
    /// m, n, k.
    pub dims: [usize; 3],
    pub a: MatOperand,
    pub b: MatOperand,
    pub low_rank: Option<LowRank>,
    pub alpha: f32,
    pub epilogue: GemmEpilogue,
    pub c: Output,
    pub batch: Option<Batch>,
}

impl Gemm {
    /// c = a b, with operands in `layout` and sizes m, n, k.
    pub(crate) fn new(layout: Layout, dims: [usize; 3], a: MatOperand, b: MatOperand, c: Output) -> Gemm {
        Gemm {
            layout,
            dims,
            a,
            b,
            low_rank: None,
            alpha: 1.0,
            epilogue: GemmEpilogue::default(),
            c,
            batch: None,
        }
    }
}

/// The maximum number of GEMMs in one launch.
const SEVERAL: usize = 4;

/// Values of the field `flags` of the kernels' parameters.
const F32: i32 = 1;
const ADD: i32 = 2;
const VECTORS: i32 = 4;

/// The kernels for a layout: large tiles, small tiles, and small tiles for unaligned operands.
fn kernels(layout: Layout) -> [&'static str; 3] {
    match layout {
        Layout::Nt => ["gemm_nt_bf16_128x128", "gemm_nt_bf16_64x64", "gemm_nt_bf16_64x64_any"],
        Layout::Nn => ["gemm_nn_bf16_128x128", "gemm_nn_bf16_64x64", "gemm_nn_bf16_64x64_any"],
        Layout::Tn => ["gemm_tn_bf16_128x128", "gemm_tn_bf16_64x64", "gemm_tn_bf16_64x64_any"],
    }
}

/// Depth of a tile along k.
pub(crate) const TILE_K: usize = 32;
/// Maximum M of the kernels for small M, for which the GEMM is bound by reading the weights.
const THIN: usize = 32;

/// The number of splits of K for `tiles_k` tiles along K and `tiles` tiles of c: enough for two blocks per
/// multiprocessor, with at least `least` tiles of K in each split.
pub(crate) fn splits(sms: usize, tiles: usize, tiles_k: usize, least: usize) -> usize {
    if tiles >= sms { 1 } else { (2 * sms / tiles.max(1)).clamp(1, (tiles_k / least).max(1)) }
}

impl Gemm {
    /// Whether all operands can be read with 16-byte loads.
    fn is_aligned(&self) -> bool {
        let strides = self.batch.is_none_or(|b| b.strides[..2].iter().all(|s| s.is_multiple_of(8)));
        let low = self.low_rank.as_ref().is_none_or(|l| l.a.is_aligned() && l.b.is_aligned());
        self.a.is_aligned() && self.b.is_aligned() && strides && low
    }

    /// Whether the result and the tensors of the epilogue can be accessed 16 bytes at a time.
    fn is_vectorizable(&self) -> bool {
        let e = &self.epilogue;
        let slope = e.slope.as_ref().map(|(region, _)| region);
        let regions = [Some(&self.c.region), e.pre.as_ref(), e.residual.as_ref(), slope];
        let stride = self.batch.map_or(0, |b| b.strides[2]);
        let [ld, stride] = [self.c.ld, stride].map(|x| x.is_multiple_of(8));
        ld && stride && regions.into_iter().flatten().all(aligned)
    }

    /// The GEMM as a BLAS call, if nothing is fused into it.
    fn as_blas(&self) -> Option<BlasGemm> {
        let e = &self.epilogue;
        let fused = e.bias.is_some() || e.activation.is_some() || e.pre.is_some() || e.slope.is_some();
        if fused
            || e.residual.is_some()
            || e.rotate.is_some()
            || e.rows.is_some()
            || self.low_rank.is_some()
            || self.batch.is_some()
            || self.dims[2] == 0
        {
            return None;
        }
        let operand =
            |m: &MatOperand, transposed| GemmOperand { region: m.region.clone(), ld: m.ld, transposed };
        Some(BlasGemm {
            dims: self.dims,
            a: operand(&self.a, self.layout == Layout::Tn),
            b: operand(&self.b, self.layout == Layout::Nt),
            c: self.c.region.clone(),
            ldc: self.c.ld,
            wide: self.c.dtype == DType::F32,
            alpha: self.alpha,
            beta: if self.c.add { 1.0 } else { 0.0 },
        })
    }

    fn count(&self) -> usize {
        self.batch.map_or(1, |b| b.count)
    }

    /// The parameters without the addresses.
    fn params(&self, splits: usize) -> params::Gemm {
        let ([m, n, k], [sa, sb, sc]) = (self.dims, self.batch.map_or([0; 3], |b| b.strides));
        let low = self.low_rank.as_ref();
        let flag = |on, bit| if on { bit } else { 0 };
        params::Gemm {
            stride_a: sa as i64,
            stride_b: sb as i64,
            stride_c: sc as i64,
            m: m as i32,
            n: n as i32,
            k: k as i32,
            k2: low.map_or(0, |l| l.k as i32),
            lda: self.a.ld as i32,
            ldb: self.b.ld as i32,
            lda2: low.map_or(0, |l| l.a.ld as i32),
            ldb2: low.map_or(0, |l| l.b.ld as i32),
            ldc: self.c.ld as i32,
            splits: splits as i32,
            batch: self.count() as i32,
            flags: flag(self.c.dtype == DType::F32, F32)
                | flag(self.c.add, ADD)
                | flag(self.is_vectorizable(), VECTORS),
            activation: self.epilogue.activation.map_or(0, gelu::number),
            head_dim: self.epilogue.rotate.as_ref().map_or(0, |r| r.head_dim as i32),
            rot: self.epilogue.rotate.as_ref().map_or(0, |r| r.rot as i32),
            slope_kind: self.epilogue.slope.as_ref().map_or(0, |(_, kind)| gelu::number(*kind)),
            alpha: self.alpha,
            ..params::Gemm::default()
        }
    }

    /// Declares the operands to the launch and fills in their addresses.
    fn set_operands(&self, cx: &Cx, p: &mut params::Gemm, launch: &mut Launch) -> Result<()> {
        p.a = launch.read(self.a.region.clone());
        p.b = launch.read(self.b.region.clone());
        if let Some(low) = &self.low_rank {
            p.a2 = launch.read(low.a.region.clone());
            p.b2 = launch.read(low.b.region.clone());
            p.mask = dropout_mask(cx, low.mask, launch)?;
        }
        Ok(())
    }

    /// Declares the result and the tensors of the epilogue to the launch and fills in their addresses.
    fn set_results(&self, p: &mut params::Gemm, launch: &mut Launch) {
        let ([m, n, _], e) = (self.dims, &self.epilogue);
        let whole = e.rows.is_none() && self.c.ld == n && self.batch.is_none_or(|b| b.strides[2] == m * n);
        let c = self.c.region.clone();
        p.c = if self.c.add || !whole { launch.update(c) } else { launch.write(c) };
        p.pre = e.pre.clone().map_or(Out::NULL, |r| launch.write(r));
        p.bias = e.bias.clone().map_or(In::NULL, |r| launch.read(r));
        p.residual = e.residual.clone().map_or(In::NULL, |r| launch.read(r));
        p.slope = e.slope.clone().map_or(In::NULL, |(r, _)| launch.read(r));
        p.to = e.rows.clone().map_or(In::NULL, |r| launch.read(r));
        if let Some(rotate) = &e.rotate {
            (p.angles, p.position) =
                (launch.read(rotate.angles.clone()), launch.read(rotate.position.clone()));
        }
    }

    /// Launches the GEMM.
    ///
    /// # Errors
    /// When the launch fails, or there is no memory for the partial results.
    pub(crate) fn run(&self, cx: &Cx, gpu: &Gpu) -> Result<()> {
        let ([m, n, k], batch) = (self.dims, self.count());
        if m * n * batch == 0 {
            return Ok(());
        }
        if gpu.prefers_blas()
            && let Some(blas) = self.as_blas()
            && gpu.blas(&blas)?
        {
            return Ok(());
        }
        let sms = gpu.sms();
        if self.is_thin() {
            return self.run_thin(cx, gpu);
        }
        let [large, small, any] = kernels(self.layout);
        let (tiles_k, tiles) = (k.div_ceil(TILE_K), |t: usize| m.div_ceil(t) * n.div_ceil(t) * batch);
        let (name, splits) = match self.is_aligned() {
            true if self.is_large(sms) => (large, splits(sms, tiles(128), tiles_k, 8)),
            true => (small, splits(sms, tiles(64), tiles_k, 4)),
            false => (any, splits(sms, tiles(64), tiles_k, 4)),
        };
        let mut launch = gpu.launch(name)?;
        let [tile_m, tile_n, _] = launch.spec().tile;
        let grid = [m.div_ceil(tile_m) * n.div_ceil(tile_n), splits, batch];
        let mut p = self.params(splits);
        self.set_operands(cx, &mut p, &mut launch)?;
        if splits == 1 {
            self.set_results(&mut p, &mut launch);
            return Ok(launch.run(grid, &p)?);
        }
        let partial = cx.empty_f32([splits, batch, m, n])?;
        p.partial = launch.write(partial.region()?);
        launch.run(grid, &p)?;
        self.reduce(gpu, &partial, splits)
    }

    /// Adds the partial results of the splits in order and applies the epilogue.
    fn reduce(&self, gpu: &Gpu, partial: &Tensor, splits: usize) -> Result<()> {
        let mut launch = gpu.launch("gemm_reduce_f32")?;
        let [threads, width, _] = launch.spec().tile;
        let mut p = self.params(splits);
        p.partial = launch.read(partial.region()?).shared();
        self.set_results(&mut p, &mut launch);
        let blocks = (self.dims[0] * self.dims[1].div_ceil(width)).div_ceil(threads);
        Ok(launch.run([blocks, 1, self.count()], &p)?)
    }

    /// Whether this is y = x Wᵀ with operands that can be read with 16-byte loads.
    fn is_forward(&self) -> bool {
        self.layout == Layout::Nt && self.is_aligned() && self.batch.is_none()
    }

    /// Whether it is memory-bound (small M).
    fn is_thin(&self) -> bool {
        self.is_forward() && self.dims[0] <= THIN && self.dims[2].is_multiple_of(8) && self.low_rank.is_none()
    }

    /// Whether tiles of 128×128 fill the device.
    fn is_large(&self, sms: usize) -> bool {
        let [m, n, k] = self.dims;
        let tiles = m.div_ceil(128) * n.div_ceil(128) * self.count();
        m > 64 && n > 64 && (tiles >= sms || tiles * k.div_ceil(TILE_K) >= 32 * sms)
    }

    /// Runs GEMMs that share operand a: in one launch if that fills the device better, otherwise one after another.
    ///
    /// # Errors
    /// When a launch fails, or there is no memory for partial results.
    pub(crate) fn run_several(calls: &[Gemm], cx: &Cx, gpu: &Gpu) -> Result<()> {
        let Some(kernel) = Gemm::kernel_for_several(calls, gpu) else {
            return calls.iter().try_for_each(|call| call.run(cx, gpu));
        };
        let mut launch = gpu.launch(kernel)?;
        let [tile_a, tile_b, _] = launch.spec().tile;
        let mut p = params::GemmSeveral { first: [i32::MAX; SEVERAL], ..Default::default() };
        let mut blocks = 0;
        for ((call, p), first) in calls.iter().zip(&mut p.of).zip(&mut p.first) {
            *p = call.params(1);
            call.set_operands(cx, p, &mut launch)?;
            call.set_results(p, &mut launch);
            *first = blocks as i32;
            let [m, n, _] = call.dims;
            // The kernels for small M give their tile size as (N, M), and one tile covers all of M.
            blocks +=
                if call.is_thin() { n.div_ceil(tile_a) } else { m.div_ceil(tile_a) * n.div_ceil(tile_b) };
        }
        Ok(launch.run([blocks, 1, 1], &p)?)
    }

    /// The kernel that runs the GEMMs in one launch, if one launch fills the device better.
    pub(crate) fn kernel_for_several(calls: &[Gemm], gpu: &Gpu) -> Option<&'static str> {
        let m = calls.first()?.dims[0];
        let fits = |c: &Gemm| c.is_forward() && c.dims[0] == m && c.dims[1] > 0;
        if !(2..=SEVERAL).contains(&calls.len()) || gpu.prefers_blas() || !calls.iter().all(fits) {
            return None;
        }
        let all = |f: fn(&Gemm, usize) -> bool| calls.iter().all(|c| f(c, gpu.sms()));
        let tiles = |c: &Gemm| m.div_ceil(64) * c.dims[1].div_ceil(64);
        match m {
            0 => None,
            _ if all(|c, _| c.is_thin()) => {
                Some(if m <= 8 { "gemm_thin_bf16_8_several" } else { "gemm_thin_bf16_32_several" })
            }
            _ if all(Gemm::is_large) => Some("gemm_nt_bf16_128x128_several"),
            // With fewer blocks, each GEMM alone would be split along K.
            _ if all(|c, sms| !c.is_thin() && !c.is_large(sms))
                && calls.iter().map(tiles).sum::<usize>() >= gpu.sms() =>
            {
                Some("gemm_nt_bf16_64x64_several")
            }
            _ => None,
        }
    }

    fn run_thin(&self, cx: &Cx, gpu: &Gpu) -> Result<()> {
        let [m, n, _] = self.dims;
        let mut launch = gpu.launch(if m <= 8 { "gemm_thin_bf16_8" } else { "gemm_thin_bf16_32" })?;
        let [tile_n, tile_m, _] = launch.spec().tile;
        let mut p = self.params(1);
        self.set_operands(cx, &mut p, &mut launch)?;
        self.set_results(&mut p, &mut launch);
        Ok(launch.run([n.div_ceil(tile_n), m.div_ceil(tile_m), 1], &p)?)
    }
}

/// `sums[j]` += Σ of column j of x [rows, n], for bf16 x.
///
/// # Errors
/// When the launch fails, or there is no memory for the partial sums.
pub(crate) fn add_column_sums(cx: &Cx, gpu: &Gpu, sums: Region, x: &Tensor) -> Result<()> {
    let (rows, n) = (x.shape().rows(), x.shape().cols());
    if rows * n == 0 {
        return Ok(());
    }
    let mut launch = gpu.launch("column_sums_bf16")?;
    let tiles = n.div_ceil(launch.spec().tile[0]);
    let splits = (4 * gpu.sms() / tiles).clamp(1, rows.div_ceil(64));
    let partial = cx.empty_f32([splits, n])?;
    let x = MatOperand::of(x)?;
    let p = params::ColumnSums {
        x: launch.read(x.region.clone()),
        partial: launch.write(partial.region()?),
        rows: rows as i32,
        n: n as i32,
        splits: splits as i32,
    };
    launch.run([tiles, splits, 1], &p)?;
    let c = Output { region: sums, ld: n, dtype: DType::F32, add: true };
    Gemm::new(Layout::Tn, [1, n, rows], x.clone(), x, c).reduce(gpu, &partial, splits)
}

#[cfg(all(test, feature = "emulator"))]
#[path = "gemm_tests.rs"]
mod tests;
