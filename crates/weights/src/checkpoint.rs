use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pheye_tensor::{DType, Shape, Tensor, bf16};
use rayon::prelude::*;

use crate::file::DataFile;
use crate::header::Header;
use crate::sniff::{Format, format};
use crate::{Error, Result, StoredDType, convert, header, shards, torch};

/// Named tensors in one file or in shards. Opening reads and checks names, types, shapes and places; the elements
/// are read when asked for.
pub struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) files: Vec<DataFile>,
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Where a tensor lies: checked to be inside its file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) file: usize,
    pub(crate) dtype: StoredDType,
    pub(crate) dims: Vec<usize>,
    /// Steps between elements, where they do not simply follow each other.
    pub(crate) strides: Option<Vec<usize>>,
    /// Of the first element, in the file.
    pub(crate) start: u64,
    /// Checksum of the elements, where the file has one.
    pub(crate) crc: Option<u32>,
}

impl Entry {
    pub(crate) fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// The size of its elements.
    pub(crate) fn bytes(&self) -> u64 {
        (self.elements() * self.dtype.size()) as u64
    }

    /// The bytes from its first element to its last, in the file.
    pub(crate) fn range(&self) -> Range<u64> {
        let elements = match &self.strides {
            Some(strides) if self.elements() > 0 => {
                1 + self.dims.iter().zip(strides).map(|(d, s)| (d - 1) * s).sum::<usize>()
            }
            _ => self.elements(),
        };
        self.start..self.start + (elements * self.dtype.size()) as u64
    }

    pub(crate) fn shape(&self) -> Option<Shape> {
        Shape::try_new(&self.dims)
    }
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a torch zip (`.pt`, `.pth`, `.bin`), or an index of shards of either
    /// (`*.index.json`). The contents decide which, not the name.
    ///
    /// # Errors
    /// Names the file, and the tensor where one is at fault; see [`Error`].
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let file = DataFile::open(path)?;
        let (files, (entries, metadata)) = match format(&file)? {
            Format::Index => shards::read(&file)?,
            format => {
                let header = read_single(&file, format)?;
                (vec![file], header)
            }
        };
        Ok(Checkpoint { path: path.to_owned(), files, entries, metadata })
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The free-form strings in a safetensors header; empty for other formats.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Shape and stored type of tensor `name`; `None` when there is no such tensor or it has more than four
    /// dimensions.
    pub fn info(&self, name: &str) -> Option<(Shape, StoredDType)> {
        let entry = self.entries.get(name)?;
        Some((entry.shape()?, entry.dtype))
    }

    /// Tensor `name` with its elements converted to `dtype`, rounding to nearest even. Where the file holds them as
    /// `dtype` already, one after the other and aligned, they are not copied: the tensor lies in the mapped file. Where
    /// the file has a checksum of them (torch zips), it is compared.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Rank`] above four dimensions, [`Error::DType`] when it holds no floats,
    /// [`Error::Damaged`] when its bytes do not match their checksum.
    pub fn tensor(&self, name: &str, dtype: DType) -> Result<Tensor> {
        let entry = self.entry(name)?;
        let rank = entry.dims.len();
        let shape = entry.shape().ok_or_else(|| Error::Rank {
            path: self.path.clone(),
            tensor: name.to_owned(),
            rank,
        })?;
        if dtype == DType::Int8 {
            return Ok(self.tensor(name, DType::F32)?.to_dtype(dtype)?);
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

    /// The elements of a tensor of floats, exactly, row by row.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn f64s(&self, name: &str) -> Result<Vec<f64>> {
        let entry = self.entry(name)?;
        let mut out = vec![0.0; entry.elements()];
        self.convert(name, entry, &mut out, convert::to_f64, "a float is")?;
        Ok(out)
    }

    /// The elements of a tensor of integers or booleans (u64 excepted), row by row.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let entry = self.entry(name)?;
        let mut out = vec![0; entry.elements()];
        self.convert(name, entry, &mut out, convert::to_i64, "an integer is")?;
        Ok(out)
    }

    pub(crate) fn entry(&self, name: &str) -> Result<&Entry> {
        let missing = || Error::Missing { path: self.path.clone(), tensor: name.to_owned() };
        self.entries.get(name).ok_or_else(missing)
    }

    /// The tensor as it lies in the file, if its elements are as wanted.
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
        match entry.crc {
            // This also brings the pages into memory.
            Some(_) => self.check(name, entry, crc_of(file.read(entry.range())?))?,
            None => file.read_ahead(entry.range()),
        }
        Ok(Some(tensor))
    }

    /// The elements of `entry` by `convert`, in parallel, each piece of the file given back once it is converted.
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
            if entry.crc.is_some() {
                crc.update(&bytes[at.clone()]);
            }
            convert(dtype, &bytes[at.clone()], out);
            file.give_back(entry.start + at.start as u64..entry.start + at.end as u64);
            crc
        });
        let crc = crc.reduce(crc32fast::Hasher::new, joined);
        // Reading ahead brought pages in behind the pieces.
        file.give_back(entry.range());
        self.check(name, entry, crc)
    }

    pub(crate) fn check(&self, name: &str, entry: &Entry, crc: crc32fast::Hasher) -> Result<()> {
        if entry.crc.is_some_and(|expected| expected != crc.finalize()) {
            let path = self.files[entry.file].path.clone();
            return Err(Error::Damaged { path, tensor: name.to_owned() });
        }
        Ok(())
    }
}

/// Bytes that one thread takes at a time: a multiple of every element size.
pub(crate) const PIECE: usize = 1 << 20;

fn crc_of(bytes: &[u8]) -> crc32fast::Hasher {
    let piece = |bytes: &[u8]| {
        let mut crc = crc32fast::Hasher::new();
        crc.update(bytes);
        crc
    };
    bytes.par_chunks(PIECE).map(piece).reduce(crc32fast::Hasher::new, joined)
}

/// The checksum of two stretches, one after the other.
fn joined(mut first: crc32fast::Hasher, second: crc32fast::Hasher) -> crc32fast::Hasher {
    first.combine(&second);
    first
}

/// The tensors of a file that holds their bytes itself.
pub(crate) fn read_single(file: &DataFile, format: Format) -> Result<Header> {
    match format {
        Format::Safetensors => header::read(file),
        Format::Torch => Ok((torch::read(file)?, BTreeMap::new())),
        Format::Index => {
            let looks_like = "JSON, perhaps an index of shards".to_owned();
            Err(Error::NotACheckpoint { path: file.path.clone(), looks_like })
        }
    }
}

/// Elements `which` of a strided tensor, counted row by row; `bytes` begin with its first element.
pub(crate) fn gather(bytes: &[u8], entry: &Entry, strides: &[usize], which: Range<usize>) -> Vec<u8> {
    let size = entry.dtype.size();
    let mut packed = Vec::with_capacity(which.len() * size);
    for element in which {
        let (mut rest, mut at) = (element, 0);
        for (d, s) in entry.dims.iter().zip(strides).rev() {
            at += rest % d * s;
            rest /= d;
        }
        packed.extend_from_slice(&bytes[at * size..(at + 1) * size]);
    }
    packed
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.path.display(), self.entries.len())
    }
}
