//! The values that a pickle of a torch state dict consists of.

use std::borrow::Cow;
use std::ops::Range;

use crate::{StoredDType, Unusable};

/// The index of a value in [`Pickle::values`].
pub(crate) type Id = u32;

pub(crate) enum Value {
    /// None, a float, bytes, or another value that no tensor consists of.
    Opaque,
    /// A set, whose elements are not kept.
    Set,
    Int(i64),
    /// A string: its byte range in the pickle.
    Str(Range<u32>),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(View),
    /// A tensor of an unsupported kind.
    Foreign(Foreign),
}

/// The meaning of a global name in a pickle.
#[derive(Clone, Copy)]
pub(crate) enum Global {
    DType(StoredDType),
    /// A storage class. `dtype` is its element type; `None` if it is untyped and the tensor specifies the
    /// type.
    Storage {
        dtype: Option<StoredDType>,
        quantized: bool,
    },
    Function(Function),
}

/// A function, by its effect.
#[derive(Clone, Copy)]
pub(crate) enum Function {
    /// Returns a dict: an empty one, or its argument.
    Dict,
    /// Returns its argument.
    Same,
    /// Returns a value that no tensor consists of.
    Opaque,
    /// Returns a view of a typed storage.
    Tensor,
    /// Returns a view of a storage with the given element type.
    TypedTensor,
    Quantized,
    Sparse,
    Meta,
    Nested,
    Subclass,
    /// Returns its first argument, a tensor.
    Parameter,
    /// Returns its first argument, a tensor, with the given element type.
    OtherDevice,
    /// Returns the result of another function, with attributes.
    WithAttributes,
}

/// A storage, which is a record of the zip.
#[derive(Clone, Copy)]
pub(crate) struct Storage {
    /// The element type; `None` if the tensors specify it.
    pub(crate) dtype: Option<StoredDType>,
    pub(crate) quantized: bool,
    /// The name of the record, a string.
    pub(crate) key: Id,
    pub(crate) bytes: u64,
}

/// A tensor: a strided view of a storage; offset and strides are in elements. Offset, dimensions and strides
/// are referred to in the pickle, because many views may share them.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub(crate) storage: Id,
    pub(crate) dtype: StoredDType,
    pub(crate) offset: Id,
    pub(crate) dims: Id,
    pub(crate) strides: Id,
}

/// A tensor of an unsupported kind.
#[derive(Clone, Copy)]
pub(crate) struct Foreign {
    pub(crate) kind: Unusable,
    pub(crate) dtype: StoredDType,
    pub(crate) dims: Id,
    /// A storage or view that contains its elements, or a tuple of these.
    pub(crate) parts: Id,
}

/// A parsed pickle.
pub(crate) struct Pickle<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) values: Vec<Value>,
    pub(crate) root: Id,
}

impl<'a> Pickle<'a> {
    pub(crate) fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    /// The text of value `id`, if it is a string. Lone surrogates, which UTF-8 cannot represent, are written
    /// as Python escapes: `\udce9`.
    pub(crate) fn text(&self, id: Id) -> Option<Cow<'a, str>> {
        match self.get(id) {
            Value::Str(range) => text(&self.bytes[range.start as usize..range.end as usize]),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub(crate) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn natural(&self, id: Id) -> Option<u64> {
        match *self.get(id) {
            Value::Int(n) => n.try_into().ok(),
            _ => None,
        }
    }
}

/// Decodes UTF-8 with lone surrogates, as Python's `surrogatepass` does.
pub(crate) fn text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let mut rest = match std::str::from_utf8(bytes) {
        Ok(text) => return Some(Cow::Borrowed(text)),
        Err(_) => bytes,
    };
    let mut out = String::new();
    loop {
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => return Some(Cow::Owned(out + text)),
            Err(e) => e.valid_up_to(),
        };
        let (sound, wrong) = rest.split_at(valid);
        out += std::str::from_utf8(sound).ok()?;
        let &[0xed, high @ 0xa0..=0xbf, low @ 0x80..=0xbf, ref after @ ..] = wrong else { return None };
        out += &format!("\\ud{:03x}", u32::from(high & 0x3f) << 6 | u32::from(low & 0x3f));
        rest = after;
    }
}

pub(crate) enum Stop {
    Bad(String),
    Forbidden(String),
}

pub(crate) fn bad<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Bad(reason.into()))
}
