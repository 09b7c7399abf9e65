//! `golden.safetensors`: inputs, and the outputs of every stage as computed by PyTorch.

use std::path::Path;

use pheye_tensor::{DType, Tensor};
use pheye_weights::Checkpoint;

use crate::{Error, Result};

pub(crate) struct Golden(Checkpoint);

impl Golden {
    pub(crate) fn open(path: &Path) -> Result<Golden> {
        Ok(Golden(Checkpoint::open(path)?))
    }

    pub(crate) fn fault(&self, name: &str, why: impl Into<String>) -> Error {
        Error::Entry { path: self.0.path().to_owned(), name: name.to_owned(), why: why.into() }
    }

    /// Names of all entries that start with `prefix`, in the order of the file.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        self.0.names().filter(|n| n.starts_with(prefix)).map(str::to_owned).collect()
    }

    /// The values of an entry as f64 (exact for f32, f64 and integers below 2⁵³), or `None` if there is no
    /// such entry.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Vec<f64>>> {
        if !self.0.names().any(|n| n == name) {
            return Ok(None);
        }
        match self.0.f64s(name) {
            Ok(values) => Ok(Some(values)),
            Err(pheye_weights::Error::DType { .. }) => {
                Ok(Some(self.0.integers(name)?.into_iter().map(|v| v as f64).collect()))
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Result<Vec<f64>> {
        self.find(name)?.ok_or_else(|| self.fault(name, "is missing"))
    }

    /// The values of an entry, which must be `len`.
    pub(crate) fn values(&self, name: &str, len: usize) -> Result<Vec<f64>> {
        let values = self.get(name)?;
        match values.len() == len {
            true => Ok(values),
            false => Err(self.fault(name, format!("has {} values, not {len}", values.len()))),
        }
    }

    /// An f32 entry, or `None` if there is no such entry.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        match self.0.info(name) {
            Some(_) => Ok(Some(self.0.tensor(name, DType::F32)?)),
            None => Ok(None),
        }
    }

    /// The rows of a matrix of integers, `[rows, cols]`.
    pub(crate) fn rows(&self, name: &str) -> Result<Vec<Vec<i64>>> {
        let (shape, _) = self.0.info(name).ok_or_else(|| self.fault(name, "is missing"))?;
        let values = self.0.integers(name)?;
        Ok(values.chunks(shape.cols().max(1)).map(<[i64]>::to_vec).collect())
    }
}
