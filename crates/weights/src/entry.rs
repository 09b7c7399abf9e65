//! The locations of tensors in their files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use pheye_tensor::Shape;

use crate::{StoredDType, Unusable};

/// The location of a tensor, checked to be inside its file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) file: usize,
    pub(crate) dtype: StoredDType,
    pub(crate) dims: Vec<usize>,
    /// Strides in elements, if the tensor is not contiguous.
    pub(crate) strides: Option<Vec<usize>>,
    /// File offset of the first element.
    pub(crate) start: u64,
    /// The size of its elements in bytes.
    pub(crate) bytes: u64,
    /// The record that contains it, if that has a checksum.
    pub(crate) record: Option<Arc<Record>>,
    /// The reason why the tensor can only be listed, if there is one; then only `dtype`, `dims` and `bytes` are
    /// valid.
    pub(crate) unusable: Option<Unusable>,
}

/// A range of a file with one checksum; it may contain several tensors.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// The CRC-32 of the bytes; 0 if the writer of the file computed none.
    pub(crate) crc: u32,
    /// The outcome of the checksum comparison: whether it matched. Set by the first comparison.
    pub(crate) sound: OnceLock<bool>,
}

impl Record {
    pub(crate) fn range(&self) -> Range<u64> {
        self.start..self.start + self.len
    }
}

impl Entry {
    pub(crate) fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// The byte range from its first to its last element in the file.
    pub(crate) fn range(&self) -> Range<u64> {
        let elements = match &self.strides {
            Some(strides) if self.elements() > 0 => {
                1 + self.dims.iter().zip(strides).map(|(d, s)| (d - 1) * s).sum::<usize>()
            }
            _ => self.elements(),
        };
        self.start..self.start + (elements * self.dtype.size()) as u64
    }

    /// Whether the tensor is contiguous and occupies its record exactly, so that reading it reads the whole
    /// record.
    pub(crate) fn is_whole_record(&self) -> bool {
        self.strides.is_none() && self.record.as_ref().is_some_and(|record| record.range() == self.range())
    }

    /// The transpose of a matrix, over the same bytes; `None` if it has not two dimensions.
    pub(crate) fn transposed(&self) -> Option<Entry> {
        let &[rows, cols] = &self.dims[..] else { return None };
        let strides = match self.strides.as_deref() {
            Some(&[row, col]) => [row, col],
            _ => [cols, 1],
        };
        let strides = Some(vec![strides[1], strides[0]]);
        Some(Entry { dims: vec![cols, rows], strides, ..self.clone() })
    }

    /// The part with these indices of the first dimension, which has them.
    pub(crate) fn rows(&self, which: Range<usize>) -> Entry {
        let mut part = self.clone();
        part.dims[0] = which.len();
        // Of a tensor without elements, the product of some dimensions may overflow.
        if part.elements() > 0 {
            let stride = match &self.strides {
                Some(strides) => strides[0],
                None => self.dims[1..].iter().product(),
            };
            part.start += (which.start * stride * self.dtype.size()) as u64;
        }
        part.bytes = (part.elements() * self.dtype.size()) as u64;
        part
    }

    pub(crate) fn shape(&self) -> Option<Shape> {
        Shape::try_new(&self.dims)
    }
}

/// The tensors of a file, or of an index and its shards.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// The keys under which torch's state dict was found, outermost first.
    pub(crate) keys: Vec<String>,
}

/// Copies the elements `which` (row-major indices) of a strided tensor. `bytes` begins with its first
/// element.
pub(crate) fn gather(bytes: &[u8], entry: &Entry, strides: &[usize], which: Range<usize>) -> Vec<u8> {
    let size = entry.dtype.size();
    let mut packed = Vec::with_capacity(which.len() * size);
    // The index of the element in each dimension, counted up from that of the first.
    let mut index = vec![0; entry.dims.len()];
    let (mut rest, mut at) = (which.start, 0);
    for ((i, d), s) in index.iter_mut().zip(&entry.dims).zip(strides).rev() {
        *i = rest % d;
        at += *i * s;
        rest /= d;
    }
    for _ in which {
        packed.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for ((i, d), s) in index.iter_mut().zip(&entry.dims).zip(strides).rev() {
            *i += 1;
            at += s;
            if *i < *d {
                break;
            }
            at -= d * s;
            *i = 0;
        }
    }
    packed
}

/// A tensor as a checkpoint lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// The element type in the file.
    pub dtype: StoredDType,
    /// The dimensions, outermost first, of any number; empty for a scalar.
    pub dims: &'a [usize],
    /// The size of the elements in bytes; 0 if the file does not contain them.
    pub bytes: u64,
    /// The file that contains the tensor.
    pub file: &'a Path,
    /// The reason why the tensor cannot be read, if there is one.
    pub unusable: Option<Unusable>,
}
