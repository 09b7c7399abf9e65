use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::buffer::{Buffer, detached};
use crate::{Arena, DType, Error, Result, Shape, Slice};

/// A contiguous, row-major view of a shared buffer.
#[derive(Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    start: usize,
    shape: Shape,
    dtype: DType,
}

impl Tensor {
    /// A tensor in arena memory, its contents unspecified: the caller writes every element.
    pub fn empty(arena: &Arena, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let shape = shape.into();
        Tensor { buffer: arena.take(shape.elements() * dtype.size()), start: 0, shape, dtype }
    }

    /// A tensor of zeros in memory of its own.
    pub fn zeros(shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let shape = shape.into();
        Tensor { buffer: detached(shape.elements() * dtype.size()), start: 0, shape, dtype }
    }

    /// A copy of `values` in memory of its own.
    ///
    /// # Errors
    /// [`Error::Len`] when their number is not that of the shape.
    pub fn from_f32(shape: impl Into<Shape>, values: &[f32]) -> Result<Tensor> {
        let mut t = Tensor::zeros(shape, DType::F32);
        let (shape, len) = (t.shape, values.len());
        if len != shape.elements() {
            return Err(Error::Len { shape, len });
        }
        t.f32_mut()?.copy_from_slice(values);
        Ok(t)
    }

    /// The same values in another element type; rounds to nearest even. Shares memory when nothing changes.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        let mut out = match dtype {
            _ if dtype == self.dtype => return Ok(self.clone()),
            _ => Tensor::zeros(self.shape, dtype),
        };
        match self.slice() {
            Slice::F32(x) => out.bf16_mut()?.convert_from_f32_slice(x),
            Slice::Bf16(x) => x.convert_to_f32_slice(out.f32_mut()?),
        }
        Ok(out)
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype.size()
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`Error::View`] when the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let view = shape.into();
        if view.elements() != self.shape.elements() {
            return Err(Error::View { shape: self.shape, view, start: 0 });
        }
        Ok(Tensor { shape: view, ..self.clone() })
    }

    /// Rows `rows` of the matrix [rows, cols] that this tensor is, sharing its memory.
    ///
    /// # Errors
    /// [`Error::View`] when there are fewer rows.
    pub fn rows(&self, rows: Range<usize>) -> Result<Tensor> {
        let cols = self.shape.cols();
        let view = Shape::from([rows.len(), cols]);
        if rows.end > self.shape.rows() || rows.start > rows.end {
            return Err(Error::View { shape: self.shape, view, start: rows.start * cols });
        }
        Ok(Tensor { start: self.start + rows.start * cols, shape: view, ..self.clone() })
    }

    /// The elements, by type.
    pub fn slice(&self) -> Slice<'_> {
        let Buffer::Cpu(buffer) = &*self.buffer;
        let range = self.start..self.start + self.shape.elements();
        match self.dtype {
            DType::F32 => Slice::F32(&bytemuck::cast_slice(buffer.bytes())[range]),
            DType::Bf16 => Slice::Bf16(&bytemuck::cast_slice(buffer.bytes())[range]),
        }
    }

    /// The elements of an f32 tensor.
    ///
    /// # Errors
    /// [`Error::DType`] for any other.
    pub fn f32(&self) -> Result<&[f32]> {
        match self.slice() {
            Slice::F32(x) => Ok(x),
            Slice::Bf16(_) => Err(self.wrong_type(DType::F32)),
        }
    }

    /// The elements of an f32 tensor, to write.
    ///
    /// # Errors
    /// [`Error::DType`] for any other type, [`Error::Shared`] when another tensor views the same buffer.
    pub fn f32_mut(&mut self) -> Result<&mut [f32]> {
        self.typed_mut(DType::F32)
    }

    /// The elements of a bf16 tensor, to write.
    ///
    /// # Errors
    /// As [`Tensor::f32_mut`].
    pub fn bf16_mut(&mut self) -> Result<&mut [bf16]> {
        self.typed_mut(DType::Bf16)
    }

    /// Whether two tensors view the same memory.
    pub fn shares_memory_with(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.buffer, &other.buffer)
    }

    fn typed_mut<T: bytemuck::Pod>(&mut self, dtype: DType) -> Result<&mut [T]> {
        if self.dtype != dtype {
            return Err(self.wrong_type(dtype));
        }
        let range = self.start..self.start + self.shape.elements();
        match Arc::get_mut(&mut self.buffer) {
            Some(Buffer::Cpu(buffer)) => Ok(&mut bytemuck::cast_slice_mut(buffer.bytes_mut())[range]),
            None => Err(Error::Shared { shape: self.shape }),
        }
    }

    fn wrong_type(&self, expected: DType) -> Error {
        Error::DType { shape: self.shape, found: self.dtype, expected }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({} {})", self.dtype, self.shape)
    }
}
