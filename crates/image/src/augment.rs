//! Augmentations for training as pure functions; the caller supplies the random numbers.
//!
//! The same flips and rotations apply EXIF orientations.

use crate::Rgb8;
use image::metadata::Orientation;

/// One set of augmentations, applied in the order of the fields. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Mirror left and right.
    pub flip_horizontal: bool,
    /// Mirror top and bottom.
    pub flip_vertical: bool,
    /// Number of clockwise rotations by 90 degrees.
    pub turns: u8,
    /// Pixels to shift right (negative: left); edge pixels are repeated.
    pub dx: isize,
    /// Pixels to shift down (negative: up); edge pixels are repeated.
    pub dy: isize,
}

impl Augment {
    /// The augmented image. Width and height are swapped if `turns` is odd.
    pub fn apply(&self, image: &Rgb8) -> Rgb8 {
        let mut out = image.clone();
        if self.flip_horizontal {
            out = flip_horizontal(&out);
        }
        if self.flip_vertical {
            out = flip_vertical(&out);
        }
        if !self.turns.is_multiple_of(4) {
            out = rotate(&out, self.turns);
        }
        if (self.dx, self.dy) != (0, 0) {
            out = shift(&out, self.dx, self.dy);
        }
        out
    }
}

/// Mirrors left and right.
pub fn flip_horizontal(image: &Rgb8) -> Rgb8 {
    remap(image, image.width, image.height, |x, y| (image.width - 1 - x, y))
}

/// Mirrors top and bottom.
pub fn flip_vertical(image: &Rgb8) -> Rgb8 {
    remap(image, image.width, image.height, |x, y| (x, image.height - 1 - y))
}

/// Rotates clockwise by `turns` times 90 degrees.
pub fn rotate(image: &Rgb8, turns: u8) -> Rgb8 {
    let (w, h) = (image.width, image.height);
    match turns % 4 {
        1 => remap(image, h, w, |x, y| (y, h - 1 - x)),
        2 => remap(image, w, h, |x, y| (w - 1 - x, h - 1 - y)),
        3 => remap(image, h, w, |x, y| (w - 1 - y, x)),
        _ => image.clone(),
    }
}

/// Shifts right by `dx` and down by `dy` pixels and keeps the size; the nearest edge pixel fills the
/// uncovered area.
pub fn shift(image: &Rgb8, dx: isize, dy: isize) -> Rgb8 {
    let from = |at: usize, by: isize, side: usize| {
        (at as isize).saturating_sub(by).clamp(0, side as isize - 1) as usize
    };
    let (w, h) = (image.width, image.height);
    remap(image, w, h, |x, y| (from(x, dx, w), from(y, dy, h)))
}

pub(crate) fn orient(image: Rgb8, orientation: Orientation) -> Rgb8 {
    match orientation {
        Orientation::NoTransforms => image,
        Orientation::FlipHorizontal => flip_horizontal(&image),
        Orientation::FlipVertical => flip_vertical(&image),
        Orientation::Rotate90 => rotate(&image, 1),
        Orientation::Rotate180 => rotate(&image, 2),
        Orientation::Rotate270 => rotate(&image, 3),
        Orientation::Rotate90FlipH => flip_horizontal(&rotate(&image, 1)),
        Orientation::Rotate270FlipH => flip_horizontal(&rotate(&image, 3)),
    }
}

/// A `width`×`height` image whose pixel (x, y) is the source's pixel `from(x, y)`.
fn remap(image: &Rgb8, width: usize, height: usize, from: impl Fn(usize, usize) -> (usize, usize)) -> Rgb8 {
    let source = image.pixels.as_chunks::<3>().0;
    let mut pixels = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let (sx, sy) = from(x, y);
            pixels.extend(source[sy * image.width + sx]);
        }
    }
    Rgb8 { width, height, pixels }
}
