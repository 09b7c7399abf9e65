//! The classes and functions that a pickle may name: those allowed by torch's safe loader
//! (`weights_only=True`), and a few that run no code. None is called; each is replaced by a description of
//! its effect on tensors.

use crate::value::{Foreign, Function, Global, Id, Pickle, Stop, Storage, Value, View, bad};
use crate::{StoredDType, Unusable};

/// The result of a call.
pub(crate) enum Called {
    Old(Id),
    Opaque,
    New(Value),
}

/// The maximum number of dimensions of a tensor.
const RANK: usize = 64;

/// The value of `module.name`, or the full name as an error if it is not allowed.
pub(crate) fn find(module: &str, name: &str) -> Result<Value, String> {
    // The name of the module in Python 2 and pickle protocol 2.
    let known = if module == "__builtin__" { "builtins" } else { module };
    let function = match (known, name) {
        ("collections", "OrderedDict" | "Counter" | "defaultdict") | ("builtins", "dict") => Function::Dict,
        ("torch", "Size") | ("builtins", "tuple") => Function::Same,
        ("builtins", "bytearray" | "bytes" | "set" | "frozenset" | "complex" | "list" | "int" | "float")
        | ("builtins", "bool" | "str" | "slice" | "range")
        | ("_codecs", "encode")
        | ("torch", "device")
        | ("torch.serialization", "_get_layout") => Function::Opaque,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Function::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Function::TypedTensor,
        ("torch._utils", "_rebuild_qtensor") => Function::Quantized,
        ("torch._utils", "_rebuild_sparse_tensor") => Function::Sparse,
        ("torch._utils", "_rebuild_meta_tensor_no_storage") => Function::Meta,
        ("torch._utils", "_rebuild_nested_tensor") => Function::Nested,
        ("torch._utils", "_rebuild_wrapper_subclass") => Function::Subclass,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
        | ("torch.nn.parameter", "Parameter" | "Buffer") => Function::Parameter,
        ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor") => Function::OtherDevice,
        ("torch._tensor", "_rebuild_from_type_v2") => Function::WithAttributes,
        _ => return constant(module, name).ok_or_else(|| format!("{module}.{name}")),
    };
    Ok(Value::Global(Global::Function(function)))
}

/// Classes and constants of torch that are not called.
fn constant(module: &str, name: &str) -> Option<Value> {
    if (module, name) == ("torch.storage", "UntypedStorage") || (module, name) == ("torch", "UntypedStorage")
    {
        return Some(Value::Global(Global::Storage { dtype: None, quantized: false }));
    }
    if (module, name) == ("torch.storage", "TypedStorage") {
        return Some(Value::Opaque);
    }
    let place = module.strip_prefix("torch")?;
    if !matches!(place, "" | ".cuda" | ".sparse" | ".cuda.sparse") {
        return None;
    }
    // Tensor classes such as `torch.FloatTensor`.
    let class = name.strip_suffix("Tensor");
    if class.is_some_and(|c| c.is_empty() || StoredDType::from_storage(&format!("{c}Storage")).is_some()) {
        return Some(Value::Opaque);
    }
    if matches!(place, "" | ".cuda") {
        let quantized = match name {
            "QInt8Storage" => Some(StoredDType::I8),
            "QInt32Storage" => Some(StoredDType::I32),
            // Types of less than a byte, with several elements per byte.
            "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => Some(StoredDType::U8),
            _ => None,
        };
        if let Some(dtype) = quantized.or_else(|| StoredDType::from_storage(name)) {
            return Some(Value::Global(Global::Storage {
                dtype: Some(dtype),
                quantized: quantized.is_some(),
            }));
        }
    }
    if place.is_empty()
        && let Some(dtype) = StoredDType::from_torch(name)
    {
        return Some(Value::Global(Global::DType(dtype)));
    }
    (place.is_empty() && is_other(name)).then_some(Value::Opaque)
}

/// Whether the name is an unsupported element type, a quantization scheme, or a layout.
fn is_other(name: &str) -> bool {
    let narrow = |name: &str, start: &str| {
        name.strip_prefix(start).is_some_and(|bits| matches!(bits.as_bytes(), [b'1'..=b'7']))
    };
    narrow(name, "int")
        || narrow(name, "uint")
        || matches!(
            name,
            "float4_e2m1fn_x2" | "bits8" | "bits16" | "bits1x8" | "bits2x4" | "bits4x2" | "qint8" | "quint8"
        )
        || matches!(name, "qint32" | "quint4x2" | "quint2x4" | "strided" | "sparse_coo" | "sparse_csr")
        || matches!(name, "per_tensor_affine" | "per_tensor_symmetric" | "per_channel_affine")
        || matches!(name, "per_channel_symmetric" | "per_channel_affine_float_qparams")
}

impl Pickle<'_> {
    /// The storage of a persistent id: ("storage", class, key, device, number of elements).
    pub(crate) fn storage(&self, id: Id) -> Option<Storage> {
        let Value::Tuple(parts) = self.get(id) else { return None };
        let &[kind, class, key, _device, elements] = &parts[..] else { return None };
        let (Value::Str(_), &Value::Global(Global::Storage { dtype, quantized })) =
            (self.get(key), self.get(class))
        else {
            return None;
        };
        (self.text(kind)? == "storage").then_some(())?;
        let elements = self.natural(elements)?;
        let bytes = dtype.map_or(Some(elements), |dtype| dtype.bytes(elements));
        // A size that overflows does not match any record.
        Some(Storage { dtype, quantized, key, bytes: bytes.unwrap_or(u64::MAX) })
    }

    /// The result of calling `function` with `args`.
    pub(crate) fn call(&self, function: Id, args: Id) -> Result<Called, Stop> {
        let (mut function, mut args) = (function, args);
        // Torch does not nest attributes, so four levels are enough.
        for _ in 0..4 {
            let (Value::Tuple(given), &Value::Global(Global::Function(called))) =
                (self.get(args), self.get(function))
            else {
                return bad("it calls something that is no function");
            };
            match (called, &given[..]) {
                (Function::WithAttributes, &[inner, _class, inner_args, _state]) => {
                    (function, args) = (inner, inner_args);
                }
                (called, given) => return self.made(called, given),
            }
        }
        bad("attributes are nested too deeply")
    }

    fn made(&self, called: Function, given: &[Id]) -> Result<Called, Stop> {
        match (called, given) {
            (Function::Dict, []) => Ok(Called::New(Value::Dict(vec![]))),
            // `Counter` is called with a dict, `defaultdict` with the factory of its values.
            (Function::Dict, &[from]) if matches!(self.get(from), Value::Dict(_)) => Ok(Called::Old(from)),
            (Function::Dict, &[from]) if matches!(self.get(from), Value::Global(_) | Value::Opaque) => {
                Ok(Called::New(Value::Dict(vec![])))
            }
            (Function::Same, &[from]) => Ok(Called::Old(from)),
            (Function::Opaque, _) => Ok(Called::Opaque),
            (Function::Parameter, &[tensor, ..]) => self.tensor(tensor),
            (Function::OtherDevice, &[tensor, dtype, ..]) => match (self.get(tensor), self.get(dtype)) {
                (Value::Tensor(view), &Value::Global(Global::DType(to))) if view.dtype != to => {
                    self.foreign(Unusable::OtherDevice, dtype, view.dims, tensor)
                }
                _ => self.tensor(tensor),
            },
            (Function::Tensor, &[storage, offset, dims, strides, ref rest @ ..]) => {
                self.view(storage, None, [offset, dims, strides], rest.get(2))
            }
            (Function::TypedTensor, &[storage, offset, dims, strides, _, _, dtype, ref rest @ ..]) => {
                match self.get(dtype) {
                    &Value::Global(Global::DType(dtype)) => {
                        self.view(storage, Some(dtype), [offset, dims, strides], rest.first())
                    }
                    _ => self.foreign(Unusable::DType, dtype, dims, storage),
                }
            }
            (Function::Quantized, &[storage, _, dims, ..]) => {
                self.foreign(Unusable::Quantized, storage, dims, storage)
            }
            (Function::Sparse, &[_layout, data, ..]) => self.sparse(data),
            (Function::Meta, &[dtype, dims, ..]) => self.foreign(Unusable::Meta, dtype, dims, dims),
            (Function::Nested, &[buffer, ..]) => self.foreign(Unusable::Nested, buffer, buffer, buffer),
            (Function::Subclass, &[_class, dtype, dims, ..]) => {
                self.foreign(Unusable::Subclass, dtype, dims, dims)
            }
            _ => bad("a function is called with arguments it does not take"),
        }
    }

    /// A tensor that cannot be read. `dtype` is its type, or a storage or tensor of its type.
    fn foreign(&self, kind: Unusable, dtype: Id, dims: Id, parts: Id) -> Result<Called, Stop> {
        let dtype = match *self.get(dtype) {
            Value::Global(Global::DType(dtype)) => dtype,
            Value::Storage(Storage { dtype: Some(dtype), .. }) => dtype,
            Value::Tensor(View { dtype, .. }) => dtype,
            _ => StoredDType::Unknown,
        };
        Ok(Called::New(Value::Foreign(Foreign { kind, dtype, dims, parts })))
    }

    /// A sparse tensor. `data` is (indices, values, size), or (row indices, column indices, values, size).
    fn sparse(&self, data: Id) -> Result<Called, Stop> {
        let parts = self.items(data).filter(|parts| parts.len() <= 4).unwrap_or_default();
        let values = parts.iter().rfind(|&&part| matches!(self.get(part), Value::Tensor(_)));
        let size = parts.iter().find(|&&part| self.items(part).is_some());
        match (values, size) {
            (Some(&values), Some(&size)) => self.foreign(Unusable::Sparse, values, size, data),
            _ => bad("a sparse tensor is built from something else than tensors"),
        }
    }

    /// The tensor `id` itself.
    fn tensor(&self, id: Id) -> Result<Called, Stop> {
        match self.get(id) {
            Value::Tensor(_) | Value::Foreign(_) => Ok(Called::Old(id)),
            _ => bad("a parameter is built from something else than a tensor"),
        }
    }

    /// A view of `storage` with the element type `dtype`, by default that of the storage.
    fn view(
        &self,
        storage: Id,
        dtype: Option<StoredDType>,
        [offset, dims, strides]: [Id; 3],
        metadata: Option<&Id>,
    ) -> Result<Called, Stop> {
        let wrong = || bad("a tensor is built from something else than a storage");
        let &Value::Storage(held) = self.get(storage) else { return wrong() };
        let Some(dtype) = dtype.or(held.dtype) else { return wrong() };
        let rank = |id: Id| {
            let items = self.items(id).filter(|items| items.len() <= RANK)?;
            items.iter().all(|&item| self.natural(item).is_some()).then_some(items.len())
        };
        if self.natural(offset).is_none() || rank(dims).is_none() || rank(dims) != rank(strides) {
            return wrong();
        }
        // Set on views that represent negated or conjugated elements.
        let lazy = metadata.is_some_and(|&id| matches!(self.get(id), Value::Dict(bits) if !bits.is_empty()));
        let kind = match (lazy, held.quantized) {
            (true, _) => Unusable::Lazy,
            (_, true) => Unusable::Quantized,
            _ => return Ok(Called::New(Value::Tensor(View { storage, dtype, offset, dims, strides }))),
        };
        Ok(Called::New(Value::Foreign(Foreign { kind, dtype, dims, parts: storage })))
    }

    /// The integers in a tuple that [`Pickle::view`] has checked.
    pub(crate) fn naturals(&self, id: Id) -> Option<Vec<u64>> {
        self.items(id).filter(|items| items.len() <= RANK)?.iter().map(|&i| self.natural(i)).collect()
    }
}
