//! Pillow's `Image.resize((w, h), BICUBIC)` on RGB, bit for bit.
//!
//! What makes it Pillow's: a = -0.5; the kernel widens with the scale when shrinking (antialiasing); weights are
//! normalised in f64 and rounded to 22-bit fixed point; the first pass is rounded to 8 bits before the second. The last
//! point makes the order of the passes visible, by a few levels; Pillow 13 changed it, see [`PassOrder`].

use crate::Rgb8;
use rayon::prelude::*;

/// Pillow's `PRECISION_BITS`: an 8-bit sample times a weight, with 2 bits for overshoot, fits an `i32`.
const BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (BITS - 1);

/// Multiply-adds worth handing to another thread.
const GRAIN: usize = 1 << 17;

/// Which of the two passes runs first when both sides change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PassOrder {
    /// Rows, then columns: Pillow up to 12, hence what the released Pheye models were trained on.
    #[default]
    RowsFirst,
    /// Pillow 13: columns first if the height loses pixels, and more than twice as many as the width; else rows first.
    Pillow13,
}

/// The picture at `width`×`height` pixels, rows first; the aspect ratio is whatever these say.
///
/// A side of 0 gives an empty picture. The result does not depend on the number of threads.
pub fn resize_bicubic(picture: &Rgb8, width: usize, height: usize) -> Rgb8 {
    resize_bicubic_in(picture, width, height, PassOrder::RowsFirst)
}

/// [`resize_bicubic`] with the passes in the given order.
pub fn resize_bicubic_in(picture: &Rgb8, width: usize, height: usize, order: PassOrder) -> Rgb8 {
    if width * height == 0 || picture.pixels.is_empty() {
        return Rgb8 { width, height, pixels: vec![0; 3 * width * height] };
    }
    let lost = |from: usize, to: usize| from as i64 - to as i64;
    let mostly_height = lost(picture.height, height) > (2 * lost(picture.width, width)).max(0);
    match (picture.width == width, picture.height == height) {
        (true, true) => picture.clone(),
        (false, true) => rows(picture, width),
        (true, false) => columns(picture, height),
        _ if order == PassOrder::Pillow13 && mostly_height => rows(&columns(picture, height), width),
        _ => columns(&rows(picture, width), height),
    }
}

/// For every output position, the input range it reads and its fixed-point weights.
struct Taps {
    /// First input position and number of weights.
    ranges: Vec<(usize, usize)>,
    /// `[output, stride]`
    weights: Vec<i32>,
    stride: usize,
}

impl Taps {
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let widen = scale.max(1.0);
        let support = 2.0 * widen;
        let stride = support.ceil() as usize * 2 + 1;
        let mut taps = Self { ranges: Vec::with_capacity(output), weights: vec![0; output * stride], stride };
        let mut exact = Vec::with_capacity(stride);
        for (i, fixed) in taps.weights.chunks_exact_mut(stride).enumerate() {
            let center = (i as f64 + 0.5) * scale;
            // `as usize` sends negatives to 0 and drops the fraction, as Pillow's casts and clamps do.
            let first = (center - support + 0.5) as usize;
            let count = ((center + support + 0.5) as usize).min(input) - first;
            let inverse = 1.0 / widen;
            exact.clear();
            exact.extend((0..count).map(|x| cubic(((x + first) as f64 - center + 0.5) * inverse)));
            let sum: f64 = exact.iter().sum();
            for (fixed, w) in fixed.iter_mut().zip(&exact) {
                let w = w / sum * f64::from(1 << BITS);
                *fixed = (w + 0.5f64.copysign(w)) as i32;
            }
            taps.ranges.push((first, count));
        }
        taps
    }

    fn at(&self, i: usize) -> (usize, &[i32]) {
        let (first, count) = self.ranges[i];
        (first, &self.weights[i * self.stride..][..count])
    }
}

/// Keys' cubic with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn round(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

fn rows(picture: &Rgb8, width: usize) -> Rgb8 {
    let taps = Taps::new(picture.width, width);
    let mut pixels = vec![0; 3 * width * picture.height];
    let outs = pixels.par_chunks_exact_mut(3 * width);
    let ins = picture.pixels.par_chunks_exact(3 * picture.width);
    outs.zip(ins).with_min_len(grain(&taps, width)).for_each(|(out, row)| {
        for (i, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (first, weights) = taps.at(i);
            let mut sum = [HALF; 3];
            for (pixel, &w) in row[3 * first..].as_chunks::<3>().0.iter().zip(weights) {
                for c in 0..3 {
                    sum[c] += i32::from(pixel[c]) * w;
                }
            }
            *out = sum.map(round);
        }
    });
    Rgb8 { width, height: picture.height, pixels }
}

fn columns(picture: &Rgb8, height: usize) -> Rgb8 {
    let taps = Taps::new(picture.height, height);
    let stride = 3 * picture.width;
    let mut pixels = vec![0; stride * height];
    let outs = pixels.par_chunks_exact_mut(stride).enumerate().with_min_len(grain(&taps, picture.width));
    outs.for_each_init(Vec::new, |sums, (i, out)| {
        let (first, weights) = taps.at(i);
        sums.clear();
        sums.resize(stride, HALF);
        for (row, &w) in picture.pixels[stride * first..].chunks_exact(stride).zip(weights) {
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += i32::from(v) * w;
            }
        }
        for (out, &sum) in out.iter_mut().zip(sums.iter()) {
            *out = round(sum);
        }
    });
    Rgb8 { width: picture.width, height, pixels }
}

/// Rows per job.
fn grain(taps: &Taps, width: usize) -> usize {
    GRAIN.div_ceil(3 * width * taps.stride)
}
