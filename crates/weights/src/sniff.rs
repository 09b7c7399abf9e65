//! Detects the format of a file by its first bytes, regardless of its name.

use std::fmt;

use crate::file::DataFile;
use crate::{Error, Result};

/// The supported formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// A single safetensors file.
    Safetensors,
    /// A JSON index of shards, which are safetensors or torch zips.
    Index,
    /// The zip archive that `torch.save` writes.
    Torch,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors",
            Format::Index => "index of shards",
            Format::Torch => "torch zip",
        })
    }
}

/// The UTF-8 byte order mark, which may precede JSON.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// The first bytes of a file of torch before 1.6: pickle protocol 2 and a ten-byte magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// The first bytes of files that are mistaken for checkpoints, with a description.
const STRANGERS: [(&[u8], &str); 12] = [
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"PK\x05\x06", "an empty zip"),
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first"),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"<", "a web page or XML"),
    (b"\x7fELF", "a program"),
    (b"#!", "a script"),
];

/// The format of a file by its first bytes.
pub(crate) fn format(file: &DataFile) -> Result<Format> {
    let head = file.read(0..file.len.min(64))?;
    if head.starts_with(b"PK\x03\x04") {
        return Ok(Format::Torch);
    }
    if head.starts_with(LEGACY) {
        return Err(Error::LegacyTorch { path: file.path.clone() });
    }
    // Safetensors: a little-endian u64 length, then a JSON object.
    let object = head.get(8) == Some(&b'{');
    if object && head[4..8] == [0; 4] {
        return Ok(Format::Safetensors);
    }
    let text = head.strip_prefix(BOM).unwrap_or(head);
    if text.trim_ascii_start().starts_with(b"{") {
        return Ok(Format::Index);
    }
    let stranger = STRANGERS.iter().find(|(magic, _)| head.starts_with(magic));
    let looks_like = match (stranger, head) {
        (Some((_, what)), _) => *what,
        (None, [0x80, 2..=5, ..]) => "a plain pickle, which is not executed",
        _ if object => return Ok(Format::Safetensors),
        _ if text.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => "text",
        _ if head.len() < 9 => "the first few bytes of something",
        _ => "unknown binary data",
    };
    Err(Error::NotACheckpoint { path: file.path.clone(), looks_like: looks_like.into() })
}
