//! Golden data: tensors that another implementation computed, in a safetensors file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pheye_tensor::{Init, Shape, Source, Tensor};
use safetensors::{Dtype, SafeTensors};

use crate::{Report, Rule};

/// The elements of a golden tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// 64-bit integers.
    I64(Vec<i64>),
}

/// The tensors of a golden file.
#[derive(Debug, Clone)]
pub struct Golden {
    path: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Values)>,
}

impl Golden {
    /// Reads all tensors of a file.
    ///
    /// # Panics
    /// If the file cannot be read or holds a dtype other than f32, f64 and i64.
    pub fn open(path: impl AsRef<Path>) -> Golden {
        let path = path.as_ref();
        let at = path.display();
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{at}: {e}"));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{at}: {e}"));
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(words(view.data(), f32::from_le_bytes)),
                Dtype::F64 => Values::F64(words(view.data(), f64::from_le_bytes)),
                Dtype::I64 => Values::I64(words(view.data(), i64::from_le_bytes)),
                other => panic!("{at}: `{name}` holds {other:?}"),
            };
            tensors.insert(name.to_owned(), (view.shape().to_vec(), values));
        }
        Golden { path: path.to_owned(), tensors }
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape and the elements of a tensor.
    ///
    /// # Panics
    /// If there is no tensor of this name.
    pub fn get(&self, name: &str) -> (&[usize], &Values) {
        let found = self.tensors.get(name);
        let (shape, values) = found.unwrap_or_else(|| panic!("{}: no `{name}`", self.path.display()));
        (shape, values)
    }

    /// The elements of an f32 tensor.
    ///
    /// # Panics
    /// If there is no tensor of this name, or it is not f32.
    pub fn f32(&self, name: &str) -> &[f32] {
        match self.get(name).1 {
            Values::F32(x) => x,
            _ => panic!("{}: `{name}` is not f32", self.path.display()),
        }
    }

    /// The elements of an i64 tensor.
    ///
    /// # Panics
    /// If there is no tensor of this name, or it is not i64.
    pub fn i64(&self, name: &str) -> &[i64] {
        match self.get(name).1 {
            Values::I64(x) => x,
            _ => panic!("{}: `{name}` is not i64", self.path.display()),
        }
    }

    /// The elements of an f32 or f64 tensor, converted to f64.
    ///
    /// # Panics
    /// If there is no tensor of this name, or it holds integers.
    pub fn f64(&self, name: &str) -> Vec<f64> {
        match self.get(name).1 {
            Values::F64(x) => x.clone(),
            Values::F32(x) => x.iter().map(|&x| x.into()).collect(),
            Values::I64(_) => panic!("{}: `{name}` holds integers", self.path.display()),
        }
    }

    /// Compares `out` with `NAME_f64`. The error of the plain formula in `precision`, f32 or bf16, is
    /// `NAME_PRECISION_error`, as `golden.py` of this crate writes it.
    ///
    /// # Panics
    /// If there are no such tensors, or the lengths differ.
    pub fn compare(&self, rule: Rule, name: &str, precision: &str, out: &[f32]) -> Report {
        let error = self.f64(&format!("{name}_{precision}_error"))[0];
        rule.compare_with(format!("{name} in {precision}"), out, error, &self.f64(&format!("{name}_f64")))
    }
}

/// The parameters of a network, by name.
impl Source for &Golden {
    /// # Panics
    /// If there is no such f32 tensor, or it has another shape.
    fn tensor(&mut self, name: &str, shape: Shape, _: Init) -> Tensor {
        assert_eq!(self.get(name).0, shape.dims(), "{}: shape of `{name}`", self.path.display());
        Tensor::from_f32(shape, self.f32(name)).expect("as many elements as the shape has")
    }

    fn shape_of(&self, name: &str) -> Option<Shape> {
        self.tensors.get(name).and_then(|(shape, _)| Shape::try_new(shape))
    }
}

fn words<const N: usize, T>(bytes: &[u8], f: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&w| f(w)).collect()
}
