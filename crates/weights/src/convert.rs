//! Converts little-endian bytes of a file to elements. Each function returns `None` for a type that it does
//! not convert. `bytes` must contain as many elements as `out`.

use half::{bf16, f16};

use crate::StoredDType::{self, *};

/// Floats to f32, rounding f64 to nearest even.
pub(crate) fn to_f32(from: StoredDType, bytes: &[u8], out: &mut [f32]) -> Option<()> {
    match from {
        F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        F32 => each(bytes, out, f32::from_le_bytes),
        F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        Bf16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        _ => each_f8(from, bytes, out, |v| v),
    }
}

/// Floats to bf16, rounding once, to nearest even.
pub(crate) fn to_bf16(from: StoredDType, bytes: &[u8], out: &mut [bf16]) -> Option<()> {
    match from {
        F64 => each(bytes, out, |b| bf16::from_f64(f64::from_le_bytes(b))),
        F32 => each(bytes, out, |b| bf16::from_f32(f32::from_le_bytes(b))),
        F16 => each(bytes, out, |b| bf16::from_f32(f16::from_le_bytes(b).to_f32())),
        Bf16 => each(bytes, out, bf16::from_le_bytes),
        _ => each_f8(from, bytes, out, bf16::from_f32),
    }
}

/// Floats to f64, exactly.
pub(crate) fn to_f64(from: StoredDType, bytes: &[u8], out: &mut [f64]) -> Option<()> {
    match from {
        F64 => each(bytes, out, f64::from_le_bytes),
        F32 => each(bytes, out, |b| f32::from_le_bytes(b).into()),
        F16 => each(bytes, out, |b| f16::from_le_bytes(b).into()),
        Bf16 => each(bytes, out, |b| bf16::from_le_bytes(b).into()),
        _ => each_f8(from, bytes, out, f64::from),
    }
}

/// Integers and booleans to i64, except u64.
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

/// 8-bit floats, which f32 and bf16 represent exactly.
fn each_f8<T>(from: StoredDType, bytes: &[u8], out: &mut [T], f: impl Fn(f32) -> T) -> Option<()> {
    match from {
        F8E4M3 => each(bytes, out, |[b]| f(if b & 0x7f == 0x7f { f32::NAN } else { f8(b, 3, 7) })),
        // The same bits as the upper half of an f16.
        F8E5M2 => each(bytes, out, |[b]| f(f16::from_bits(u16::from(b) << 8).to_f32())),
        // The fnuz formats have one NaN, in place of −0, and no infinities.
        F8E4M3Fnuz => each(bytes, out, |[b]| f(if b == 0x80 { f32::NAN } else { f8(b, 3, 8) })),
        F8E5M2Fnuz => each(bytes, out, |[b]| f(if b == 0x80 { f32::NAN } else { f8(b, 2, 16) })),
        // An 8-bit exponent without sign and mantissa: powers of two.
        F8E8M0 => each(bytes, out, |[b]| f(if b == 0xff { f32::NAN } else { exp2(i32::from(b) - 127) })),
        _ => None,
    }
}

/// Decodes a sign bit, an exponent with bias `bias`, and `mantissa` bits, for a `b` that is finite.
fn f8(b: u8, mantissa: u32, bias: i32) -> f32 {
    let sign = if b & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((b & 0x7f) >> mantissa);
    let fraction = f32::from(b & ((1 << mantissa) - 1)) * exp2(-(mantissa as i32));
    match exponent {
        0 => sign * fraction * exp2(1 - bias),
        _ => sign * (1.0 + fraction) * exp2(exponent - bias),
    }
}

/// 2ⁿ for n from −149 to 127.
fn exp2(n: i32) -> f32 {
    let bits = if n < -126 { 1 << (n + 149) } else { (n + 127) << 23 };
    f32::from_bits(bits as u32)
}
