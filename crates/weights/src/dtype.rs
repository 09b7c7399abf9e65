//! The element types that files store, with their names in safetensors and torch.

use std::fmt;

/// The element type of a tensor in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names describe the variants
#[non_exhaustive]
pub enum StoredDType {
    F64,
    F32,
    F16,
    Bf16,
    F8E4M3,
    F8E5M2,
    F8E4M3Fnuz,
    F8E5M2Fnuz,
    F8E8M0,
    F6E2M3,
    F6E3M2,
    F4,
    C128,
    C64,
    C32,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// A type that is not supported; its tensors are listed but cannot be read.
    Unknown,
}

use StoredDType::*;

/// Each type with its name in safetensors (or a similar one, if safetensors has none), its name in torch, and
/// its bits per element.
const TABLE: [(StoredDType, &str, &str, u64); 25] = [
    (F64, "F64", "float64", 64),
    (F32, "F32", "float32", 32),
    (F16, "F16", "float16", 16),
    (Bf16, "BF16", "bfloat16", 16),
    (F8E4M3, "F8_E4M3", "float8_e4m3fn", 8),
    (F8E5M2, "F8_E5M2", "float8_e5m2", 8),
    (F8E4M3Fnuz, "F8_E4M3FNUZ", "float8_e4m3fnuz", 8),
    (F8E5M2Fnuz, "F8_E5M2FNUZ", "float8_e5m2fnuz", 8),
    (F8E8M0, "F8_E8M0", "float8_e8m0fnu", 8),
    (F6E2M3, "F6_E2M3", "", 6),
    (F6E3M2, "F6_E3M2", "", 6),
    (F4, "F4", "", 4),
    (C128, "C128", "complex128", 128),
    (C64, "C64", "complex64", 64),
    (C32, "C32", "complex32", 32),
    (I64, "I64", "int64", 64),
    (I32, "I32", "int32", 32),
    (I16, "I16", "int16", 16),
    (I8, "I8", "int8", 8),
    (U64, "U64", "uint64", 64),
    (U32, "U32", "uint32", 32),
    (U16, "U16", "uint16", 16),
    (U8, "U8", "uint8", 8),
    (Bool, "BOOL", "bool", 8),
    (Unknown, "unknown", "", 8),
];

/// Torch's typed storage classes. All other types use `UntypedStorage`, and the tensor specifies the type.
const STORAGES: [(&str, StoredDType); 12] = [
    ("DoubleStorage", F64),
    ("FloatStorage", F32),
    ("HalfStorage", F16),
    ("BFloat16Storage", Bf16),
    ("ComplexDoubleStorage", C128),
    ("ComplexFloatStorage", C64),
    ("LongStorage", I64),
    ("IntStorage", I32),
    ("ShortStorage", I16),
    ("CharStorage", I8),
    ("ByteStorage", U8),
    ("BoolStorage", Bool),
];

impl StoredDType {
    /// The size of one element in bytes; 1 for types of four or six bits.
    pub fn size(self) -> usize {
        self.row().3.div_ceil(8) as usize
    }

    /// Whether an element occupies full bytes and can be read on its own.
    pub(crate) fn is_whole_bytes(self) -> bool {
        self.row().3.is_multiple_of(8)
    }

    /// The size of `elements` elements in bytes; `None` if it is not an integer or overflows.
    pub(crate) fn bytes(self, elements: u64) -> Option<u64> {
        let bits = elements.checked_mul(self.row().3)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// The type with this name in safetensors.
    pub(crate) fn from_safetensors(name: &str) -> Option<StoredDType> {
        let known =
            |row: &&(StoredDType, &str, &str, u64)| row.1 == name && !matches!(row.0, C128 | C32 | Unknown);
        TABLE.iter().find(known).map(|row| row.0)
    }

    /// The type with this name in torch.
    pub(crate) fn from_torch(name: &str) -> Option<StoredDType> {
        TABLE.iter().find(|row| row.2 == name && !name.is_empty()).map(|row| row.0)
    }

    /// The type of the torch storage class `name`.
    pub(crate) fn from_storage(name: &str) -> Option<StoredDType> {
        STORAGES.iter().find(|row| row.0 == name).map(|row| row.1)
    }

    fn row(self) -> &'static (StoredDType, &'static str, &'static str, u64) {
        // The rows are in the order of the enum, which a test checks.
        &TABLE[self as usize]
    }
}

impl fmt::Display for StoredDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}

#[cfg(test)]
#[test]
fn the_table_stands_in_the_order_of_the_enum() {
    for (i, row) in TABLE.iter().enumerate() {
        assert_eq!(row.0 as usize, i);
    }
}
