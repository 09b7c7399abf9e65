//! Files to [`Rgb8`]: format by content, size limit before allocation, EXIF orientation.

use crate::augment::orient;
use crate::container::{Facts, inspect};
use crate::{Error, Rgb8, convert};
use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageResult, Limits};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// How to decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Pictures whose header claims more pixels are refused before anything is allocated for them. The default is
    /// 178,956,970, where Pillow raises `DecompressionBombError`.
    pub max_pixels: u64,
    /// Turn the picture as its EXIF orientation says (default), or keep it as stored, as the PyTorch release does.
    pub apply_orientation: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_pixels: 178_956_970, apply_orientation: true }
    }
}

/// Decodes a PNG, JPEG or WebP file as Pillow's `Image.open(path).convert("RGB")`, a JPEG to within a few levels.
///
/// The format is told by content, not by extension. Of an animation the first frame is taken.
///
/// # Errors
/// All but [`Error::Shape`]; each names the file.
pub fn open(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Rgb8, Error> {
    let path = path.as_ref();
    let name = path.display().to_string();
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(io)?;
    // A look at the first bytes, so that a large file of another kind is not read in vain.
    let mut bytes = Vec::new();
    file.by_ref().take(64).read_to_end(&mut bytes).map_err(io)?;
    sniff(&bytes, &name)?;
    file.read_to_end(&mut bytes).map_err(io)?;
    decode(&bytes, &name, options)
}

/// Decodes the bytes of a PNG, JPEG or WebP file; `name` stands for the file in errors. Otherwise as [`open`].
///
/// # Errors
/// All but [`Error::Io`] and [`Error::Shape`].
pub fn decode(bytes: &[u8], name: &str, options: &DecodeOptions) -> Result<Rgb8, Error> {
    let (format, label) = sniff(bytes, name)?;
    let facts = inspect(format, bytes);
    if let Some((width, height)) = facts.size
        && u64::from(width) * u64::from(height) > options.max_pixels
    {
        return Err(Error::TooLarge { name: name.into(), width, height, limit: options.max_pixels });
    }
    let Facts { size: Some(size), complete: true, .. } = facts else {
        return Err(Error::Truncated { name: name.into(), format: label, bytes: bytes.len() });
    };
    let picture = read(format, bytes, size).map_err(|source| Error::Decode {
        name: name.into(),
        format: label,
        source,
    })?;
    let rgb = convert::to_rgb(picture, facts.grey16);
    let turn = facts.exif.filter(|_| options.apply_orientation).and_then(Orientation::from_exif_chunk);
    Ok(orient(rgb, turn.unwrap_or(Orientation::NoTransforms)))
}

fn sniff(bytes: &[u8], name: &str) -> Result<(ImageFormat, &'static str), Error> {
    let found = match image::guess_format(bytes) {
        _ if bytes.is_empty() => return Err(Error::Empty { name: name.into() }),
        Ok(ImageFormat::Png) => return Ok((ImageFormat::Png, "PNG")),
        Ok(ImageFormat::Jpeg) => return Ok((ImageFormat::Jpeg, "JPEG")),
        Ok(ImageFormat::WebP) => return Ok((ImageFormat::WebP, "WebP")),
        Ok(other) => format!("it is {other:?}"),
        Err(_) => format!("it starts with \"{}\"", bytes[..bytes.len().min(16)].escape_ascii()),
    };
    Err(Error::Unsupported { name: name.into(), found })
}

/// `size` is what the header was read to claim; a decoder that sees a larger picture is stopped by its limits.
fn read(format: ImageFormat, bytes: &[u8], (width, height): (u32, u32)) -> ImageResult<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(width);
    limits.max_image_height = Some(height);
    // Sixteen-bit RGBA is the widest pixel; the rest is for a decoder's own tables and metadata.
    limits.max_alloc = Some(u64::from(width) * u64::from(height) * 8 + (64 << 20));
    let reader = Cursor::new(bytes);
    match format {
        ImageFormat::Png => DynamicImage::from_decoder(PngDecoder::with_limits(reader, limits)?),
        ImageFormat::Jpeg => limited(JpegDecoder::new(reader)?, limits),
        _ => limited(WebPDecoder::new(reader)?, limits),
    }
}

fn limited(mut decoder: impl ImageDecoder, limits: Limits) -> ImageResult<DynamicImage> {
    decoder.set_limits(limits)?;
    DynamicImage::from_decoder(decoder)
}
