//! The errors of this crate. Every variant about a file names it.

use pheye_files::quoted;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("{}: cannot be read", quoted(&path.display().to_string()))]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file has no bytes.
    #[error("{name}: the file is empty (0 bytes)")]
    Empty {
        /// The file.
        name: String,
    },
    /// The file is not a PNG, JPEG, WebP, GIF or BMP.
    #[error("{name}: not an image this program reads (PNG, JPEG, WebP, GIF or BMP): {found}")]
    Unsupported {
        /// The file.
        name: String,
        /// The detected format, or the first bytes.
        found: String,
    },
    /// The header states more pixels than [`DecodeOptions::max_pixels`](crate::DecodeOptions::max_pixels); no
    /// memory was allocated.
    #[error("{name}: {width}x{height} pixels are more than the limit of {} megapixels", *limit as f64 / 1e6)]
    TooLarge {
        /// The file.
        name: String,
        /// Stated width.
        width: u32,
        /// Stated height.
        height: u32,
        /// The limit in pixels.
        limit: u64,
    },
    /// The file ends before its image is complete.
    #[error("{name}: truncated {format} file: it ends after {bytes} bytes, before the image does")]
    Truncated {
        /// The file.
        name: String,
        /// PNG, JPEG, WebP, GIF or BMP.
        format: &'static str,
        /// Length of the file.
        bytes: usize,
    },
    /// A side is longer than [`DecodeOptions::max_side`](crate::DecodeOptions::max_side); no memory was
    /// allocated.
    #[error("{name}: {width}x{height} pixels: a side is longer than the limit of {limit} (max_side)")]
    TooLong {
        /// The file.
        name: String,
        /// Stated width.
        width: u32,
        /// Stated height.
        height: u32,
        /// The limit in pixels.
        limit: u32,
    },
    /// The file is larger than [`DecodeOptions::max_bytes`](crate::DecodeOptions::max_bytes).
    #[error("{name}: the file is larger than the limit of {limit} bytes (max_bytes)")]
    TooManyBytes {
        /// The file.
        name: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A valid JPEG of a kind that is not supported.
    #[error(
        "{name}: a JPEG with {what}, which this program does not read; save it again as PNG or as an ordinary JPEG, \
         for example with `magick in.jpg out.png`"
    )]
    UnreadJpeg {
        /// The file.
        name: String,
        /// The unsupported property.
        what: String,
    },
    /// The file is damaged.
    #[error("{name}: cannot decode this {format} file")]
    Decode {
        /// The file.
        name: String,
        /// PNG, JPEG, WebP, GIF or BMP.
        format: &'static str,
        /// The error of the decoder.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The number of bytes does not match the size of an image.
    #[error("a {width}x{height} RGB image cannot have {bytes} bytes")]
    Shape {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Number of bytes.
        bytes: usize,
    },
}

impl Error {
    pub(crate) fn decode(
        name: &str,
        format: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Decode { name: name.into(), format, source: source.into() }
    }
}
