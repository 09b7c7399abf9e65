//! Decodes JPEG to RGB with the decoder, of two, that decodes the file's kind correctly.
//!
//! zune-jpeg (through the `image` crate) is faster and correct for nearly every JPEG, but decodes some
//! layouts incorrectly without an error; those are decoded with jpeg-decoder. The choice depends only on the
//! headers. `tests/jpeg_grid.py` compares the result with libjpeg over layouts, sampling factors and sizes.

use crate::jpeg_header::{Colours, Header};
use crate::{Error, Rgb8, convert};
use image::codecs::jpeg::JpegDecoder;
use image::{DynamicImage, ImageDecoder, ImageResult, Limits};
use jpeg_decoder::{ColorTransform, PixelFormat};
use std::io::Cursor;

/// Decodes a file whose header states the size `size`.
///
/// # Errors
/// Returns [`Error::UnreadJpeg`] for a kind that neither decoder decodes correctly, and [`Error::Decode`] for
/// damage.
pub(crate) fn read(bytes: &[u8], size: (u32, u32), header: &Header, name: &str) -> Result<Rgb8, Error> {
    let frame = header.frame(size).map_err(|what| Error::UnreadJpeg { name: name.into(), what })?;
    if header.is_common(&frame) {
        let image = common(bytes, size).map_err(|e| Error::decode(name, "JPEG", e))?;
        return Ok(convert::to_rgb(image));
    }
    let (width, height) = (size.0 as usize, size.1 as usize);
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(frame.len() * width * height);
    decoder.set_color_transform(match header.colours(&frame) {
        Colours::Grey => ColorTransform::Grayscale,
        Colours::Rgb => ColorTransform::RGB,
        Colours::YCbCr => ColorTransform::YCbCr,
        Colours::Cmyk => ColorTransform::CMYK,
        Colours::Ycck => ColorTransform::YCCK,
    });
    let samples = decoder.decode().map_err(|e| Error::decode(name, "JPEG", e))?;
    let pixels = match decoder.info().map(|info| info.pixel_format) {
        Some(PixelFormat::L8) => convert::grey_to_rgb(&samples),
        Some(PixelFormat::CMYK32) => convert::cmyk_to_rgb(&samples),
        _ => samples,
    };
    Rgb8::new(width, height, pixels)
}

fn common(bytes: &[u8], (width, height): (u32, u32)) -> ImageResult<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(width);
    limits.max_image_height = Some(height);
    limits.max_alloc = Some(u64::from(width) * u64::from(height) * 8 + (64 << 20));
    let mut decoder = JpegDecoder::new(Cursor::new(bytes))?;
    decoder.set_limits(limits)?;
    DynamicImage::from_decoder(decoder)
}
