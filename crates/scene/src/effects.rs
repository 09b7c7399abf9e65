//! What a camera does to the whole image: exposure, a soft focus and noise, all mild.

use pheye_image::Rgb8;

use crate::background::{apply, level_table};
use crate::random::Rng;

/// Changes the image by random effects. `smallest` is the height of the smallest glyph body in pixels, which
/// must stay readable.
pub(crate) fn apply_all(image: &mut Rgb8, smallest: f32, rng: &mut Rng) {
    let (strength, shift) = (rng.between(0.82, 1.1), rng.between(-12.0, 12.0));
    let table = level_table(|v| 128.0 + (v - 128.0) * strength + shift);
    apply(image, &[table; 3]);
    let most = if smallest < 9.0 { 0.08 } else { 0.2 };
    if rng.chance(0.5) {
        blur(image, (rng.between(0.02, most) * 256.0) as u32);
    }
    if rng.chance(0.7) {
        noise(image, rng.integer(1, 10), rng);
    }
}

/// Mixes each pixel with its four neighbors, each with the weight `side` of 256.
fn blur(image: &mut Rgb8, side: u32) {
    let (width, height) = (image.width, image.height);
    let mix = |before: u8, own: u8, after: u8| {
        let sum = side * (u32::from(before) + u32::from(after)) + (256 - 2 * side) * u32::from(own);
        ((sum + 128) >> 8) as u8
    };
    let mut across = image.pixels.clone();
    for (to, from) in across.chunks_exact_mut(3 * width).zip(image.pixels.chunks_exact(3 * width)) {
        for i in 3..3 * width - 3 {
            to[i] = mix(from[i - 3], from[i], from[i + 3]);
        }
    }
    image.pixels.copy_from_slice(&across);
    for y in 1..height - 1 {
        let row = |y: usize| &across[3 * width * y..][..3 * width];
        let (above, own, below) = (row(y - 1), row(y), row(y + 1));
        let to = &mut image.pixels[3 * width * y..][..3 * width];
        for i in 0..3 * width {
            to[i] = mix(above[i], own[i], below[i]);
        }
    }
}

/// Adds to each pixel the same random change of up to `range` levels in all channels.
fn noise(image: &mut Rgb8, range: i32, rng: &mut Rng) {
    for pixels in image.pixels.chunks_mut(12) {
        for (pixel, byte) in pixels.chunks_mut(3).zip(rng.bits().to_le_bytes()) {
            let change = ((i32::from(byte) - 128) * range) >> 7;
            pixel.iter_mut().for_each(|v| *v = (i32::from(*v) + change).clamp(0, 255) as u8);
        }
    }
}
