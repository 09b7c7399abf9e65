//! Little-endian bytes of a file to the elements of a tensor. Each function returns `None` for a type it does not
//! convert; `out` is as long as `bytes` holds elements.

use half::{bf16, f16};

use crate::StoredDType::{self, *};

/// Floats to f32, rounding f64 to nearest even.
pub(crate) fn to_f32(from: StoredDType, bytes: &[u8], out: &mut [f32]) -> Option<()> {
    match from {
        F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        F32 => each(bytes, out, f32::from_le_bytes),
        F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        Bf16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        _ => None,
    }
}

/// Floats to bf16, rounding once, to nearest even.
pub(crate) fn to_bf16(from: StoredDType, bytes: &[u8], out: &mut [bf16]) -> Option<()> {
    match from {
        F64 => each(bytes, out, |b| bf16::from_f64(f64::from_le_bytes(b))),
        F32 => each(bytes, out, |b| bf16::from_f32(f32::from_le_bytes(b))),
        F16 => each(bytes, out, |b| bf16::from_f32(f16::from_le_bytes(b).to_f32())),
        Bf16 => each(bytes, out, bf16::from_le_bytes),
        _ => None,
    }
}

/// Floats to f64, exactly.
pub(crate) fn to_f64(from: StoredDType, bytes: &[u8], out: &mut [f64]) -> Option<()> {
    match from {
        F64 => each(bytes, out, f64::from_le_bytes),
        F32 => each(bytes, out, |b| f32::from_le_bytes(b).into()),
        F16 => each(bytes, out, |b| f16::from_le_bytes(b).into()),
        Bf16 => each(bytes, out, |b| bf16::from_le_bytes(b).into()),
        _ => None,
    }
}

/// Integers and booleans to i64; u64 is not converted.
pub(crate) fn to_i64(from: StoredDType, bytes: &[u8], out: &mut [i64]) -> Option<()> {
    match from {
        I64 => each(bytes, out, i64::from_le_bytes),
        I32 => each(bytes, out, |b| i32::from_le_bytes(b).into()),
        I16 => each(bytes, out, |b| i16::from_le_bytes(b).into()),
        I8 => each(bytes, out, |b| i8::from_le_bytes(b).into()),
        U32 => each(bytes, out, |b| u32::from_le_bytes(b).into()),
        U16 => each(bytes, out, |b| u16::from_le_bytes(b).into()),
        U8 | Bool => each(bytes, out, |b| u8::from_le_bytes(b).into()),
        _ => None,
    }
}

fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], f: impl Fn([u8; N]) -> T) -> Option<()> {
    for (o, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
        *o = f(b);
    }
    Some(())
}
