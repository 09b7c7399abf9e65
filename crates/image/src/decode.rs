//! Decodes files to [`Rgb8`]: detects the format by content, checks limits before allocating, and applies the
//! orientation.

use crate::augment::orient;
use crate::container::{Facts, inspect};
use crate::{Error, Rgb8, bmp, convert, gif, jpeg, png};
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageResult, Limits};
use pheye_files::{Kind, caught, quoted};
use std::io::{Cursor, ErrorKind, Read};
use std::path::Path;

/// Options of decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Maximum number of pixels. An image whose header states more is rejected before memory is allocated for
    /// it. The default is 178,956,970, above which Pillow raises `DecompressionBombError`.
    pub max_pixels: u64,
    /// Maximum width and height, checked in the same way: a few bytes can state an image that is one pixel
    /// wide and takes minutes to resize. The default is 100,000 pixels, above the maximum of JPEG and WebP.
    pub max_side: u32,
    /// Maximum file size in bytes for [`open`] and [`open_regular`]. If the operating system knows the size,
    /// a larger file is rejected before it is read. The default is 512 MiB.
    pub max_bytes: u64,
    /// Whether the image is rotated according to its EXIF or XMP orientation (default), or kept as stored, as
    /// in the PyTorch release.
    pub apply_orientation: bool,
}

impl DecodeOptions {
    /// Default of `max_bytes`, larger than any file that is within the default of `max_pixels`.
    pub const MAX_BYTES: u64 = 512 << 20;
}

impl Default for DecodeOptions {
    fn default() -> Self {
        let max_bytes = DecodeOptions::MAX_BYTES;
        Self { max_pixels: 178_956_970, max_side: 100_000, max_bytes, apply_orientation: true }
    }
}

/// Decodes a PNG, JPEG, WebP, GIF or BMP file as Pillow's `ImageOps.exif_transpose(Image.open(path)).convert("RGB")`;
/// the pixels of a JPEG may differ by a few levels.
///
/// The format is detected by content, not by extension. Of an animation, the first frame is decoded. `path`
/// may be a pipe or a device, such as `/dev/stdin`; use [`open_regular`] for a name that comes from a file.
///
/// A truncated file is an error, except a PNG that has all its pixels and lacks only its end. JPEGs of kinds
/// that would decode incorrectly (arithmetic coding, more than 8 bits, …) are rejected with the reason.
///
/// # Errors
/// Returns any error except [`Error::Shape`]; each names the file.
pub fn open(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Rgb8, Error> {
    open_as(path.as_ref(), Kind::Any, options)
}

/// Like [`open`], but only for a regular file or a link to one, so that reading can neither block nor
/// continue forever.
///
/// # Errors
/// Returns the errors of [`open`], and [`Error::Io`] for a FIFO, a device or a directory.
pub fn open_regular(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Rgb8, Error> {
    open_as(path.as_ref(), Kind::Regular, options)
}

fn open_as(path: &Path, kind: Kind, options: &DecodeOptions) -> Result<Rgb8, Error> {
    let name = quoted(&path.display().to_string());
    let limit = options.max_bytes;
    let io = |source: std::io::Error| match source.kind() {
        ErrorKind::FileTooLarge => Error::TooManyBytes { name: name.clone(), limit },
        _ => Error::Io { path: path.to_path_buf(), source },
    };
    let (mut file, expected) = pheye_files::open_with_len(path, kind).map_err(io)?;
    // The first bytes are checked first, so that a large file of another format is not read.
    let mut head = Vec::new();
    file.by_ref().take(64).read_to_end(&mut head).map_err(io)?;
    sniff(&head, &name)?;
    if expected > limit {
        return Err(Error::TooManyBytes { name, limit });
    }
    let bytes = pheye_files::take(head.chain(file), expected, limit).map_err(io)?;
    decode(&bytes, &name, options)
}

/// Decodes the bytes of a PNG, JPEG, WebP, GIF or BMP file like [`open`]; `name` is the name of the file in errors.
///
/// # Errors
/// Returns any error except [`Error::Io`], [`Error::TooManyBytes`] and [`Error::Shape`].
pub fn decode(bytes: &[u8], name: &str, options: &DecodeOptions) -> Result<Rgb8, Error> {
    let name = &quoted(name);
    let (format, label) = sniff(bytes, name)?;
    let facts = inspect(format, bytes);
    if let Some((width, height)) = facts.size {
        if u64::from(width) * u64::from(height) > options.max_pixels {
            return Err(Error::TooLarge { name: name.into(), width, height, limit: options.max_pixels });
        }
        if width.max(height) > options.max_side {
            return Err(Error::TooLong { name: name.into(), width, height, limit: options.max_side });
        }
    }
    let cut = || Error::Truncated { name: name.into(), format: label, bytes: bytes.len() };
    let Facts { size: Some(size), complete: true, jpeg: header, orientation } = facts else {
        return Err(cut());
    };
    let decoded = caught(|| match format {
        ImageFormat::Png => png::read(bytes, size).map_err(|e| match png::is_cut(&e) {
            true => cut(),
            false => Error::decode(name, label, e),
        }),
        ImageFormat::Jpeg => jpeg::read(bytes, size, &header, name),
        ImageFormat::Gif => gif::read(bytes, size, name).map_err(|e| e.unwrap_or_else(cut)),
        ImageFormat::Bmp => bmp::read(bytes, size).map_err(|e| match bmp::is_cut(&e) {
            true => cut(),
            false => Error::decode(name, label, e),
        }),
        _ => Ok(convert::to_rgb(webp(bytes, size).map_err(|e| Error::decode(name, label, e))?)),
    });
    let rgb = decoded.unwrap_or_else(|panic| Err(Error::decode(name, label, panic)))?;
    Ok(if options.apply_orientation { orient(rgb, orientation.orientation()) } else { rgb })
}

fn sniff(bytes: &[u8], name: &str) -> Result<(ImageFormat, &'static str), Error> {
    let found = match image::guess_format(bytes) {
        _ if bytes.is_empty() => return Err(Error::Empty { name: name.into() }),
        Ok(ImageFormat::Png) => return Ok((ImageFormat::Png, "PNG")),
        Ok(ImageFormat::Jpeg) => return Ok((ImageFormat::Jpeg, "JPEG")),
        Ok(ImageFormat::WebP) => return Ok((ImageFormat::WebP, "WebP")),
        Ok(ImageFormat::Gif) => return Ok((ImageFormat::Gif, "GIF")),
        Ok(ImageFormat::Bmp) => return Ok((ImageFormat::Bmp, "BMP")),
        Ok(other) => format!("it is {other:?}"),
        Err(_) => format!("it starts with \"{}\"", bytes[..bytes.len().min(16)].escape_ascii()),
    };
    Err(Error::Unsupported { name: name.into(), found })
}

/// Decodes a WebP. `size` is the size stated by the header; the limits stop the decoder if it finds a larger
/// image.
fn webp(bytes: &[u8], (width, height): (u32, u32)) -> ImageResult<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(width);
    limits.max_image_height = Some(height);
    // RGBA, and the tables and metadata of the decoder.
    limits.max_alloc = Some(u64::from(width) * u64::from(height) * 8 + (64 << 20));
    let mut decoder = WebPDecoder::new(Cursor::new(bytes))?;
    decoder.set_limits(limits)?;
    DynamicImage::from_decoder(decoder)
}
