use std::fmt;

/// Element type of a tensor as it lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the variants are their own description
#[non_exhaustive]
pub enum StoredDType {
    F64,
    F32,
    F16,
    Bf16,
    F8E4M3,
    F8E5M2,
    C64,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

use StoredDType::*;

/// Each type with its name in safetensors, its storage class in torch, and its bytes per element.
const TABLE: [(StoredDType, &str, &str, usize); 16] = [
    (F64, "F64", "DoubleStorage", 8),
    (F32, "F32", "FloatStorage", 4),
    (F16, "F16", "HalfStorage", 2),
    (Bf16, "BF16", "BFloat16Storage", 2),
    (F8E4M3, "F8_E4M3", "Float8_e4m3fnStorage", 1),
    (F8E5M2, "F8_E5M2", "Float8_e5m2Storage", 1),
    (C64, "C64", "ComplexFloatStorage", 8),
    (I64, "I64", "LongStorage", 8),
    (I32, "I32", "IntStorage", 4),
    (I16, "I16", "ShortStorage", 2),
    (I8, "I8", "CharStorage", 1),
    (U64, "U64", "UInt64Storage", 8),
    (U32, "U32", "UInt32Storage", 4),
    (U16, "U16", "UInt16Storage", 2),
    (U8, "U8", "ByteStorage", 1),
    (Bool, "BOOL", "BoolStorage", 1),
];

impl StoredDType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        self.row().3
    }

    /// The type that safetensors calls `name`.
    pub(crate) fn from_safetensors(name: &str) -> Option<StoredDType> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The type of torch's storage class `name`.
    pub(crate) fn from_storage(name: &str) -> Option<StoredDType> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    fn row(self) -> &'static (StoredDType, &'static str, &'static str, usize) {
        // Rows stand in the order of the enum, which a test checks.
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
