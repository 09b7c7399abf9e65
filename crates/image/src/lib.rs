//! Decodes and preprocesses images with the same pixels as Pillow.
//!
//! Pheye was trained on images that Pillow decoded, converted and resized; other pixels would change the
//! input of the model. Therefore PNG, GIF, BMP and lossless WebP decode to exactly the bytes of `Image.convert("RGB")`,
//! bicubic resizing is bit-exact, and the normalized tiles are bit-identical to those of PyTorch. The JPEG
//! standard allows decoders to differ; here they differ from libjpeg by at most about five levels.
//!
//! ```no_run
//! use pheye_image::{DecodeOptions, Preprocess, open};
//! let image = open("dog.jpg", &DecodeOptions::default())?;
//! let tiles = Preprocess::new(224, 3).pixels(&image);
//! assert_eq!(tiles.global.len(), 3 * 224 * 224);
//! assert_eq!(tiles.local.len(), 9 * 3 * 224 * 224);
//! # Ok::<(), pheye_image::Error>(())
//! ```
#![forbid(unsafe_code)]

mod augment;
mod bmp;
mod container;
mod convert;
mod decode;
mod error;
mod gif;
mod jpeg;
mod jpeg_header;
mod orientation;
mod png;
mod resize;
mod tiles;

pub use augment::{Augment, flip_horizontal, flip_vertical, rotate, shift};
pub use decode::{DecodeOptions, decode, open, open_regular};
pub use error::Error;
pub use resize::{PassOrder, resize_bicubic, resize_bicubic_in, shrink};
pub use tiles::{CLIP_MEAN, CLIP_STD, Preprocess, Tiles};

/// The usual extensions of files that [`decode`] reads, in small letters. Files are decoded by their contents,
/// whatever their names are.
pub const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

/// An 8-bit RGB image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// RGB bytes in row-major order, `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

impl Rgb8 {
    /// An image from RGB bytes in row-major order.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] if a side is 0 or `pixels` does not have `3 * width * height` bytes.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, Error> {
        let bytes = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if width == 0 || height == 0 || bytes != Some(pixels.len()) {
            return Err(Error::Shape { width, height, bytes: pixels.len() });
        }
        Ok(Self { width, height, pixels })
    }

    /// The `width`×`height` part with the top left corner (`x`, `y`). It must be inside the image.
    pub(crate) fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        let row = |r: usize| &self.pixels[3 * ((y + r) * self.width + x)..][..3 * width];
        Self { width, height, pixels: (0..height).flat_map(|r| row(r).iter().copied()).collect() }
    }
}

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
