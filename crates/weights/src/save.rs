//! Writes tensors in memory to a safetensors file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use pheye_tensor::{DType, Device, Slice, Tensor};

use crate::stream::Item;
use crate::{Result, Stored, StoredDType, save_stored};

/// Writes `tensors` and the strings `metadata` as a safetensors file, atomically (see
/// [`crate::atomic_write`]). Tensors are ordered by decreasing element size, so that each is aligned. Int8
/// tensors are written as f32.
///
/// # Errors
/// Returns [`crate::Error::Duplicate`] if a name occurs twice or is the reserved `__metadata__`, and
/// [`crate::Error::Write`] if writing fails, for example because the disk is full. The old file is then
/// unchanged.
pub fn save_safetensors<'a>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    save_stored(path, tensors.into_iter().map(|(name, tensor)| (Stored::whole(name), tensor)), metadata)
}

/// The name, shape and stored type of a tensor; int8 is stored as f32.
pub(crate) fn item(name: &str, tensor: &Tensor) -> Item {
    let dtype = match tensor.dtype() {
        DType::F32 | DType::Int8 => StoredDType::F32,
        DType::Bf16 => StoredDType::Bf16,
    };
    Item { name: name.to_owned(), dims: tensor.shape().dims().to_vec(), dtype }
}

/// Bytes that are written at a time.
pub(crate) const PIECE: usize = 1 << 16;

/// Writes the elements of `tensor` little-endian in row-major order, in pieces; int8 is dequantized to f32.
///
/// # Errors
/// Returns the error of `out`, or of the copy from the device.
pub fn write_elements(out: &mut dyn Write, tensor: &Tensor) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(PIECE);
    let mut flush = |bytes: &mut Vec<u8>| {
        out.write_all(bytes)?;
        bytes.clear();
        Ok(())
    };
    let mut tensor = tensor.to_device(&Device::Cpu).map_err(io::Error::other)?;
    if tensor.dtype() == DType::Int8 {
        tensor = tensor.to_dtype(DType::F32).map_err(io::Error::other)?;
    }
    match tensor.slice().map_err(io::Error::other)? {
        Slice::F32(values) => values.chunks(PIECE / 4).try_for_each(|piece| {
            bytes.extend(piece.iter().flat_map(|v| v.to_le_bytes()));
            flush(&mut bytes)
        }),
        Slice::Bf16(values) => values.chunks(PIECE / 4).try_for_each(|piece| {
            bytes.extend(piece.iter().flat_map(|v| v.to_le_bytes()));
            flush(&mut bytes)
        }),
        Slice::Int8(..) => Ok(()),
    }
}
