//! Streams tensors piece by piece to one file or shards, so that writing never needs a whole tensor in
//! memory.

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

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub dims: Vec<usize>,
    /// What its elements are in the file.
    pub dtype: StoredDType,
}

impl Item {
    /// The size of its elements in the file.
    pub fn bytes(&self) -> u64 {
        self.dims.iter().map(|&d| d as u64).product::<u64>() * self.dtype.size() as u64
    }
}

/// Writes the elements of a tensor: little-endian, row by row, [`Item::bytes`] of them.
pub type Elements<'a> = &'a mut dyn FnMut(&Item, &mut dyn Write) -> io::Result<()>;

/// Safetensors in a folder: one file, or shards and an index as on the hub.
#[derive(Debug, Clone, Copy)]
pub struct ShardedWriter<'a> {
    /// The folder; it is made if need be.
    pub folder: &'a Path,
    /// The names begin with it: `model` gives `model.safetensors`, or `model-00001-of-00002.safetensors` and
    /// `model.safetensors.index.json`.
    pub stem: &'a str,
    /// Bytes of tensors in a file at most; a larger tensor has a file to itself.
    pub limit: u64,
    /// Strings for the header of each file.
    pub metadata: &'a BTreeMap<String, String>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The files with tensors, in order.
    pub files: Vec<PathBuf>,
    /// Bytes of all tensors.
    pub bytes: u64,
}

impl ShardedWriter<'_> {
    /// Asks `elements` for the tensors one after the other and writes them, and tells `progress` the bytes written and
    /// all bytes. Nothing is overwritten; the index comes last; after an error, what was written is removed. So a folder
    /// with an index, or with the one file, is whole.
    ///
    /// # Errors
    /// [`Error::Exists`] for a file that is there already, [`Error::Duplicate`] for a name that occurs twice,
    /// [`Error::Write`] when the system refuses or `elements` wrote too little or too much; an [`Error`] that
    /// `elements` returns (`From` makes it an [`io::Error`]) is passed on.
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

/// An error if one of `files` is there.
///
/// # Errors
/// [`Error::Exists`] naming it.
pub fn refuse_existing<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<()> {
    let existing = files.into_iter().find(|file| file.as_ref().symlink_metadata().is_ok());
    existing.map_or(Ok(()), |file| Err(Error::Exists { path: file.as_ref().to_owned() }))
}

/// The tensors of each shard: as many as fit, in order.
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

/// Writes one safetensors file, atomically. Wider elements come first, so that each tensor lies on a multiple of its
/// element size.
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

/// Tells how many bytes pass through.
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
    /// What [`Checkpoint::write_to`] writes of tensor `name`, under that name.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn item(&self, name: &str, dtype: Option<DType>) -> Result<Item> {
        let entry = self.entry(name)?;
        let dtype = dtype.map_or(entry.dtype, stored);
        Ok(Item { name: name.to_owned(), dims: entry.dims.clone(), dtype })
    }

    /// Writes the elements of tensor `name` little-endian, row by row: as they are stored, of whatever type, or converted
    /// to `dtype` (int8 as f32). A piece of a megabyte is in memory at a time; a checksum is compared where the file has one.
    ///
    /// # Errors
    /// What `out` returns, or an [`Error`] inside: those of [`Checkpoint::tensor`].
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
        // Reading ahead brought pages in behind the pieces.
        file.give_back(entry.range());
        if whole {
            self.compare(name, entry, crc)?;
        }
        Ok(())
    }
}

/// How a file holds what is `dtype` in memory: int8 goes out as the values it stands for.
fn stored(dtype: DType) -> StoredDType {
    match dtype {
        DType::F32 | DType::Int8 => StoredDType::F32,
        DType::Bf16 => StoredDType::Bf16,
    }
}

/// `None` when `from` holds no floats and is not what is wanted.
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
