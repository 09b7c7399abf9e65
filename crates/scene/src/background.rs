//! What is behind the words: a part of a photograph or texture, a gradient, soft patches, or one color.

use std::path::Path;

use pheye_image::{DecodeOptions, EXTENSIONS, Rgb8, decode, open_regular, shrink};

use crate::color::Color;
use crate::font::listed;
use crate::random::Rng;
use crate::{Error, Result};

/// The built-in photographs and textures.
const BUILT_IN: [(&str, &[u8]); 7] = [
    ("astronaut.jpg", include_bytes!("../backgrounds/astronaut.jpg")),
    ("brick.jpg", include_bytes!("../backgrounds/brick.jpg")),
    ("camera.jpg", include_bytes!("../backgrounds/camera.jpg")),
    ("chelsea.jpg", include_bytes!("../backgrounds/chelsea.jpg")),
    ("grass.jpg", include_bytes!("../backgrounds/grass.jpg")),
    ("gravel.jpg", include_bytes!("../backgrounds/gravel.jpg")),
    ("hubble.jpg", include_bytes!("../backgrounds/hubble.jpg")),
];

/// The largest number of images of a folder, and the side that larger ones are reduced to.
const MOST: usize = 1000;
const SIDE: usize = 512;

/// The images that backgrounds are cut from.
pub(crate) struct Backgrounds(Vec<Rgb8>);

impl Backgrounds {
    /// The images of a folder in the order of their names, or the built-in ones.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Backgrounds> {
        let options = DecodeOptions::default();
        let Some(folder) = folder else {
            let images = BUILT_IN.iter().map(|(name, bytes)| decode(bytes, name, &options));
            return Ok(Backgrounds(images.collect::<Result<_, _>>().map_err(Error::Background)?));
        };
        let files = listed(folder, &EXTENSIONS)?;
        if files.is_empty() || files.len() > MOST {
            let known = EXTENSIONS.map(|extension| format!(".{extension}")).join(", ");
            let message = format!("{} images ({known}); 1 to {MOST} are needed", files.len());
            return Err(Error::Folder { path: folder.to_owned(), message });
        }
        let open =
            |path| open_regular(path, &options).map(|image| shrink(image, SIDE)).map_err(Error::Background);
        Ok(Backgrounds(files.iter().map(open).collect::<Result<_>>()?))
    }

    /// A background of `size` by `size` pixels.
    pub(crate) fn draw(&self, size: usize, rng: &mut Rng) -> Rgb8 {
        let kind = rng.unit();
        let colors = Color::shades(rng);
        let mut image = match kind {
            k if k < 0.55 => photograph(rng.pick(&self.0), size, rng),
            k if k < 0.70 => gradient(colors[0].rgb, colors[1].rgb, size, rng),
            k if k < 0.85 => patches(colors[0].rgb, size, rng),
            _ => Rgb8 { width: size, height: size, pixels: colors[0].rgb.repeat(size * size) },
        };
        if rng.chance(0.5) {
            recolor(&mut image, rng);
        }
        image
    }
}

/// A square part of `from`, perhaps mirrored or blurred.
fn photograph(from: &Rgb8, size: usize, rng: &mut Rng) -> Rgb8 {
    let short = from.width.min(from.height) as f32;
    let side = short * rng.between(0.4, 1.0);
    let (x, y) = (rng.unit() * (from.width as f32 - side), rng.unit() * (from.height as f32 - side));
    let (start, step) = if rng.chance(0.5) { (x, side) } else { (x + side, -side) };
    if rng.chance(0.3) {
        // A small image enlarged is a blurred one.
        let coarse = rng.integer(size as i32 / 6, size as i32 / 2).max(2) as usize;
        let small = sample(from, [start, y], [step, side], coarse);
        return sample(&small, [0.0, 0.0], [coarse as f32; 2], size);
    }
    sample(from, [start, y], [step, side], size)
}

/// `size` by `size` pixels of the rectangle of `from` at `start` with the sides `span`, of which the first may
/// be negative; bilinear.
fn sample(from: &Rgb8, start: [f32; 2], span: [f32; 2], size: usize) -> Rgb8 {
    let taps = |axis: usize, side: usize| -> Vec<(usize, usize, f32)> {
        let at = |i: usize| start[axis] + (i as f32 + 0.5) / size as f32 * span[axis] - 0.5;
        let tap = |at: f32| {
            let at = at.clamp(0.0, (side - 1) as f32);
            (at as usize, (at as usize + 1).min(side - 1), at - at.floor())
        };
        (0..size).map(at).map(tap).collect()
    };
    let (columns, rows) = (taps(0, from.width), taps(1, from.height));
    let mut pixels = Vec::with_capacity(3 * size * size);
    for (y0, y1, fy) in rows {
        let row = |y: usize| &from.pixels[3 * y * from.width..][..3 * from.width];
        let (above, below) = (row(y0), row(y1));
        for &(x0, x1, fx) in &columns {
            for c in 0..3 {
                let mix = |row: &[u8]| {
                    let (a, b) = (f32::from(row[3 * x0 + c]), f32::from(row[3 * x1 + c]));
                    a + (b - a) * fx
                };
                let (a, b) = (mix(above), mix(below));
                pixels.push((a + (b - a) * fy + 0.5) as u8);
            }
        }
    }
    Rgb8 { width: size, height: size, pixels }
}

/// A change from one color to another in a random direction.
fn gradient(from: [u8; 3], to: [u8; 3], size: usize, rng: &mut Rng) -> Rgb8 {
    let corners: [f32; 4] = std::array::from_fn(|_| rng.unit());
    let mix = |t: f32, c: usize| (f32::from(from[c]) * (1.0 - t) + f32::from(to[c]) * t + 0.5) as u8;
    let pixels = corners.iter().flat_map(|t| [mix(*t, 0), mix(*t, 1), mix(*t, 2)]).collect();
    sample(&Rgb8 { width: 2, height: 2, pixels }, [0.5, 0.5], [1.0, 1.0], size)
}

/// Soft patches around one color.
fn patches(color: [u8; 3], size: usize, rng: &mut Rng) -> Rgb8 {
    let n = rng.integer(3, 12) as usize;
    let range = rng.integer(15, 70);
    let mut pixels = Vec::with_capacity(3 * n * n);
    for _ in 0..n * n {
        let lighter = rng.integer(-range, range);
        pixels.extend(color.map(|c| (i32::from(c) + lighter + rng.integer(-8, 8)).clamp(0, 255) as u8));
    }
    sample(&Rgb8 { width: n, height: n, pixels }, [0.5, 0.5], [(n - 1) as f32; 2], size)
}

/// Tints the image and reduces its contrast by a random amount.
fn recolor(image: &mut Rgb8, rng: &mut Rng) {
    let strength = rng.between(0.45, 1.0);
    let tint: [f32; 3] = std::array::from_fn(|_| rng.between(0.55, 1.15));
    let tables = tint.map(|tint| level_table(|v| (128.0 + (v - 128.0) * strength) * tint));
    apply(image, &tables);
}

/// Moves all pixels towards black or white, so that text of the other can be read on the image.
pub(crate) fn fade(image: &mut Rgb8, dark: bool) {
    let table = level_table(|v| if dark { 0.35 * v } else { 255.0 - 0.35 * (255.0 - v) });
    apply(image, &[table; 3]);
}

/// A table of what each level of a channel becomes.
pub(crate) fn level_table(change: impl Fn(f32) -> f32) -> [u8; 256] {
    std::array::from_fn(|v| (change(v as f32) + 0.5).clamp(0.0, 255.0) as u8)
}

/// Replaces the levels of each channel by those of its table.
pub(crate) fn apply(image: &mut Rgb8, tables: &[[u8; 256]; 3]) {
    for pixel in image.pixels.chunks_exact_mut(3) {
        (0..3).for_each(|c| pixel[c] = tables[c][usize::from(pixel[c])]);
    }
}
