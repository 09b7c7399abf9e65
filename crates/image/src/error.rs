//! What can go wrong between a file and its pixels. Every variant about a file names it.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read at all.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds no bytes.
    #[error("{name}: the file is empty (0 bytes)")]
    Empty {
        /// The file.
        name: String,
    },
    /// Not PNG, JPEG or WebP.
    #[error("{name}: not a picture this program reads (PNG, JPEG or WebP): {found}")]
    Unsupported {
        /// The file.
        name: String,
        /// The format or the first bytes found instead.
        found: String,
    },
    /// The header claims more pixels than [`DecodeOptions::max_pixels`](crate::DecodeOptions::max_pixels); nothing
    /// was allocated.
    #[error("{name}: {width}x{height} pixels are more than the limit of {limit} (max_pixels)")]
    TooLarge {
        /// The file.
        name: String,
        /// Claimed width.
        width: u32,
        /// Claimed height.
        height: u32,
        /// The limit in pixels.
        limit: u64,
    },
    /// The file ends before its picture does.
    #[error("{name}: truncated {format} file: it ends after {bytes} bytes, before the picture does")]
    Truncated {
        /// The file.
        name: String,
        /// PNG, JPEG or WebP.
        format: &'static str,
        /// Length of what there is.
        bytes: usize,
    },
    /// The file is damaged, or uses a part of its format that the decoder lacks.
    #[error("{name}: cannot decode this {format} file: {source}")]
    Decode {
        /// The file.
        name: String,
        /// PNG, JPEG or WebP.
        format: &'static str,
        /// What the decoder said.
        source: image::ImageError,
    },
    /// A picture whose sides and bytes do not fit together.
    #[error("a {width}x{height} RGB picture cannot have {bytes} bytes")]
    Shape {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Bytes given.
        bytes: usize,
    },
}
