use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use pheye_tensor::{DType, Device, Slice, Tensor};
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Writes `tensors` and the strings `metadata` as safetensors, atomically (see [`atomic_write`]). Wider elements
/// come first, so that each tensor lies on a multiple of its element size.
///
/// # Errors
/// [`Error::Duplicate`] when a name occurs twice or is the format's own `__metadata__`; [`Error::Write`] when the
/// disk is full or anything else stops the write. The old file is then intact.
pub fn save_safetensors<'a>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    let mut tensors: Vec<(&str, &Tensor)> = tensors.into_iter().collect();
    tensors.sort_by_key(|(_, t)| std::cmp::Reverse(t.dtype().size()));

    let mut names = BTreeSet::from(["__metadata__"]);
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut end = 0;
    for &(name, tensor) in &tensors {
        if !names.insert(name) {
            return Err(Error::Duplicate { path: path.to_owned(), tensor: name.to_owned() });
        }
        let start = end;
        // Int8 goes out as the values it stands for.
        let (dtype, size) = match tensor.dtype() {
            DType::F32 | DType::Int8 => ("F32", 4),
            DType::Bf16 => ("BF16", 2),
        };
        end += size * tensor.shape().elements();
        let entry = json!({ "dtype": dtype, "shape": tensor.shape().dims(), "data_offsets": [start, end] });
        header.insert(name.into(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    atomic_write(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        tensors.iter().try_for_each(|(_, tensor)| write_elements(out, tensor))
    })
}

/// Little-endian, a piece at a time.
fn write_elements(out: &mut dyn Write, tensor: &Tensor) -> io::Result<()> {
    const PIECE: usize = 1 << 14;
    let mut bytes = Vec::with_capacity(4 * PIECE);
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
        Slice::F32(values) => values.chunks(PIECE).try_for_each(|piece| {
            bytes.extend(piece.iter().flat_map(|v| v.to_le_bytes()));
            flush(&mut bytes)
        }),
        Slice::Bf16(values) => values.chunks(PIECE).try_for_each(|piece| {
            bytes.extend(piece.iter().flat_map(|v| v.to_le_bytes()));
            flush(&mut bytes)
        }),
        Slice::Int8(..) => Ok(()),
    }
}

/// Replaces the file `path` by what `write` writes, or leaves it as it is: the bytes go to a new file in the same
/// folder, reach the disk, and only then take the name. A process killed in between leaves the old file, and a
/// stray `.NAME.….tmp` beside it.
///
/// # Errors
/// [`Error::Write`] when `write` or the system fails; the new file is then removed.
pub fn atomic_write(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    replace(path, write).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = fill(&temporary, write).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The new name itself must reach the disk; folders cannot be opened for that everywhere.
    #[cfg(unix)]
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}

/// Writes a new file and waits until it is on the disk.
fn fill(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    write(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()
}
