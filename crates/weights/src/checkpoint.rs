//! A checkpoint of any supported format: lists its tensors and reads them by name.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use pheye_tensor::{DType, Shape, Tensor, bf16};
use rayon::prelude::*;

use crate::entry::{Contents, Entry, TensorInfo, gather};
use crate::file::DataFile;
use crate::sniff::{Format, format};
use crate::{Error, Result, StoredDType, convert, shards};

/// Named tensors in one file or in shards. Opening checks names, types, shapes and offsets; elements are read
/// on request.
///
/// Frameworks put a prefix before all names (`module.`, `_orig_mod.`, Lightning's `model.`). A name that is
/// not in the file is looked up with each dotted prefix that all names share. The first tensor found
/// determines the prefix for all others; [`Checkpoint::stripped_prefix`] returns it.
pub struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) files: Vec<DataFile>,
    pub(crate) contents: Contents,
    /// Every dotted prefix that all names share, shortest first.
    pub(crate) prefixes: Vec<String>,
    /// The prefix that is added to requested names; may be empty.
    pub(crate) prefix: OnceLock<String>,
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a torch zip (`.pt`, `.pth`, `.bin`), or an index of shards of either
    /// (`*.index.json`). The contents decide which, not the name.
    ///
    /// # Errors
    /// Returns an [`Error`] if the file cannot be read or is invalid. It names the file and, if possible, the
    /// tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        Checkpoint::read(DataFile::open(path.as_ref())?)
    }

    /// Opens a file that is embedded in the program (`include_bytes!`); `name` is its name in messages. Elements that
    /// need no conversion are not copied if the bytes are aligned.
    ///
    /// # Errors
    /// Returns an [`Error`] if the bytes are no valid checkpoint.
    pub fn embedded(name: impl AsRef<Path>, bytes: &'static [u8]) -> Result<Checkpoint> {
        Checkpoint::read(DataFile::embedded(name.as_ref(), bytes))
    }

    fn read(file: DataFile) -> Result<Checkpoint> {
        let path = file.path.clone();
        let format = format(&file)?;
        let (files, contents) = match format {
            Format::Index => shards::read(&file)?,
            format => {
                let contents = shards::read_single(&file, format)?;
                (vec![file], contents)
            }
        };
        let prefixes = shared_prefixes(&contents.entries);
        Ok(Checkpoint { path, format, files, contents, prefixes, prefix: OnceLock::new() })
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold the tensors: the opened file, or the shards that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The format of the opened file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The names of all tensors, sorted, as they are in the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.contents.entries.keys().map(String::as_str)
    }

    /// All tensors, sorted by name, including those that cannot be read.
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.contents.entries.iter().map(|(name, entry)| TensorInfo {
            name,
            dtype: entry.dtype,
            dims: &entry.dims,
            bytes: entry.bytes,
            file: &self.files[entry.file].path,
            unusable: entry.unusable,
        })
    }

    /// The metadata strings of a safetensors header, merged over all shards; empty for other formats.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.contents.metadata
    }

    /// The keys that lead to the state dict in a torch file, outermost first: `["model"]` for
    /// `{"model": {…}, …}`.
    pub fn state_dict_keys(&self) -> &[String] {
        &self.contents.keys
    }

    /// The prefix, including its dot, that all names of the file share and that was removed. Known once a
    /// tensor has been requested.
    pub fn stripped_prefix(&self) -> Option<&str> {
        self.prefix.get().map(String::as_str).filter(|prefix| !prefix.is_empty())
    }

    /// Shape and stored type of tensor `name`; `None` if it does not exist, has more than four dimensions, or
    /// is of an unsupported kind.
    pub fn info(&self, name: &str) -> Option<(Shape, StoredDType)> {
        let (_, entry) = self.find(name)?;
        Some((entry.shape().filter(|_| entry.unusable.is_none())?, entry.dtype))
    }

    /// The tensor `name` and its name in the file.
    pub(crate) fn find(&self, name: &str) -> Option<(&str, &Entry)> {
        let get = |prefix: &str| {
            let found = match prefix {
                "" => self.contents.entries.get_key_value(name),
                _ => self.contents.entries.get_key_value(&format!("{prefix}{name}")),
            };
            found.map(|(name, entry)| (name.as_str(), entry))
        };
        if let Some(prefix) = self.prefix.get() {
            return get(prefix);
        }
        let prefixes = std::iter::once("").chain(self.prefixes.iter().map(String::as_str));
        let (prefix, found) = prefixes.into_iter().find_map(|prefix| Some((prefix, get(prefix)?)))?;
        self.prefix.get_or_init(|| prefix.to_owned());
        Some(found)
    }

    /// `name`, a name in the file, and its remainder after each prefix that all names share.
    pub(crate) fn spellings<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let stripped = self.prefixes.iter().filter_map(|prefix| name.strip_prefix(prefix.as_str()));
        std::iter::once(name).chain(stripped)
    }

    /// Whether the name of a tensor begins with `start`, possibly after a prefix that all names share.
    pub fn has_prefix(&self, start: &str) -> bool {
        self.names().any(|name| self.spellings(name).any(|name| name.starts_with(start)))
    }

    /// Tensor `name` with its elements converted to `dtype`, rounding to nearest even. If the file stores
    /// them as `dtype`, contiguous and aligned, they are not copied: the tensor refers to the mapped file. If
    /// the file has a checksum (torch zips), it is verified.
    ///
    /// # Errors
    /// Returns [`Error::Missing`] if there is no such tensor, [`Error::Rank`] if it has more than four
    /// dimensions, [`Error::DType`] if its elements are not floats, [`Error::Unusable`] if its kind is
    /// unsupported, and [`Error::Damaged`] if the checksum does not match.
    pub fn tensor(&self, name: &str, dtype: DType) -> Result<Tensor> {
        self.tensor_of(name, self.entry(name)?, dtype)
    }

    /// [`Checkpoint::tensor`] for `entry`, the entry of `name` or a part of it.
    pub(crate) fn tensor_of(&self, name: &str, entry: &Entry, dtype: DType) -> Result<Tensor> {
        let rank = entry.dims.len();
        let shape = entry.shape().ok_or_else(|| Error::Rank {
            path: self.path.clone(),
            tensor: name.to_owned(),
            rank,
        })?;
        if dtype == DType::Int8 {
            return Ok(self.tensor_of(name, entry, DType::F32)?.to_dtype(dtype)?);
        }
        if let Some(tensor) = self.mapped(name, entry, shape, dtype)? {
            return Ok(tensor);
        }
        let mut tensor = Tensor::zeros(shape, dtype);
        match dtype {
            DType::F32 => self.convert(name, entry, tensor.f32_mut()?, convert::to_f32, "a float is")?,
            DType::Bf16 => {
                let out: &mut [bf16] = tensor.bf16_mut()?;
                self.convert(name, entry, out, convert::to_bf16, "a float is")?;
            }
            DType::Int8 => {}
        }
        Ok(tensor)
    }

    /// The elements of a floating-point tensor, exact and in row-major order.
    ///
    /// # Errors
    /// The same errors as [`Checkpoint::tensor`], except [`Error::Rank`].
    pub fn f64s(&self, name: &str) -> Result<Vec<f64>> {
        let entry = self.entry(name)?;
        let mut out = vec![0.0; entry.elements()];
        self.convert(name, entry, &mut out, convert::to_f64, "a float is")?;
        Ok(out)
    }

    /// The elements of an integer or boolean tensor (u64 excepted), in row-major order.
    ///
    /// # Errors
    /// Returns [`Error::DType`] if the elements are not integers or booleans; otherwise as
    /// [`Checkpoint::f64s`].
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let entry = self.entry(name)?;
        let mut out = vec![0; entry.elements()];
        self.convert(name, entry, &mut out, convert::to_i64, "an integer is")?;
        Ok(out)
    }

    /// The location of tensor `name`, or an error if the tensor cannot be read.
    pub(crate) fn entry(&self, name: &str) -> Result<&Entry> {
        let missing = || Error::Missing { path: self.path.clone(), tensor: name.to_owned() };
        let (_, entry) = self.find(name).ok_or_else(missing)?;
        match entry.unusable {
            None => Ok(entry),
            Some(kind) => Err(Error::Unusable { path: self.path.clone(), tensor: name.to_owned(), kind }),
        }
    }

    /// A tensor that refers to the mapped file, if its elements need no conversion.
    fn mapped(&self, name: &str, entry: &Entry, shape: Shape, dtype: DType) -> Result<Option<Tensor>> {
        let stored = match dtype {
            DType::F32 => StoredDType::F32,
            DType::Bf16 => StoredDType::Bf16,
            DType::Int8 => return Ok(None),
        };
        if entry.dtype != stored || entry.strides.is_some() || cfg!(target_endian = "big") {
            return Ok(None);
        }
        let file = &self.files[entry.file];
        let Ok(tensor) = Tensor::shared(shape, dtype, Arc::new(file.shared(entry.range())?)) else {
            return Ok(None);
        };
        file.read_ahead(entry.range());
        self.check_record(name, entry, true)?;
        Ok(Some(tensor))
    }

    /// Converts the elements of `entry` with `convert`, in parallel, releasing the pages of each piece after
    /// its conversion.
    fn convert<T: Send>(
        &self,
        name: &str,
        entry: &Entry,
        out: &mut [T],
        convert: fn(StoredDType, &[u8], &mut [T]) -> Option<()>,
        wanted: &'static str,
    ) -> Result<()> {
        let dtype = entry.dtype;
        let wrong = || Error::DType { path: self.path.clone(), tensor: name.to_owned(), dtype, wanted };
        convert(dtype, &[], &mut []).ok_or_else(wrong)?;
        let (file, size) = (&self.files[entry.file], dtype.size());
        let bytes = file.read(entry.range())?;
        let piece = PIECE / size;
        let whole = entry.is_whole_record();
        if !whole {
            self.check_record(name, entry, false)?;
        }
        if let Some(strides) = &entry.strides {
            out.par_chunks_mut(piece).enumerate().for_each(|(i, out)| {
                convert(dtype, &gather(bytes, entry, strides, i * piece..i * piece + out.len()), out);
            });
            file.give_back(entry.range());
            return Ok(());
        }
        let crc = out.par_chunks_mut(piece).enumerate().map(|(i, out)| {
            let at = i * PIECE..i * PIECE + out.len() * size;
            let mut crc = crc32fast::Hasher::new();
            if whole {
                crc.update(&bytes[at.clone()]);
            }
            convert(dtype, &bytes[at.clone()], out);
            file.give_back(entry.start + at.start as u64..entry.start + at.end as u64);
            crc
        });
        let crc = crc.reduce(crc32fast::Hasher::new, joined);
        // Read-ahead may have mapped pages behind the pieces.
        file.give_back(entry.range());
        if whole { self.compare(name, entry, crc) } else { Ok(()) }
    }

    /// Verifies the checksum of the whole record that contains `entry`, once. Its pages stay mapped only if
    /// they are to be `kept`.
    pub(crate) fn check_record(&self, name: &str, entry: &Entry, kept: bool) -> Result<()> {
        let file = &self.files[entry.file];
        match entry.record.as_ref().filter(|record| record.sound.get().is_none() && entry.elements() > 0) {
            Some(record) => self.compare(name, entry, crc_of(file, record.range(), kept)?),
            None => self.compare(name, entry, crc32fast::Hasher::new()),
        }
    }

    /// Compares `crc`, the computed checksum of the record that contains `entry`, with the stored one, once.
    pub(crate) fn compare(&self, name: &str, entry: &Entry, crc: crc32fast::Hasher) -> Result<()> {
        let sound = match &entry.record {
            Some(record) if entry.elements() > 0 => {
                *record.sound.get_or_init(|| crc.finalize() == record.crc)
            }
            _ => true,
        };
        if sound {
            return Ok(());
        }
        let path = self.files[entry.file].path.clone();
        Err(Error::Damaged { path, tensor: name.to_owned() })
    }
}

/// Bytes that one thread processes at a time: a multiple of every element size.
pub(crate) const PIECE: usize = 1 << 20;

fn crc_of(file: &DataFile, range: Range<u64>, kept: bool) -> Result<crc32fast::Hasher> {
    let pieces = file.read(range.clone())?.par_chunks(PIECE).enumerate().map(|(i, bytes)| {
        let mut crc = crc32fast::Hasher::new();
        crc.update(bytes);
        let start = range.start + (i * PIECE) as u64;
        if !kept {
            file.give_back(start..start + bytes.len() as u64);
        }
        crc
    });
    Ok(pieces.reduce(crc32fast::Hasher::new, joined))
}

/// The checksum of the concatenation of two byte ranges.
fn joined(mut first: crc32fast::Hasher, second: crc32fast::Hasher) -> crc32fast::Hasher {
    first.combine(&second);
    first
}

/// Every dotted prefix that all names share, shortest first.
fn shared_prefixes(entries: &BTreeMap<String, Entry>) -> Vec<String> {
    // Names are sorted, so a prefix shared by the first and the last is shared by all.
    let (Some((first, _)), Some((last, _))) = (entries.first_key_value(), entries.last_key_value()) else {
        return vec![];
    };
    let common = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    let dots = first.match_indices('.').take_while(|&(dot, _)| dot < common);
    dots.map(|(dot, _)| first[..=dot].to_owned()).collect()
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.path.display(), self.contents.entries.len())
    }
}
