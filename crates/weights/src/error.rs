//! The error type of this crate. Each error names its file and, if possible, the tensor.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Mismatches, StoredDType};
use pheye_files::quoted;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of reading or writing a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // each message describes the fields
pub enum Error {
    /// A file could not be opened or read.
    #[error("{}: cannot be read", shown(path))]
    Read { path: PathBuf, source: io::Error },
    /// A file could not be written; the previous file of that name, if any, is unchanged.
    #[error("{}: cannot be saved (the old file, if any, is untouched)", shown(path))]
    Write { path: PathBuf, source: io::Error },
    /// A configuration file is invalid.
    #[error("{}: {why}", shown(path))]
    Config { path: PathBuf, why: String },
    /// A file already exists and would be overwritten.
    #[error("{} exists; choose another folder", shown(path))]
    Exists { path: PathBuf },
    /// The file has no bytes.
    #[error("{}: the file is empty", shown(path))]
    Empty { path: PathBuf },
    /// The file is neither safetensors, nor an index of shards, nor a torch zip.
    #[error("{}: not a checkpoint (safetensors or torch zip); it looks like {looks_like}", shown(path))]
    NotACheckpoint { path: PathBuf, looks_like: String },
    /// The file is in the format of torch before 1.6, which is not a zip.
    #[error(
        "{}: saved in torch's format from before version 1.6, which is not read; convert it with \
         `torch.save(torch.load(OLD, weights_only=True), NEW)`",
        shown(path)
    )]
    LegacyTorch { path: PathBuf },
    /// The file is a module compiled by `torch.jit`, which contains code.
    #[error(
        "{}: a TorchScript archive, which holds code; save its weights alone: \
         `torch.save(torch.jit.load(OLD, map_location=\"cpu\").state_dict(), NEW)`",
        shown(path)
    )]
    TorchScript { path: PathBuf },
    /// The file ends before its contents do.
    #[error("{}: truncated: {expected} bytes are needed, the file has {found}", shown(path))]
    Truncated { path: PathBuf, expected: u64, found: u64 },
    /// Bytes follow the end of the contents.
    #[error("{}: {extra} bytes follow the end of the checkpoint", shown(path))]
    Trailing { path: PathBuf, extra: u64 },
    /// The header claims an implausible length.
    #[error("{}: the header claims {len} bytes, more than the {limit} allowed", shown(path))]
    HeaderTooLong { path: PathBuf, len: u64, limit: u64 },
    /// The header of a safetensors file, or an index of shards, is invalid.
    #[error("{}: bad header: {}", shown(path), quoted(reason))]
    Header { path: PathBuf, reason: String },
    /// A name occurs twice.
    #[error("{}: tensor `{}` occurs twice", shown(path), name(tensor))]
    Duplicate { path: PathBuf, tensor: String },
    /// An unknown element type.
    #[error("{}: tensor `{}` has the unknown element type `{}`", shown(path), name(tensor), name(dtype))]
    UnknownDType { path: PathBuf, tensor: String, dtype: String },
    /// The byte range of a tensor is invalid.
    #[error("{}: tensor `{}`: {}", shown(path), name(tensor), quoted(reason))]
    Layout { path: PathBuf, tensor: String, reason: String },
    /// An invalid zip archive.
    #[error("{}: damaged or truncated zip: {}", shown(path), quoted(reason))]
    Zip { path: PathBuf, reason: String },
    /// A zip archive that `torch.save` did not write.
    #[error("{}: a zip that `torch.save` did not write: {}", shown(path), quoted(reason))]
    NotTorchZip { path: PathBuf, reason: String },
    /// The storage of a tensor is missing in the zip, or its size does not match the tensor.
    #[error("{}: tensor `{}`: record `{}` {}", shown(path), name(tensor), name(record), quoted(reason))]
    Record { path: PathBuf, tensor: String, record: String, reason: String },
    /// The checksum of the record that contains a tensor does not match.
    #[error(
        "{}: tensor `{}`: its bytes do not match their checksum; the file is damaged",
        shown(path),
        name(tensor)
    )]
    Damaged { path: PathBuf, tensor: String },
    /// The pickle is invalid, or uses an instruction that no state dict needs.
    #[error("{}: bad pickle at byte {at}: {reason}", shown(path))]
    Pickle { path: PathBuf, at: usize, reason: String },
    /// The pickle refers to a class or function that is not among those of state dicts.
    #[error(
        "{}: refused: the pickle refers to `{}`, which no state dict of tensors needs. If you trust its maker, load it \
         in Python and save the tensors alone: `c = torch.load(OLD, weights_only=False)`, then \
         `torch.save(c[\"state_dict\"], NEW)` with the key under which they are, or `torch.save(c.state_dict(), NEW)` if \
         it is a whole model",
        shown(path),
        name(global)
    )]
    ForbiddenGlobal { path: PathBuf, global: String },
    /// The pickle contains no state dict.
    #[error("{}: no tensors found; at the top it has {}", shown(path), quoted(top))]
    NoTensors { path: PathBuf, top: String },
    /// A shard that the index names cannot be used.
    #[error("{}: shard `{}`: {}", shown(path), name(shard), quoted(reason))]
    Shard { path: PathBuf, shard: String, reason: String },
    /// The checkpoint does not contain this tensor.
    #[error("{}: no tensor `{}`", shown(path), name(tensor))]
    Missing { path: PathBuf, tensor: String },
    /// The tensor has more dimensions than [`pheye_tensor::Shape`] supports.
    #[error("{}: tensor `{}` has {rank} dimensions, at most 4 are supported", shown(path), name(tensor))]
    Rank { path: PathBuf, tensor: String, rank: usize },
    /// The tensor is of an unsupported kind.
    #[error("{}: tensor `{}` {kind}", shown(path), name(tensor))]
    Unusable { path: PathBuf, tensor: String, kind: Unusable },
    /// The parameters that a tensor is to be written from do not fit together.
    #[error(
        "{}: tensor `{}` cannot be saved: it needs each of its chunks once, all of the same shape and type, and matrices \
         to transpose",
        shown(path),
        name(tensor)
    )]
    Chunks { path: PathBuf, tensor: String },
    /// The elements cannot be converted to the requested type.
    #[error("{}: tensor `{}` holds {dtype}, {wanted} needed", shown(path), name(tensor))]
    DType { path: PathBuf, tensor: String, dtype: StoredDType, wanted: &'static str },
    /// The checkpoint does not fit the network.
    #[error(transparent)]
    Mismatch(#[from] Mismatches),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
}

/// `path` on one line and without control characters, because an index of shards may contain any name.
pub(crate) fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A name from a file, on one line and shortened if it is long.
pub(crate) fn name(name: &str) -> String {
    const LONGEST: usize = 300;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => quoted(&name[..end]) + "…",
        None => quoted(name),
    }
}

/// The reason why a listed tensor cannot be read. This is an error only if the tensor is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // each message describes its variant
pub enum Unusable {
    Sparse,
    Quantized,
    Meta,
    Nested,
    Subclass,
    Lazy,
    OtherDevice,
    DType,
    Narrow,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unusable::Sparse => "is sparse, which is not read; save its `to_dense()`",
            Unusable::Quantized => "is quantized by torch, which is not read; save its `dequantize()`",
            Unusable::Meta => "is on the meta device: the file holds none of its elements",
            Unusable::Nested => "is nested, which is not read",
            Unusable::Subclass => {
                "is of a subclass of `torch.Tensor` without elements of its own, which is not read"
            }
            Unusable::Lazy => "is a negated or conjugated view; save its `resolve_neg()` or `resolve_conj()`",
            Unusable::OtherDevice => "was saved with another element type than its own, which is not read",
            Unusable::DType => "has an element type that is not read",
            Unusable::Narrow => "has elements of less than a byte, which are not read",
        })
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::other(error)
    }
}
