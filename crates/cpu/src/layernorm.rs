//! LayerNorm over the rows of a matrix. Forward saves the mean and the reciprocal standard deviation of each
//! row for backward.

use crate::math::{sum, vectorised};
use crate::par;

/// Elements of one piece. The rows of a piece are summed by one thread for the gradients of weight and bias.
const PIECE: usize = 1 << 13;

/// The number of rows in a piece of a matrix with `cols` columns.
pub fn piece_rows(cols: usize) -> usize {
    (PIECE / cols.max(1)).max(8)
}

/// y = (x - mean)·rstd·weight + bias for each row of x [rows, d]. `stats` [rows, 2] receives mean and rstd =
/// 1/√(var + ε).
pub fn forward(y: &mut [f32], stats: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
    let d = weight.len();
    if d == 0 {
        return;
    }
    let rows = piece_rows(d);
    par::pieces(y.chunks_mut(rows * d).zip(stats.chunks_mut(rows * 2)), 2 * x.len(), |i, (y, stats)| {
        forward_rows(y, stats, &x[i * rows * d..], weight, bias, eps);
    });
}

/// The inputs of [`backward`].
#[derive(Debug, Clone, Copy)]
pub struct Backward<'a> {
    /// Gradient of the output, [rows, d].
    pub dy: &'a [f32],
    /// Input, [rows, d].
    pub x: &'a [f32],
    /// Mean and rstd of each row, [rows, 2].
    pub stats: &'a [f32],
    /// The weight, `[d]`.
    pub weight: &'a [f32],
    /// A gradient to add to dx, [rows, d].
    pub plus: Option<&'a [f32]>,
}

/// dx = rstd·(g - mean(g) - x̂·mean(g·x̂)) + plus, with g = dy·weight and x̂ = (x - mean)·rstd.
///
/// `partial` [pieces, 2, d], unless it is empty, receives Σ dy·x̂ and Σ dy over the rows of each piece of
/// [`piece_rows`] rows: the partial gradients of weight and bias.
pub fn backward(dx: &mut [f32], partial: &mut [f32], from: Backward) {
    let d = from.weight.len();
    if d == 0 {
        return;
    }
    let rows = piece_rows(d);
    let run = |i: usize, dx: &mut [f32], partial: &mut [f32]| {
        let at = i * rows;
        let piece =
            Backward { dy: &from.dy[at * d..], x: &from.x[at * d..], stats: &from.stats[at * 2..], ..from };
        backward_rows(dx, partial, piece);
        if let Some(plus) = from.plus {
            dx.iter_mut().zip(&plus[at * d..]).for_each(|(dx, plus)| *dx += plus);
        }
    };
    let work = 3 * dx.len();
    let pieces = dx.chunks_mut(rows * d);
    if partial.is_empty() {
        par::pieces(pieces, work, |i, dx| run(i, dx, &mut []));
    } else {
        par::pieces(pieces.zip(partial.chunks_mut(2 * d)), work, |i, (dx, partial)| run(i, dx, partial));
    }
}

vectorised! {
    fn forward_rows(y: &mut [f32], stats: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
        let d = weight.len();
        for ((y, x), stats) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(stats.chunks_exact_mut(2)) {
            let mean = sum([x], |[x]| x) / d as f32;
            let var = sum([x], |[x]| (x - mean) * (x - mean)) / d as f32;
            let rstd = 1.0 / (var + eps).sqrt();
            stats.copy_from_slice(&[mean, rstd]);
            for (((y, x), w), b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = ((x - mean) * rstd).mul_add(*w, *b);
            }
        }
    }

    fn backward_rows(dx: &mut [f32], partial: &mut [f32], from: Backward) {
        let d = from.weight.len();
        let (dweight, dbias) = partial.split_at_mut(partial.len() / 2);
        dweight.fill(0.0);
        dbias.fill(0.0);
        let rows = from.dy.chunks_exact(d).zip(from.x.chunks_exact(d)).zip(from.stats.chunks_exact(2));
        for (dx, ((dy, x), stats)) in dx.chunks_exact_mut(d).zip(rows) {
            let (mean, rstd) = (stats[0], stats[1]);
            let g = sum([dy, from.weight], |[dy, w]| dy * w) / d as f32;
            let gx = sum([dy, x, from.weight], |[dy, x, w]| dy * w * ((x - mean) * rstd)) / d as f32;
            for (((dx, dy), x), w) in dx.iter_mut().zip(dy).zip(x).zip(from.weight) {
                *dx = rstd * (dy * w - g - (x - mean) * rstd * gx);
            }
            for (((dw, db), dy), x) in dweight.iter_mut().zip(dbias.iter_mut()).zip(dy).zip(x) {
                *dw += dy * ((x - mean) * rstd);
                *db += dy;
            }
        }
    }
}
