//! The tensor: a contiguous, row-major view of a shared buffer, its views and its conversions.

use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use half::slice::HalfFloatSliceExt;

use pheye_kernels::{Gpu, Region};

use crate::buffer::{Buffer, SharedBuffer, detached, detached_gpu};
use crate::dtype::scales_offset;
use crate::int8;
use crate::{Arena, DType, Device, Error, Result, Shape, Slice};

/// A contiguous, row-major view of a shared buffer.
#[derive(Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    start: usize,
    shape: Shape,
    dtype: DType,
}

impl Tensor {
    /// A tensor in arena memory with unspecified contents. The caller must write every element.
    ///
    /// # Errors
    /// [`Error::Gpu`] or [`Error::OutOfMemory`] when the device or the host is out of memory.
    pub fn empty(arena: &Arena, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let shape = shape.into();
        Ok(Tensor { buffer: arena.take(dtype.storage(shape))?, start: 0, shape, dtype })
    }

    /// A tensor of zeros on `device`, outside any arena.
    ///
    /// # Errors
    /// [`Error::Gpu`] when a GPU is out of memory.
    pub fn zeros_on(device: &Device, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let Device::Gpu(gpu) = device else { return Ok(Tensor::zeros(shape, dtype)) };
        let shape = shape.into();
        let buffer = detached_gpu(gpu, dtype.storage(shape))?;
        let t = Tensor { buffer, start: 0, shape, dtype };
        gpu.clear(t.region()?)?;
        Ok(t)
    }

    /// The same values on `device`: shared memory if the tensor is there, otherwise a copy. Between two GPUs it passes through the host.
    ///
    /// # Errors
    /// [`Error::Gpu`] when a GPU is out of memory or fails.
    pub fn to_device(&self, device: &Device) -> Result<Tensor> {
        let buffer = match (&*self.buffer, device) {
            (Buffer::Cpu(_) | Buffer::Shared(_), Device::Cpu) => return Ok(self.clone()),
            (Buffer::Gpu(_), Device::Gpu(to)) => {
                return match self.gpu().is_none_or(|from| from.same(to)) {
                    true => Ok(self.clone()),
                    false => self.to_device(&Device::Cpu)?.to_device(device),
                };
            }
            (Buffer::Cpu(_) | Buffer::Shared(_), Device::Gpu(gpu)) => detached_gpu(gpu, self.bytes())?,
            (Buffer::Gpu(_), Device::Cpu) => detached(self.bytes()),
        };
        let mut out = Tensor { buffer, start: 0, shape: self.shape, dtype: self.dtype };
        match device {
            Device::Gpu(gpu) => gpu.upload(self.host_bytes()?, out.region()?)?,
            Device::Cpu => match &*self.buffer {
                Buffer::Gpu(from) => {
                    let Some(memory) = &from.memory else { return Err(self.misplaced("GPU")) };
                    let to: &mut [u8] = match self.dtype {
                        DType::F32 => bytemuck::cast_slice_mut(out.typed_mut::<f32>(self.dtype)?),
                        DType::Bf16 => bytemuck::cast_slice_mut(out.typed_mut::<bf16>(self.dtype)?),
                        DType::Int8 => return Err(self.misplaced("CPU")),
                    };
                    memory.gpu().download(self.region()?, to)?;
                }
                Buffer::Cpu(_) | Buffer::Shared(_) => {}
            },
        }
        Ok(out)
    }

    /// Copies the values to the host, as f32.
    ///
    /// # Errors
    /// [`Error::Gpu`] when this copy or work queued earlier fails on the device.
    pub fn to_vec_f32(&self) -> Result<Vec<f32>> {
        Ok(self.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.f32()?.to_vec())
    }

    /// The GPU memory of this tensor, as an argument of a kernel launch.
    ///
    /// # Errors
    /// [`Error::Device`] when the tensor is on the CPU.
    pub fn region(&self) -> Result<Region> {
        let Buffer::Gpu(buffer) = &*self.buffer else { return Err(self.misplaced("GPU")) };
        let Some(memory) = &buffer.memory else { return Err(self.misplaced("GPU")) };
        let (name, size) = (self.dtype.name(), self.dtype.size());
        Ok(memory.region(self.start * size, name, size, self.shape.dims())?)
    }

    /// The GPU that the tensor is on, or `None` for the CPU.
    pub fn gpu(&self) -> Option<&Gpu> {
        match &*self.buffer {
            Buffer::Gpu(buffer) => buffer.memory.as_ref().map(|m| m.gpu()),
            Buffer::Cpu(_) | Buffer::Shared(_) => None,
        }
    }

    fn misplaced(&self, expected: &'static str) -> Error {
        let found = match &*self.buffer {
            Buffer::Cpu(_) | Buffer::Shared(_) => "CPU",
            Buffer::Gpu(_) => "GPU",
        };
        Error::Device { shape: self.shape, found, expected }
    }

    /// The bytes of a tensor on the CPU.
    ///
    /// # Errors
    /// [`Error::Device`] when the tensor is on a GPU.
    pub fn host_bytes(&self) -> Result<&[u8]> {
        let bytes = match &*self.buffer {
            Buffer::Cpu(buffer) => buffer.bytes(),
            Buffer::Shared(buffer) => buffer.bytes(),
            Buffer::Gpu(_) => return Err(self.misplaced("CPU")),
        };
        let start = self.start * self.dtype.size();
        Ok(&bytes[start..start + self.bytes()])
    }

    /// A tensor of zeros on the CPU, outside any arena.
    pub fn zeros(shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let shape = shape.into();
        Tensor { buffer: detached(dtype.storage(shape)), start: 0, shape, dtype }
    }

    /// A tensor over `bytes`, in native byte order, without a copy. The first write to it makes a copy. The bytes must
    /// not change or move while their owner exists.
    ///
    /// # Errors
    /// [`Error::Bytes`] when the length does not match the shape, or the bytes are not aligned for the element type.
    pub fn shared(
        shape: impl Into<Shape>,
        dtype: DType,
        bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    ) -> Result<Tensor> {
        let (shape, buffer) = (shape.into(), SharedBuffer(bytes));
        let (len, start) = (buffer.bytes().len(), buffer.bytes().as_ptr() as usize);
        // The f32 scales of int8 follow the elements.
        let align = if dtype == DType::Int8 { 4 } else { dtype.size() };
        if len != dtype.storage(shape) || !start.is_multiple_of(align) {
            return Err(Error::Bytes { shape, dtype, len });
        }
        Ok(Tensor { buffer: Arc::new(Buffer::Shared(buffer)), start: 0, shape, dtype })
    }

    /// Whether the tensor uses memory of another owner, such as a memory-mapped file (see [`Tensor::shared`]).
    pub fn is_shared(&self) -> bool {
        matches!(&*self.buffer, Buffer::Shared(_))
    }

    /// A tensor on the CPU with a copy of `values`.
    ///
    /// # Errors
    /// [`Error::Len`] when the number of values does not match the shape.
    pub fn from_f32(shape: impl Into<Shape>, values: &[f32]) -> Result<Tensor> {
        let mut t = Tensor::zeros(shape, DType::F32);
        let (shape, len) = (t.shape, values.len());
        if len != shape.elements() {
            return Err(Error::Len { shape, len });
        }
        t.f32_mut()?.copy_from_slice(values);
        Ok(t)
    }

    /// Converts to another element type, rounding to nearest even for bf16. Shares memory if the type is the same.
    ///
    /// # Errors
    /// [`Error::Device`] when a tensor on a GPU would have to be converted.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        let mut out = Tensor::zeros(self.shape, dtype);
        match (self.slice()?, dtype) {
            (Slice::F32(x), DType::Bf16) => out.bf16_mut()?.convert_from_f32_slice(x),
            (Slice::F32(x), _) => {
                let (values, scales) = out.int8_mut()?;
                int8::quantize(values, scales, x);
            }
            (Slice::Bf16(x), DType::F32) => x.convert_to_f32_slice(out.f32_mut()?),
            (Slice::Int8(x, scales), DType::F32) => int8::dequantize(out.f32_mut()?, x, scales),
            (Slice::Bf16(_) | Slice::Int8(..), _) => return self.to_dtype(DType::F32)?.to_dtype(dtype),
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

    /// Bytes of all elements, including the scales of int8.
    pub fn bytes(&self) -> usize {
        self.dtype.storage(self.shape)
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`Error::View`] when the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let view = shape.into();
        // An int8 tensor has one scale per row, so the number of rows must not change.
        let rows = self.dtype == DType::Int8 && view.rows() != self.shape.rows();
        if view.elements() != self.shape.elements() || rows {
            return Err(Error::View { shape: self.shape, view, start: 0 });
        }
        Ok(Tensor { shape: view, ..self.clone() })
    }

    /// Rows `rows` of this tensor, viewed as a matrix [rows, cols]; shares its memory.
    ///
    /// # Errors
    /// [`Error::View`] when the range exceeds the rows, or the tensor is int8.
    pub fn rows(&self, rows: Range<usize>) -> Result<Tensor> {
        let cols = self.shape.cols();
        let view = Shape::from([rows.len(), cols]);
        if rows.end > self.shape.rows() || rows.start > rows.end || self.dtype == DType::Int8 {
            return Err(Error::View { shape: self.shape, view, start: rows.start.saturating_mul(cols) });
        }
        Ok(Tensor { start: self.start + rows.start * cols, shape: view, ..self.clone() })
    }

    /// A tensor of shape `shape` over the elements from `start` on; shares the memory.
    ///
    /// # Errors
    /// [`Error::View`] when the range exceeds the elements, or the tensor is int8.
    pub fn view(&self, start: usize, shape: impl Into<Shape>) -> Result<Tensor> {
        let view = shape.into();
        let end = start.checked_add(view.elements());
        if end.is_none_or(|end| end > self.shape.elements()) || self.dtype == DType::Int8 {
            return Err(Error::View { shape: self.shape, view, start });
        }
        Ok(Tensor { start: self.start + start, shape: view, ..self.clone() })
    }

    /// The elements of a tensor on the CPU, by type.
    ///
    /// # Errors
    /// [`Error::Device`] when the tensor is on a GPU.
    pub fn slice(&self) -> Result<Slice<'_>> {
        let bytes = self.host_bytes()?;
        Ok(match self.dtype {
            DType::F32 => Slice::F32(bytemuck::cast_slice(bytes)),
            DType::Bf16 => Slice::Bf16(bytemuck::cast_slice(bytes)),
            DType::Int8 => {
                let (values, rest) = bytes.split_at(scales_offset(self.shape));
                let values = &values[..self.shape.elements()];
                Slice::Int8(bytemuck::cast_slice(values), bytemuck::cast_slice(rest))
            }
        })
    }

    /// The elements of an f32 tensor on the CPU.
    ///
    /// # Errors
    /// [`Error::DType`] when the tensor is not f32, [`Error::Device`] when it is on a GPU.
    pub fn f32(&self) -> Result<&[f32]> {
        match self.slice()? {
            Slice::F32(x) => Ok(x),
            Slice::Bf16(_) | Slice::Int8(..) => Err(self.wrong_type(DType::F32)),
        }
    }

    /// The elements of an f32 tensor on the CPU, mutable.
    ///
    /// # Errors
    /// [`Error::DType`] when the tensor is not f32, [`Error::Shared`] when another tensor views the same buffer,
    /// [`Error::Device`] when it is on a GPU.
    pub fn f32_mut(&mut self) -> Result<&mut [f32]> {
        self.typed_mut(DType::F32)
    }

    /// The elements of a bf16 tensor on the CPU, mutable.
    ///
    /// # Errors
    /// [`Error::DType`] when the tensor is not bf16, [`Error::Shared`] when another tensor views the same buffer,
    /// [`Error::Device`] when it is on a GPU.
    pub fn bf16_mut(&mut self) -> Result<&mut [bf16]> {
        self.typed_mut(DType::Bf16)
    }

    /// The elements and scales of an int8 tensor whose buffer is not shared.
    fn int8_mut(&mut self) -> Result<(&mut [i8], &mut [f32])> {
        let (shape, at) = (self.shape, scales_offset(self.shape));
        match Arc::get_mut(&mut self.buffer) {
            Some(Buffer::Cpu(buffer)) => {
                let (values, rest) = buffer.bytes_mut().split_at_mut(at);
                let values = bytemuck::cast_slice_mut(&mut values[..shape.elements()]);
                Ok((values, bytemuck::cast_slice_mut(&mut rest[..4 * shape.rows()])))
            }
            _ => Err(Error::Shared { shape }),
        }
    }

    /// Whether two tensors view the same memory.
    pub fn shares_memory_with(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.buffer, &other.buffer)
    }

    /// Whether no other tensor views the same memory, so that an operation may overwrite it with its result.
    pub fn is_sole_view(&self) -> bool {
        Arc::strong_count(&self.buffer) == 1
    }

    fn typed_mut<T: bytemuck::Pod>(&mut self, dtype: DType) -> Result<&mut [T]> {
        if self.dtype != dtype {
            return Err(self.wrong_type(dtype));
        }
        if self.is_shared() && self.is_sole_view() {
            let mut copy = Tensor::zeros(self.shape, dtype);
            copy.typed_mut::<T>(dtype)?.copy_from_slice(bytemuck::cast_slice(self.host_bytes()?));
            *self = copy;
        }
        let range = self.start..self.start + self.shape.elements();
        match Arc::get_mut(&mut self.buffer) {
            Some(Buffer::Cpu(buffer)) => Ok(&mut bytemuck::cast_slice_mut(buffer.bytes_mut())[range]),
            Some(Buffer::Gpu(_)) => Err(Error::Device { shape: self.shape, found: "GPU", expected: "CPU" }),
            Some(Buffer::Shared(_)) | None => Err(Error::Shared { shape: self.shape }),
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
