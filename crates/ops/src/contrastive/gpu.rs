//! The contrastive loss on a GPU. All intermediate values are f32, in scratch memory.

use pheye_kernels::params::{
    ContrastiveBack, ContrastiveGemm, ContrastiveGrad, ContrastiveLines, ContrastiveSum, ContrastiveUnit,
};
use pheye_tensor::{DType, Gpu, Region, Shape, Tensor};

use super::Loss;
use crate::gpu::{by_dtype, typed};
use crate::{Cx, Result};

/// The caption of each image, the number of images of each caption, and the weight of each row and column in the loss.
struct Pairs {
    labels: Region,
    counts: Region,
    b: usize,
    c: usize,
    by_image: f32,
    by_caption: f32,
}

pub(super) fn run(
    cx: &Cx,
    gpu: &Gpu,
    images: &Tensor,
    texts: &Tensor,
    labels: &[usize],
    log_scale: f32,
) -> Result<Loss> {
    let mut counts = vec![0u32; texts.shape().rows()];
    labels.iter().for_each(|&label| counts[label] += 1);
    let captions = counts.iter().filter(|&&n| n > 0).count();
    let words: Vec<u32> = labels.iter().map(|&label| label as u32).collect();
    let pairs = Pairs {
        labels: cx.table(&words)?,
        counts: cx.table(&counts)?,
        b: labels.len(),
        c: counts.len(),
        by_image: (0.5 / labels.len() as f64) as f32,
        by_caption: (0.5 / captions.max(1) as f64) as f32,
    };
    let scale = log_scale.exp();
    let (i, t) = (UnitRows::new(cx, gpu, images)?, UnitRows::new(cx, gpu, texts)?);
    let z = gemm(cx, gpu, scale, Matrix::of(&i.rows), Matrix::of(&t.rows).transposed())?;
    let stats = softmax_stats(cx, gpu, &z, &pairs)?;
    let (dz, dots) = grad(cx, gpu, &z, &stats, &pairs)?;
    let dimages = gemm(cx, gpu, scale, Matrix::of(&dz), Matrix::of(&t.rows))?;
    let dtexts = gemm(cx, gpu, scale, Matrix::of(&dz).transposed(), Matrix::of(&i.rows))?;
    let (dimages, dtexts) = (i.backward(cx, gpu, &dimages, images)?, t.backward(cx, gpu, &dtexts, texts)?);
    let result = sum(cx, gpu, &stats, &dots)?.to_vec_f32()?;
    Ok(Loss { loss: result[0].into(), dimages, dtexts, dlog_scale: result[1] })
}

/// The rows of a matrix normalised to length 1, and their original lengths.
struct UnitRows {
    rows: Tensor,
    lengths: Tensor,
}

impl UnitRows {
    fn new(cx: &Cx, gpu: &Gpu, x: &Tensor) -> Result<UnitRows> {
        let (n, d) = (x.shape().rows(), x.shape().cols());
        let unit = UnitRows { rows: cx.empty_f32([n, d])?, lengths: cx.empty_f32([n])? };
        let mut l = gpu.launch(by_dtype(x.dtype(), "contrastive_unit_bf16", "contrastive_unit_f32")?)?;
        let p = ContrastiveUnit {
            x: l.read(x.region()?),
            u: l.write(unit.rows.region()?),
            length: l.write(unit.lengths.region()?),
            d: d as i32,
        };
        l.run([n, 1, 1], &p)?;
        Ok(unit)
    }

    /// The gradient of `x`, with its shape, from that of the normalised rows.
    fn backward(&self, cx: &Cx, gpu: &Gpu, du: &Tensor, x: &Tensor) -> Result<Tensor> {
        let dx = cx.empty_as(x.shape(), x.dtype())?;
        let (n, d) = (x.shape().rows(), x.shape().cols());
        let mut l = gpu.launch(by_dtype(dx.dtype(), "contrastive_back_bf16", "contrastive_back_f32")?)?;
        let p = ContrastiveBack {
            du: l.read(du.region()?),
            u: l.read(self.rows.region()?),
            length: l.read(self.lengths.region()?),
            dx: l.write(dx.region()?),
            d: d as i32,
        };
        l.run([n, 1, 1], &p)?;
        Ok(dx)
    }
}

/// A row-major matrix or its transpose, given by shape and strides.
struct Matrix<'a> {
    tensor: &'a Tensor,
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    fn of(tensor: &'a Tensor) -> Matrix<'a> {
        let shape = tensor.shape();
        Matrix { tensor, shape: [shape.rows(), shape.cols()], strides: [shape.cols(), 1] }
    }

    fn transposed(self) -> Matrix<'a> {
        let ([m, n], [row, col]) = (self.shape, self.strides);
        Matrix { shape: [n, m], strides: [col, row], ..self }
    }
}

/// The GEMM scale·a·b.
fn gemm(cx: &Cx, gpu: &Gpu, scale: f32, a: Matrix, b: Matrix) -> Result<Tensor> {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    let out = cx.empty_f32(Shape::from([m, n]))?;
    let mut l = gpu.launch("contrastive_gemm_f32")?;
    let p = ContrastiveGemm {
        a: l.read(typed(a.tensor, DType::F32)?),
        b: l.read(typed(b.tensor, DType::F32)?),
        out: l.write(out.region()?),
        m: m as i32,
        n: n as i32,
        k: k as i32,
        a_row: a.strides[0] as i32,
        a_col: a.strides[1] as i32,
        b_row: b.strides[0] as i32,
        b_col: b.strides[1] as i32,
        scale,
    };
    let [rows, cols, _] = l.spec().tile;
    l.run([n.div_ceil(cols), m.div_ceil(rows), 1], &p)?;
    Ok(out)
}

/// Maximum, Σ exp and loss of each row of z, then of each column.
fn softmax_stats(cx: &Cx, gpu: &Gpu, z: &Tensor, pairs: &Pairs) -> Result<Tensor> {
    let lines = cx.empty_f32([pairs.b + pairs.c, 3])?;
    let mut l = gpu.launch("contrastive_lines_f32")?;
    let p = ContrastiveLines {
        z: l.read(z.region()?),
        labels: l.read(pairs.labels.clone()),
        counts: l.read(pairs.counts.clone()),
        lines: l.write(lines.region()?),
        b: pairs.b as i32,
        c: pairs.c as i32,
        by_image: pairs.by_image,
        by_caption: pairs.by_caption,
    };
    l.run([pairs.b + pairs.c, 1, 1], &p)?;
    Ok(lines)
}

/// dz [b, c], and Σ z·dz of each row.
fn grad(cx: &Cx, gpu: &Gpu, z: &Tensor, lines: &Tensor, pairs: &Pairs) -> Result<(Tensor, Tensor)> {
    let (dz, dots) = (cx.empty_f32(z.shape())?, cx.empty_f32([pairs.b])?);
    let mut l = gpu.launch("contrastive_grad_f32")?;
    let p = ContrastiveGrad {
        z: l.read(z.region()?),
        labels: l.read(pairs.labels.clone()),
        counts: l.read(pairs.counts.clone()),
        lines: l.read(lines.region()?),
        dz: l.write(dz.region()?),
        dots: l.write(dots.region()?),
        b: pairs.b as i32,
        c: pairs.c as i32,
        by_image: pairs.by_image,
        by_caption: pairs.by_caption,
    };
    l.run([pairs.b, 1, 1], &p)?;
    Ok((dz, dots))
}

/// The loss and the gradient of log_scale, summed over rows and columns.
fn sum(cx: &Cx, gpu: &Gpu, lines: &Tensor, dots: &Tensor) -> Result<Tensor> {
    let result = cx.empty_f32([2])?;
    let b = dots.shape().elements();
    let mut l = gpu.launch("contrastive_sum_f32")?;
    let p = ContrastiveSum {
        lines: l.read(lines.region()?),
        dots: l.read(dots.region()?),
        result: l.write(result.region()?),
        b: b as i32,
        c: (lines.shape().rows() - b) as i32,
    };
    l.run([1, 1, 1], &p)?;
    Ok(result)
}
