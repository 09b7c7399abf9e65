//! The element types of tensors and the size of their storage.

use std::fmt;

use half::bf16;

use crate::Shape;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 single precision, 4 bytes.
    F32,
    /// bfloat16, 2 bytes.
    Bf16,
    /// Symmetric int8 with one f32 scale per row: 1 byte per element, values -127 to 127, with the scales stored after
    /// the elements. For frozen weight matrices on the CPU.
    Int8,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 => 2,
            DType::Int8 => 1,
        }
    }

    /// Bytes of all elements of a tensor, including the scales of an int8 tensor. Saturates at `usize::MAX`.
    pub fn storage(self, shape: Shape) -> usize {
        match self {
            DType::F32 | DType::Bf16 => shape.elements().saturating_mul(self.size()),
            DType::Int8 => scales_offset(shape).saturating_add(shape.rows().saturating_mul(4)),
        }
    }

    /// The name of the type: `f32`, `bf16` or `int8`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::Int8 => "int8",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The elements of a tensor on the CPU, by type.
#[derive(Debug, Clone, Copy)]
pub enum Slice<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// The int8 values, and the scale of each row.
    Int8(&'a [i8], &'a [f32]),
}

/// The offset of the scales of an int8 tensor, in bytes.
pub(crate) fn scales_offset(shape: Shape) -> usize {
    shape.elements().checked_next_multiple_of(4).unwrap_or(usize::MAX)
}
