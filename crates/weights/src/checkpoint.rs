use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use pheye_tensor::{DType, Shape, Tensor, bf16};

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

    /// Tensor `name` with its elements converted to `dtype`, rounding to nearest even.
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

    fn entry(&self, name: &str) -> Result<&Entry> {
        let missing = || Error::Missing { path: self.path.clone(), tensor: name.to_owned() };
        self.entries.get(name).ok_or_else(missing)
    }

    fn convert<T>(
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
        let file = &self.files[entry.file];
        if let Some(strides) = &entry.strides {
            let packed = gather(file, entry, strides)?;
            return convert(dtype, &packed, out).ok_or_else(wrong);
        }
        let (mut done, mut crc) = (0, crc32fast::Hasher::new());
        let end = entry.start + (entry.elements() * dtype.size()) as u64;
        file.pieces(entry.start..end, |bytes| {
            if entry.crc.is_some() {
                crc.update(bytes);
            }
            let n = bytes.len() / dtype.size();
            convert(dtype, bytes, &mut out[done..done + n]);
            done += n;
        })?;
        if entry.crc.is_some_and(|expected| expected != crc.finalize()) {
            return Err(Error::Damaged { path: file.path.clone(), tensor: name.to_owned() });
        }
        Ok(())
    }
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

/// The bytes of a strided tensor, put in row-major order.
fn gather(file: &DataFile, entry: &Entry, strides: &[usize]) -> Result<Vec<u8>> {
    let (size, elements) = (entry.dtype.size(), entry.elements());
    if elements == 0 {
        return Ok(Vec::new());
    }
    let last: usize = entry.dims.iter().zip(strides).map(|(d, s)| (d - 1) * s).sum();
    let bytes = file.read(entry.start..entry.start + ((last + 1) * size) as u64)?;
    let mut packed = Vec::with_capacity(elements * size);
    let mut index = vec![0; entry.dims.len()];
    for _ in 0..elements {
        let at: usize = index.iter().zip(strides).map(|(i, s)| i * s).sum();
        packed.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for (i, &d) in index.iter_mut().zip(&entry.dims).rev() {
            *i += 1;
            if *i < d {
                break;
            }
            *i = 0;
        }
    }
    Ok(packed)
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.path.display(), self.entries.len())
    }
}
