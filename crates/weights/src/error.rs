use std::fmt;
use std::io;
use std::path::PathBuf;

use pheye_tensor::{DType, Shape};

use crate::StoredDType;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a checkpoint, or with saving one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // fields are what the message says of them
pub enum Error {
    /// The system refused to open or read a file.
    #[error("{}: cannot read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file could not be written; whatever had its name before is untouched.
    #[error("{}: cannot save (the old file, if any, is untouched): {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A file that would have to be overwritten.
    #[error("{} exists; choose another folder", path.display())]
    Exists { path: PathBuf },
    /// A file of zero bytes.
    #[error("{}: the file is empty", path.display())]
    Empty { path: PathBuf },
    /// Neither safetensors, nor an index of shards, nor a torch zip.
    #[error("{}: not a checkpoint (safetensors or torch zip); it looks like {looks_like}", path.display())]
    NotACheckpoint { path: PathBuf, looks_like: String },
    /// A file of torch before 1.6, which is not a zip.
    #[error(
        "{}: saved in torch's format from before version 1.6, which is not read; convert it with \
         `torch.save(torch.load(OLD, weights_only=True), NEW)`", path.display()
    )]
    LegacyTorch { path: PathBuf },
    /// The file ends before its contents do.
    #[error("{}: truncated: {expected} bytes are needed, the file has {found}", path.display())]
    Truncated { path: PathBuf, expected: u64, found: u64 },
    /// Bytes follow the end of the contents.
    #[error("{}: {extra} bytes follow the end of the checkpoint", path.display())]
    Trailing { path: PathBuf, extra: u64 },
    /// The header claims a length that no real one has.
    #[error("{}: the header claims {len} bytes, more than the {limit} allowed", path.display())]
    HeaderTooLong { path: PathBuf, len: u64, limit: u64 },
    /// The header of a safetensors file, or an index of shards, is not what it must be.
    #[error("{}: bad header: {reason}", path.display())]
    Header { path: PathBuf, reason: String },
    /// A name occurs twice.
    #[error("{}: tensor `{tensor}` occurs twice", path.display())]
    Duplicate { path: PathBuf, tensor: String },
    /// An element type that this crate does not know.
    #[error("{}: tensor `{tensor}` has the unknown element type `{dtype}`", path.display())]
    UnknownDType { path: PathBuf, tensor: String, dtype: String },
    /// A tensor's bytes do not lie where and as long as they must.
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Layout { path: PathBuf, tensor: String, reason: String },
    /// A zip that cannot be read.
    #[error("{}: damaged or truncated zip: {reason}", path.display())]
    Zip { path: PathBuf, reason: String },
    /// A zip, but not one that torch wrote.
    #[error("{}: a zip that torch did not write: {reason}", path.display())]
    NotTorchZip { path: PathBuf, reason: String },
    /// A tensor's storage is not in the zip, or not of the size its tensors claim.
    #[error("{}: tensor `{tensor}`: record `{record}` {reason}", path.display())]
    Record { path: PathBuf, tensor: String, record: String, reason: String },
    /// A tensor's bytes changed since they were written.
    #[error("{}: tensor `{tensor}`: its bytes do not match their checksum; the file is damaged", path.display())]
    Damaged { path: PathBuf, tensor: String },
    /// The pickle uses something that no saved state dict needs.
    #[error("{}: bad pickle at byte {at}: {reason}", path.display())]
    Pickle { path: PathBuf, at: usize, reason: String },
    /// The pickle names a class or function outside the few that build tensors.
    #[error("{}: refused: the pickle refers to `{global}`, and a checkpoint of tensors has no use for it", path.display())]
    ForbiddenGlobal { path: PathBuf, global: String },
    /// A pickle without a state dict.
    #[error("{}: no tensors found; at the top it has {top}", path.display())]
    NoTensors { path: PathBuf, top: String },
    /// A shard that an index names cannot be used.
    #[error("{}: shard `{shard}`: {reason}", path.display())]
    Shard { path: PathBuf, shard: String, reason: String },
    /// A tensor that the checkpoint does not hold.
    #[error("{}: no tensor `{tensor}`", path.display())]
    Missing { path: PathBuf, tensor: String },
    /// A tensor of more dimensions than [`Shape`] has.
    #[error("{}: tensor `{tensor}` has {rank} dimensions, at most 4 are supported", path.display())]
    Rank { path: PathBuf, tensor: String, rank: usize },
    /// Elements that cannot become what was asked for.
    #[error("{}: tensor `{tensor}` holds {dtype}, {wanted} needed", path.display())]
    DType { path: PathBuf, tensor: String, dtype: StoredDType, wanted: &'static str },
    /// A checkpoint that does not fit the network.
    #[error(transparent)]
    Mismatch(#[from] Mismatches),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::other(error)
    }
}

/// Every way in which a checkpoint does not fit a network.
#[derive(Debug)]
pub struct Mismatches {
    /// The checkpoint.
    pub path: PathBuf,
    /// The faults, in the order in which they were met; unused tensors last.
    pub faults: Vec<Fault>,
}

/// One way in which a checkpoint does not fit a network.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Fault {
    /// The network has a parameter that the checkpoint lacks.
    Missing { tensor: String, shape: Shape },
    /// The shapes differ.
    Shape { tensor: String, expected: Shape, found: Vec<usize> },
    /// The elements are not floats.
    DType { tensor: String, expected: DType, found: StoredDType },
    /// The checkpoint holds a tensor that the network has no place for.
    Unused { tensor: String },
    /// The tensor is there but cannot be read.
    Unreadable { tensor: String, error: Box<Error> },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing { tensor, shape } => write!(f, "missing `{tensor}` {shape}"),
            Fault::Shape { tensor, expected, found } => {
                write!(f, "`{tensor}` has shape {found:?}, the network needs {expected}")
            }
            Fault::DType { tensor, expected, found } => {
                write!(f, "`{tensor}` holds {found}, the network needs {expected}")
            }
            Fault::Unused { tensor } => write!(f, "unused `{tensor}`"),
            Fault::Unreadable { tensor, error } => write!(f, "cannot read `{tensor}`: {error}"),
        }
    }
}

/// A longer list helps nobody.
const LISTED: usize = 40;

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.faults.len();
        let s = if n == 1 { "" } else { "es" };
        write!(f, "{}: does not fit the network, {n} mismatch{s}:", self.path.display())?;
        for fault in self.faults.iter().take(LISTED) {
            write!(f, "\n  {fault}")?;
        }
        if n > LISTED {
            write!(f, "\n  and {} more", n - LISTED)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatches {}
