//! Pillow's `Image.resize((w, h), BICUBIC)` for RGB, bit-exact.
//!
//! Pillow uses a = −0.5, widens the kernel by the scale when shrinking (antialiasing), normalizes the weights
//! in f64 and rounds them to 22-bit fixed point, and rounds the result of the first pass to 8 bits. Because
//! of the last point, the order of the passes changes the result by a few levels; Pillow 13 changed the
//! order, see [`PassOrder`].

use crate::Rgb8;
use rayon::prelude::*;

/// Pillow's `PRECISION_BITS`: the product of an 8-bit sample and a weight, with 2 bits for overshoot, fits in
/// an `i32`.
const BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (BITS - 1);

/// Bytes of a band of rows between the two passes.
const BAND: usize = 1 << 20;

/// Minimum number of multiply-adds per parallel job.
const GRAIN: usize = 1 << 17;

/// Which of the two passes runs first if both sides change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PassOrder {
    /// Rows first, then columns: Pillow up to 12, with which the released Pheye models were trained.
    #[default]
    RowsFirst,
    /// Pillow 13: columns first if the height decreases, by more than twice as many pixels as the width;
    /// otherwise rows first.
    Pillow13,
}

/// Resizes to `width`×`height` pixels, rows first; the aspect ratio is not preserved.
///
/// If a side is 0, the result is empty. The result does not depend on the number of threads. Besides the
/// image and the result, it needs a few megabytes, and sixteen bytes for each pixel of a long side.
pub fn resize_bicubic(image: &Rgb8, width: usize, height: usize) -> Rgb8 {
    resize_bicubic_in(image, width, height, PassOrder::RowsFirst)
}

/// The image with its aspect ratio and a longer side of at most `side` pixels; the image itself if it is not larger.
pub fn shrink(image: Rgb8, side: usize) -> Rgb8 {
    let longest = image.width.max(image.height);
    if longest <= side {
        return image;
    }
    let part = |of: usize| (of * side / longest).max(1);
    resize_bicubic(&image, part(image.width), part(image.height))
}

/// Like [`resize_bicubic`], with the passes in the order `order`.
pub fn resize_bicubic_in(image: &Rgb8, width: usize, height: usize, order: PassOrder) -> Rgb8 {
    if width * height == 0 || image.pixels.is_empty() {
        return Rgb8 { width, height, pixels: vec![0; 3 * width * height] };
    }
    let lost = |from: usize, to: usize| from as i64 - to as i64;
    let mostly_height = lost(image.height, height) > (2 * lost(image.width, width)).max(0);
    match (image.width == width, image.height == height) {
        (true, true) => image.clone(),
        (false, true) => rows(image, width),
        (true, false) => columns(image, height),
        // This order reduces the rows first, so the intermediate image is smaller than the source.
        _ if order == PassOrder::Pillow13 && mostly_height => rows(&columns(image, height), width),
        _ => both(image, width, height),
    }
}

/// The input range and fixed-point weights of every output position.
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
        let stride = (support.ceil() as usize * 2 + 1).min(input);
        let mut taps = Self { ranges: Vec::with_capacity(output), weights: vec![0; output * stride], stride };
        let mut exact = Vec::with_capacity(stride);
        for (i, fixed) in taps.weights.chunks_exact_mut(stride).enumerate() {
            let center = (i as f64 + 0.5) * scale;
            // As in Pillow, negative values become 0 and fractions are dropped.
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

/// Keys' cubic convolution kernel with a = −0.5.
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

fn rows(image: &Rgb8, width: usize) -> Rgb8 {
    let mut pixels = vec![0; 3 * width * image.height];
    resize_rows(&Taps::new(image.width, width), &image.pixels, image.width, &mut pixels);
    Rgb8 { width, height: image.height, pixels }
}

fn columns(image: &Rgb8, height: usize) -> Rgb8 {
    let mut columns = Columns::new(image.width, image.height, height);
    columns.add(&image.pixels, 0);
    columns.finish()
}

/// Resizes rows, then columns, one band of input rows at a time. The intermediate image of the new width and
/// the old height is never complete in memory; it can be thousands of times larger than the source and the
/// result.
fn both(image: &Rgb8, width: usize, height: usize) -> Rgb8 {
    let taps = Taps::new(image.width, width);
    let mut columns = Columns::new(width, image.height, height);
    let band = (BAND / (3 * width)).clamp(1, image.height);
    let mut resized = vec![0; 3 * width * band];
    for (i, band_pixels) in image.pixels.chunks(3 * image.width * band).enumerate() {
        let resized = &mut resized[..band_pixels.len() / image.width * width];
        resize_rows(&taps, band_pixels, image.width, resized);
        columns.add(resized, i * band);
    }
    columns.finish()
}

/// Resizes each row of `pixels`, which is `from` pixels wide, to a row of `out`.
fn resize_rows(taps: &Taps, pixels: &[u8], from: usize, out: &mut [u8]) {
    let width = taps.ranges.len();
    let outs = out.par_chunks_exact_mut(3 * width);
    outs.zip(pixels.par_chunks_exact(3 * from)).with_min_len(grain(taps, width)).for_each(|(out, row)| {
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
}

/// The second pass, over input rows that arrive in bands.
struct Columns {
    taps: Taps,
    width: usize,
    /// Unrounded sums of the output rows that depend on past and on future bands.
    open: Vec<i32>,
    /// The output; the rows before those of `open` are finished.
    pixels: Vec<u8>,
}

impl Columns {
    fn new(width: usize, from: usize, height: usize) -> Self {
        Self { taps: Taps::new(from, height), width, open: Vec::new(), pixels: vec![0; 3 * width * height] }
    }

    /// Adds the input rows of `band`, the first of which is row `start`. Bands must arrive in order.
    fn add(&mut self, band: &[u8], start: usize) {
        let stride = 3 * self.width;
        let end = start + band.len() / stride;
        let taps = &self.taps;
        let ended = |by: usize| taps.ranges.partition_point(|&(first, count)| first + count <= by);
        let (done, now) = (ended(start), ended(end));
        let begun = taps.ranges.partition_point(|&(first, _)| first < end);
        let add = |i: usize, sums: &mut [i32]| {
            let (first, weights) = taps.at(i);
            for row in first.max(start)..end.min(first + weights.len()) {
                let w = weights[row - first];
                for (sum, &v) in sums.iter_mut().zip(&band[stride * (row - start)..][..stride]) {
                    *sum += i32::from(v) * w;
                }
            }
        };
        let least = grain(taps, self.width);
        let old = &self.open;
        let finished = self.pixels[done * stride..now * stride].par_chunks_exact_mut(stride).enumerate();
        finished.with_min_len(least).for_each_init(Vec::new, |sums, (i, out)| {
            sums.clear();
            sums.extend_from_slice(old.get(i * stride..(i + 1) * stride).unwrap_or_default());
            sums.resize(stride, HALF);
            add(done + i, sums);
            out.iter_mut().zip(&*sums).for_each(|(out, &sum)| *out = round(sum));
        });
        let mut open = old.get((now - done) * stride..).unwrap_or_default().to_vec();
        open.resize((begun - now) * stride, HALF);
        let rows = open.par_chunks_exact_mut(stride).enumerate().with_min_len(least);
        rows.for_each(|(i, sums)| add(now + i, sums));
        self.open = open;
    }

    fn finish(self) -> Rgb8 {
        Rgb8 { width: self.width, height: self.taps.ranges.len(), pixels: self.pixels }
    }
}

/// Minimum number of rows per parallel job.
fn grain(taps: &Taps, width: usize) -> usize {
    GRAIN.div_ceil(3 * width * taps.stride)
}
