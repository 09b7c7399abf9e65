//! Writes tensors in pieces to one file or shards, so that no whole tensor needs to be in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use half::bf16;
use pheye_tensor::DType;
use serde_json::{Map, Value, json};

use crate::checkpoint::PIECE;
use crate::entry::gather;
use crate::error::name;
use crate::{Checkpoint, Error, Result, StoredDType, atomic_write, convert};

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The name in the file.
    pub name: String,
    /// The dimensions, outermost first.
    pub dims: Vec<usize>,
    /// The element type in the file.
    pub dtype: StoredDType,
}

impl Item {
    /// The size of the elements in the file, in bytes.
    pub fn bytes(&self) -> u64 {
        self.dims.iter().map(|&d| d as u64).product::<u64>() * self.dtype.size() as u64
    }
}

/// Writes the elements of a tensor: little-endian, in row-major order, [`Item::bytes`] bytes.
pub type Elements<'a> = &'a mut dyn FnMut(&Item, &mut dyn Write) -> io::Result<()>;

/// Writes safetensors to a folder: one file, or shards with an index in the layout of the Hugging Face hub.
#[derive(Debug, Clone, Copy)]
pub struct ShardedWriter<'a> {
    /// The folder, which is created if necessary.
    pub folder: &'a Path,
    /// The start of the file names: `model` gives `model.safetensors`, or `model-00001-of-00002.safetensors`
    /// and `model.safetensors.index.json`.
    pub stem: &'a str,
    /// The maximum bytes of tensors per file; a larger tensor gets a file of its own.
    pub limit: u64,
    /// The metadata strings for the header of each file.
    pub metadata: &'a BTreeMap<String, String>,
}

/// The result of [`ShardedWriter::save`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The files with tensors, in order.
    pub files: Vec<PathBuf>,
    /// The total bytes of all tensors.
    pub bytes: u64,
}

impl ShardedWriter<'_> {
    /// Writes the tensors, whose elements `elements` writes one tensor after the other, and calls `progress`
    /// with the bytes written so far and the total. Existing files are never overwritten. The index is
    /// written last, and after an error all new files are removed, so a folder with an index, or with the
    /// single file, is complete.
    ///
    /// # Errors
    /// Returns [`Error::Exists`] if a file already exists, [`Error::Duplicate`] if a name occurs twice, and
    /// [`Error::Write`] if the system fails or `elements` writes too few or too many bytes. An [`Error`] that
    /// `elements` returned inside an [`io::Error`] is passed on.
    pub fn save(
        &self,
        items: &[Item],
        elements: Elements,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Written> {
        let shards = cut(items, self.limit);
        let index = self.folder.join(format!("{}.safetensors.index.json", self.stem));
        let whole = self.folder.join(format!("{}.safetensors", self.stem));
        let names: Vec<String> = (1..=shards.len())
            .map(|i| format!("{}-{i:05}-of-{:05}.safetensors", self.stem, shards.len()))
            .collect();
        let files: Vec<PathBuf> = match &names[..] {
            [_] => vec![whole.clone()],
            _ => names.iter().map(|name| self.folder.join(name)).collect(),
        };
        refuse_existing(files.iter().chain([&index, &whole]))?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = items.iter().find(|item| !seen.insert(&item.name)) {
            return Err(Error::Duplicate { path: whole, tensor: twice.name.clone() });
        }
        fs::create_dir_all(self.folder)
            .map_err(|source| Error::Write { path: self.folder.to_owned(), source })?;

        let bytes = items.iter().map(Item::bytes).sum();
        let mut done = 0;
        let mut shards_written = || {
            for (file, shard) in files.iter().zip(&shards) {
                write_file(file, shard, self.metadata, &mut |item, out| {
                    let mut told = |n| {
                        done += n;
                        progress(done, bytes);
                    };
                    elements(item, &mut Counted { out, told: &mut told })
                })?;
            }
            if files.len() == 1 {
                return Ok(());
            }
            let placed = shards.iter().zip(&names);
            let map = placed.flat_map(|(shard, name)| shard.iter().map(move |item| (&item.name, name)));
            let map: BTreeMap<_, _> = map.collect();
            let json = json!({ "metadata": { "total_size": bytes }, "weight_map": map });
            atomic_write(&index, |out| writeln!(out, "{json:#}"))
        };
        let written = shards_written();
        if written.is_err() {
            // The first error is the one to report.
            files.iter().for_each(|file| _ = fs::remove_file(file));
        }
        written.map(|()| Written { files, bytes })
    }
}

/// Returns an error if one of `files` exists.
///
/// # Errors
/// Returns [`Error::Exists`] with the first such file.
pub fn refuse_existing<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<()> {
    let existing = files.into_iter().find(|file| file.as_ref().symlink_metadata().is_ok());
    existing.map_or(Ok(()), |file| Err(Error::Exists { path: file.as_ref().to_owned() }))
}

/// Partitions the tensors into shards, in order, each as large as `limit` allows.
fn cut(items: &[Item], limit: u64) -> Vec<Vec<&Item>> {
    let (mut shards, mut size) = (vec![Vec::new()], 0);
    for item in items {
        if size + item.bytes() > limit && size > 0 {
            shards.push(Vec::new());
            size = 0;
        }
        size += item.bytes();
        shards.last_mut().into_iter().for_each(|shard: &mut Vec<_>| shard.push(item));
    }
    shards
}

/// Writes one safetensors file, atomically. Tensors are ordered by decreasing element size, so that each is
/// aligned to its element size.
pub(crate) fn write_file(
    path: &Path,
    items: &[&Item],
    metadata: &BTreeMap<String, String>,
    elements: Elements,
) -> Result<()> {
    let mut items = items.to_vec();
    items.sort_by_key(|item| std::cmp::Reverse(item.dtype.size()));
    let mut names = BTreeSet::from(["__metadata__"]);
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut end = 0;
    for &item in &items {
        if !names.insert(&item.name) {
            return Err(Error::Duplicate { path: path.to_owned(), tensor: item.name.clone() });
        }
        let start = end;
        end += item.bytes();
        let dtype = item.dtype.to_string();
        let entry = json!({ "dtype": dtype, "shape": item.dims, "data_offsets": [start, end] });
        header.insert(item.name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    atomic_write(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for item in items {
            let mut wrote = 0;
            elements(item, &mut Counted { out, told: &mut |n| wrote += n })?;
            if wrote != item.bytes() {
                let fault = format!("tensor `{}` has {} bytes, not {wrote}", name(&item.name), item.bytes());
                return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
            }
        }
        Ok(())
    })
}

/// Calls `told` with the number of bytes of each write.
struct Counted<'a> {
    out: &'a mut dyn Write,
    told: &'a mut dyn FnMut(u64),
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        (self.told)(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Checkpoint {
    /// The description of tensor `name` for [`Checkpoint::write_to`] with the same arguments.
    ///
    /// # Errors
    /// Returns [`Error::Missing`] if there is no such tensor, and [`Error::Unusable`] if it cannot be read.
    pub fn item(&self, name: &str, dtype: Option<DType>) -> Result<Item> {
        let entry = self.entry(name)?;
        let dtype = dtype.map_or(entry.dtype, stored);
        Ok(Item { name: name.to_owned(), dims: entry.dims.clone(), dtype })
    }

    /// Writes the elements of tensor `name` little-endian in row-major order: unchanged, whatever their type,
    /// or converted to `dtype` (int8 as f32). It processes one megabyte at a time, and verifies the checksum
    /// if the file has one.
    ///
    /// # Errors
    /// Returns the error of `out`, or an [`Error`] inside an [`io::Error`]: [`Error::Missing`],
    /// [`Error::Unusable`], [`Error::DType`] if the elements to convert are not floats, and
    /// [`Error::Damaged`] if the checksum does not match.
    pub fn write_to(&self, name: &str, dtype: Option<DType>, out: &mut dyn Write) -> io::Result<()> {
        let entry = self.entry(name)?;
        let wanted = dtype.map_or(entry.dtype, stored);
        let file = &self.files[entry.file];
        let bytes = file.read(entry.range())?;
        let (elements, size) = (entry.elements(), entry.dtype.size());
        let whole = entry.is_whole_record();
        if !whole {
            self.check_record(name, entry, false)?;
        }
        let mut crc = crc32fast::Hasher::new();
        for from in (0..elements).step_by(PIECE / size) {
            let which = from..elements.min(from + PIECE / size);
            let piece = match &entry.strides {
                Some(strides) => Cow::Owned(gather(bytes, entry, strides, which.clone())),
                None => Cow::Borrowed(&bytes[which.start * size..which.end * size]),
            };
            if whole {
                crc.update(&piece);
            }
            let converted = converted(entry.dtype, wanted, &piece).ok_or_else(|| Error::DType {
                path: self.path.clone(),
                tensor: name.to_owned(),
                dtype: entry.dtype,
                wanted: "a float is",
            })?;
            out.write_all(&converted)?;
            if entry.strides.is_none() {
                let at = |i: usize| entry.start + (i * size) as u64;
                file.give_back(at(which.start)..at(which.end));
            }
        }
        // Read-ahead may have mapped pages behind the pieces.
        file.give_back(entry.range());
        if whole {
            self.compare(name, entry, crc)?;
        }
        Ok(())
    }
}

/// The stored type of a tensor of type `dtype`; int8 is stored as f32.
fn stored(dtype: DType) -> StoredDType {
    match dtype {
        DType::F32 | DType::Int8 => StoredDType::F32,
        DType::Bf16 => StoredDType::Bf16,
    }
}

/// Converts elements from `from` to `to`. Returns `None` if the types differ and `from` is not a float.
fn converted(from: StoredDType, to: StoredDType, bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    if from == to {
        return Some(Cow::Borrowed(bytes));
    }
    let elements = bytes.len() / from.size();
    if to == StoredDType::Bf16 {
        let mut out = vec![bf16::ZERO; elements];
        convert::to_bf16(from, bytes, &mut out)?;
        return Some(out.iter().flat_map(|v| v.to_le_bytes()).collect());
    }
    let mut out = vec![0.0f32; elements];
    convert::to_f32(from, bytes, &mut out)?;
    Some(out.iter().flat_map(|v| v.to_le_bytes()).collect())
}
