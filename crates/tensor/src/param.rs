//! Parameters of a network, and the flat array of their gradients. Each trained parameter has a range in one flat
//! array, so that clipping and the optimizer each process a single array.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;

use crate::{DType, Device, Result, Shape, Tensor};

/// A weight of a network: its name in a checkpoint, its value, and whether it is trained.
#[derive(Debug, Clone)]
pub struct Param {
    /// The name in the checkpoint.
    pub name: String,
    /// The value: f32 if trained; f32, bf16 or int8 if frozen.
    pub value: Tensor,
    /// On a GPU, the bf16 copy of a trained matrix, which GEMMs read.
    pub bf16: Option<Tensor>,
    slot: Option<usize>,
}

impl Param {
    /// A frozen parameter, which has no gradient.
    pub fn frozen(name: impl Into<String>, value: Tensor) -> Param {
        Param { name: name.into(), value, bf16: None, slot: None }
    }

    /// Whether gradients are computed for this parameter.
    pub fn is_trained(&self) -> bool {
        self.slot.is_some()
    }

    /// The matrix that GEMMs read: the bf16 copy of a trained matrix on a GPU, otherwise the value.
    pub fn matrix(&self) -> &Tensor {
        self.bf16.as_ref().unwrap_or(&self.value)
    }

    /// The shape of the value.
    pub fn shape(&self) -> Shape {
        self.value.shape()
    }
}

/// The range of each trained parameter in the flat arrays of gradients and optimizer moments, in training
/// order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParamTable {
    entries: Vec<(String, Range<usize>)>,
}

/// Alignment in elements: each parameter starts at a multiple of 128 bytes in an f32 array.
const ALIGN: usize = 32;

impl ParamTable {
    /// Makes exactly those of `params` trained that `choose` selects, and assigns a range to each; all others become
    /// frozen. Values of trained parameters are converted to f32.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when a trained value would have to be converted on a GPU.
    pub fn assign<'a>(
        params: impl IntoIterator<Item = &'a mut Param>,
        mut choose: impl FnMut(&Param) -> bool,
    ) -> Result<ParamTable> {
        let mut table = ParamTable::default();
        let mut start = 0;
        for p in params {
            p.slot = None;
            if choose(p) {
                p.value = p.value.to_dtype(DType::F32)?;
                p.slot = Some(table.entries.len());
                let len = p.shape().elements();
                table.entries.push((p.name.clone(), start..start + len));
                start += len.next_multiple_of(ALIGN);
            }
        }
        Ok(table)
    }

    /// Names and ranges, in order. The padding between two ranges is always zero.
    pub fn entries(&self) -> &[(String, Range<usize>)] {
        &self.entries
    }

    /// Length of a flat array for these parameters, in elements.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |(_, r)| r.end.next_multiple_of(ALIGN))
    }

    /// Whether no parameter is trained.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The range of `param`, or `None` if it is frozen.
    pub fn range(&self, param: &Param) -> Option<Range<usize>> {
        param.slot.and_then(|i| self.entries.get(i)).map(|(_, r)| r.clone())
    }

    /// A flat f32 array of zeros with the layout of this table.
    pub fn zeros(&self) -> Tensor {
        Tensor::zeros([self.len()], DType::F32)
    }

    /// Moves `params` to a GPU. Frozen vectors become f32 and frozen matrices bf16, each in a separate buffer. Trained
    /// parameters become views of one flat f32 array with the layout of this table, and trained matrices also get views
    /// of a flat bf16 copy.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the GPU is out of memory.
    pub fn upload<'a>(
        &self,
        params: impl IntoIterator<Item = &'a mut Param>,
        device: &Device,
    ) -> Result<Masters> {
        let (mut values, mut bf16) = (self.zeros(), Tensor::zeros([self.len()], DType::Bf16));
        let mut trained = Vec::new();
        for p in params {
            match self.range(p) {
                Some(range) => {
                    values.f32_mut()?[range.clone()].copy_from_slice(p.value.to_device(&Device::Cpu)?.f32()?);
                    trained.push((p, range.start));
                }
                None => {
                    let dtype = if p.shape().dims().len() < 2 { DType::F32 } else { DType::Bf16 };
                    p.value = p.value.to_device(&Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
                    p.bf16 = None;
                }
            }
        }
        bf16.bf16_mut()?.convert_from_f32_slice(values.f32()?);
        let masters = Masters { values: values.to_device(device)?, bf16_copies: bf16.to_device(device)? };
        for (p, start) in trained {
            let shape = p.shape();
            p.value = masters.values.view(start, shape)?;
            p.bf16 = (shape.dims().len() > 1).then(|| masters.bf16_copies.view(start, shape)).transpose()?;
        }
        Ok(masters)
    }
}

/// The trained parameters of a model on a GPU: flat arrays of f32 master weights and of their bf16 copies.
#[derive(Debug, Clone)]
pub struct Masters {
    /// The f32 values, with the layout of the [`ParamTable`].
    pub values: Tensor,
    /// The same values in bf16.
    pub bf16_copies: Tensor,
}

/// The gradients of all trained parameters, in one flat array.
#[derive(Debug)]
pub struct Grads {
    /// The gradients, f32, with the layout of [`Grads::table`].
    pub flat: Tensor,
    /// The range of each parameter's gradient.
    pub table: ParamTable,
}

impl Grads {
    /// Zero gradients on the CPU.
    pub fn new(table: ParamTable) -> Grads {
        Grads { flat: table.zeros(), table }
    }

    /// Zero gradients on `device`.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the GPU is out of memory.
    pub fn on(device: &Device, table: ParamTable) -> Result<Grads> {
        Ok(Grads { flat: Tensor::zeros_on(device, [table.len()], DType::F32)?, table })
    }

    /// The gradient of `param` as a tensor of its shape that shares memory with [`Grads::flat`], or `None` if it is
    /// frozen.
    ///
    /// # Errors
    /// [`crate::Error::View`] when `param` belongs to another, larger table.
    pub fn view(&self, param: &Param) -> Result<Option<Tensor>> {
        self.table.range(param).map(|range| self.flat.view(range.start, param.shape())).transpose()
    }

    /// The gradient of `param`, to be accumulated into, or `None` if it is frozen.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when the gradients are on a GPU.
    pub fn of(&mut self, param: &Param) -> Result<Option<&mut [f32]>> {
        match self.table.range(param) {
            Some(range) => Ok(Some(&mut self.flat.f32_mut()?[range])),
            None => Ok(None),
        }
    }

    /// Adds `values` to the gradient of `param` if it is trained. On a GPU this downloads and uploads the gradient, so
    /// it is meant for small parameters.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the device fails.
    pub fn add(&mut self, param: &Param, values: &[f32]) -> Result<()> {
        if let Some(gpu) = self.flat.gpu() {
            let Some(view) = self.view(param)? else { return Ok(()) };
            let mut sum = view.to_vec_f32()?;
            sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
            return Ok(gpu.upload(bytemuck::cast_slice(&sum), view.region()?)?);
        }
        if let Some(sum) = self.of(param)? {
            sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
        }
        Ok(())
    }

    /// Sets all gradients to zero.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the device fails.
    pub fn clear(&mut self) -> Result<()> {
        if let Some(gpu) = self.flat.gpu() {
            return Ok(gpu.clear(self.flat.region()?)?);
        }
        self.flat.f32_mut()?.fill(0.0);
        Ok(())
    }
}
