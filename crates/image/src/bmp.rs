//! Decodes BMP with the same pixels as Pillow: alpha is dropped, and samples of 5 and 6 bits are widened by
//! rounding down. Only pixels that a run-length coded file skips differ: they are black, and in Pillow the
//! first colour of the palette.

use crate::{Rgb8, convert};
use image::codecs::bmp::BmpDecoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageResult, Limits};
use std::io::{Cursor, ErrorKind};

/// Whether the file ends before its last pixel.
pub(crate) fn is_cut(error: &ImageError) -> bool {
    matches!(error, ImageError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof)
}

/// Decodes a BMP. `size` is the size stated by the header, which has been checked against the limits.
pub(crate) fn read(bytes: &[u8], (width, height): (u32, u32)) -> ImageResult<Rgb8> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(width);
    limits.max_image_height = Some(height);
    limits.max_alloc = Some(u64::from(width) * u64::from(height) * 8 + (64 << 20));
    let mut decoder = BmpDecoder::new(Cursor::new(bytes))?;
    decoder.set_limits(limits)?;
    let mut rgb = convert::to_rgb(DynamicImage::from_decoder(decoder)?);
    if let Some(tops) = narrow(bytes) {
        for pixel in rgb.pixels.as_chunks_mut::<3>().0 {
            pixel.iter_mut().zip(tops).for_each(|(v, top)| *v = rounded_down(*v, top));
        }
    }
    Ok(rgb)
}

/// The largest values of red, green and blue as they are stored, if a pixel has 16 bits.
fn narrow(bytes: &[u8]) -> Option<[u16; 3]> {
    let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (size, bits, compression) = (number(14)?, number(28)? & 0xFFFF, number(30)?);
    match (size, bits, compression, number(58)) {
        (40.., 16, 3, Some(0x7E0)) => Some([31, 63, 31]),
        (40.., 16, 0, _) | (40.., 16, 3, Some(0x3E0)) => Some([31; 3]),
        _ => None,
    }
}

/// `v`, a value of 0 to `top` that was widened to 8 bits by rounding to nearest, widened by rounding down.
fn rounded_down(v: u8, top: u16) -> u8 {
    let stored = (u16::from(v) * top + 127) / 255;
    (stored * 255 / top) as u8
}
