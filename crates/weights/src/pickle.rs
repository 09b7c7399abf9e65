//! The part of Python's pickle that torch uses for state dicts (protocol 2), read as data.
//!
//! A pickle is a program for a stack machine that may call any Python function. This machine knows three
//! functions, all of which it replaces by plain data, and torch's storage classes; whatever else a pickle names
//! is refused. Values live in a table and refer to each other by index, so that shared and cyclic values cost
//! nothing, and every instruction makes at most one value: memory stays proportional to the pickle.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use crate::{Error, Result, StoredDType};

/// Index of a value.
pub(crate) type Id = usize;

pub(crate) enum Value {
    /// None, a float, or anything else that no tensor is made of.
    Opaque,
    Int(i64),
    /// Place of the text in the pickle.
    Str(Range<usize>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    StorageType(StoredDType),
    Callable(Callable),
    Storage(Storage),
    Tensor(View),
}

#[derive(Clone, Copy)]
pub(crate) enum Callable {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
}

/// Elements in a record of the zip.
#[derive(Clone, Copy)]
pub(crate) struct Storage {
    pub(crate) dtype: StoredDType,
    /// A string: the record's name.
    pub(crate) key: Id,
    pub(crate) elements: u64,
}

/// A tensor: a strided view of a storage, in elements.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) storage: Storage,
    pub(crate) offset: u64,
    pub(crate) dims: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// What a pickle says.
pub(crate) struct Pickle<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    pub(crate) root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle `bytes` of the file `path`.
    pub(crate) fn read(bytes: &'a [u8], path: &Path) -> Result<Pickle<'a>> {
        let mut m =
            Machine { bytes, at: 0, values: vec![], stack: vec![], marks: vec![], memo: HashMap::new() };
        match m.run() {
            Ok(root) => Ok(Pickle { bytes, values: m.values, root }),
            Err(Stop::Forbidden(global)) => Err(Error::ForbiddenGlobal { path: path.to_owned(), global }),
            Err(Stop::Bad(reason)) => Err(Error::Pickle { path: path.to_owned(), at: m.at, reason }),
        }
    }

    pub(crate) fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// The text of value `id`, if it is a string.
    pub(crate) fn text(&self, id: Id) -> Option<&'a str> {
        match &self.values[id] {
            Value::Str(range) => std::str::from_utf8(&self.bytes[range.clone()]).ok(),
            _ => None,
        }
    }
}

enum Stop {
    Bad(String),
    Forbidden(String),
}

fn bad<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Bad(reason.into()))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack where a list of arguments begins.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, Stop> {
        if self.take(1)? != [0x80] {
            return bad("it does not begin with its protocol");
        }
        let [protocol] = self.array()?;
        if protocol != 2 {
            return bad(format!("protocol {protocol}; torch writes 2"));
        }
        loop {
            let [op] = self.array()?;
            match op {
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' | 0x88 | 0x89 => self.push(Value::Opaque),
                b'K' => self.int::<1>(|b| b[0].into())?,
                b'M' => self.int(|b| u16::from_le_bytes(b).into())?,
                b'J' => self.int(|b| i32::from_le_bytes(b).into())?,
                0x8a => self.long()?,
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Opaque);
                }
                b'X' => {
                    let n = u32::from_le_bytes(self.array()?) as usize;
                    let start = self.at;
                    if std::str::from_utf8(self.take(n)?).is_err() {
                        return bad("a string is not UTF-8");
                    }
                    self.push(Value::Str(start..start + n));
                }
                b'}' => self.push(Value::Dict(vec![])),
                b']' => self.push(Value::List(vec![])),
                b')' => self.push(Value::Tuple(vec![])),
                0x85..=0x87 => {
                    let n = usize::from(op - 0x84);
                    self.tuple(self.stack.len().wrapping_sub(n))?;
                }
                b't' => {
                    let mark = self.mark()?;
                    self.tuple(mark)?;
                }
                b's' => {
                    let from = self.stack.len().wrapping_sub(2);
                    self.extend_dict(from)?;
                }
                b'u' => {
                    let from = self.mark()?;
                    self.extend_dict(from)?;
                }
                b'a' => self.extend_list(self.stack.len().wrapping_sub(1))?,
                b'e' => {
                    let from = self.mark()?;
                    self.extend_list(from)?;
                }
                b'q' => {
                    let [n] = self.array()?;
                    self.store(n.into())?;
                }
                b'r' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.store(n)?;
                }
                b'h' => {
                    let [n] = self.array()?;
                    self.recall(n.into())?;
                }
                b'j' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.recall(n)?;
                }
                b'c' => self.global()?,
                b'Q' => self.storage()?,
                b'R' => self.call()?,
                b'b' => self.build()?,
                _ => return bad(format!("instruction {op:#04x} is not one that tensors need")),
            }
        }
    }

    fn take(&mut self, n: usize) -> Result<&[u8], Stop> {
        let taken = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| Stop::Bad("it ends too early".into()))?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn push(&mut self, value: Value) {
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
    }

    /// Never takes what lies below the last mark, as Python does not.
    fn pop(&mut self) -> Result<Id, Stop> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(|| Stop::Bad("empty stack".into())),
            false => bad("it takes a value that is not there"),
        }
    }

    fn mark(&mut self) -> Result<usize, Stop> {
        self.marks.pop().ok_or_else(|| Stop::Bad("a list of values has no beginning".into()))
    }

    /// All values from height `from` on.
    fn split(&mut self, from: usize) -> Result<Vec<Id>, Stop> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if from < floor || from > self.stack.len() {
            return bad("it takes values that are not there");
        }
        Ok(self.stack.split_off(from))
    }

    fn int<const N: usize>(&mut self, read: impl Fn([u8; N]) -> i64) -> Result<(), Stop> {
        let n = read(self.array()?);
        self.push(Value::Int(n));
        Ok(())
    }

    fn long(&mut self) -> Result<(), Stop> {
        let [n] = self.array()?;
        let bytes = self.take(n.into())?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        match all.get_mut(..bytes.len()) {
            Some(low) => low.copy_from_slice(bytes),
            None => return bad("an integer has more than 64 bits"),
        }
        self.push(Value::Int(i64::from_le_bytes(all)));
        Ok(())
    }

    fn tuple(&mut self, from: usize) -> Result<(), Stop> {
        let items = self.split(from)?;
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn extend_dict(&mut self, from: usize) -> Result<(), Stop> {
        let items = self.split(from)?;
        let target = self.stack.last().copied();
        match target.map(|id| &mut self.values[id]) {
            Some(Value::Dict(pairs)) if items.len() % 2 == 0 => {
                pairs.extend(items.chunks_exact(2).map(|kv| (kv[0], kv[1])));
                Ok(())
            }
            _ => bad("it sets items of something that is no dict"),
        }
    }

    fn extend_list(&mut self, from: usize) -> Result<(), Stop> {
        let items = self.split(from)?;
        let target = self.stack.last().copied();
        match target.map(|id| &mut self.values[id]) {
            Some(Value::List(list)) => {
                list.extend(items);
                Ok(())
            }
            _ => bad("it appends to something that is no list"),
        }
    }

    fn store(&mut self, n: u32) -> Result<(), Stop> {
        let Some(&top) = self.stack.last() else { return bad("it remembers a value that is not there") };
        self.memo.insert(n, top);
        Ok(())
    }

    fn recall(&mut self, n: u32) -> Result<(), Stop> {
        let Some(&id) = self.memo.get(&n) else { return bad(format!("it recalls value {n}, never stored")) };
        self.stack.push(id);
        Ok(())
    }

    fn line(&mut self) -> Result<String, Stop> {
        let rest = &self.bytes[self.at..];
        match rest.iter().take(200).position(|&b| b == b'\n') {
            Some(n) => {
                let line = String::from_utf8_lossy(&rest[..n]).into_owned();
                self.at += n + 1;
                Ok(line)
            }
            None => bad("a name has no end"),
        }
    }

    fn global(&mut self) -> Result<(), Stop> {
        let (module, name) = (self.line()?, self.line()?);
        let value = match (module.as_str(), name.as_str()) {
            ("collections", "OrderedDict") => Value::Callable(Callable::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Value::Callable(Callable::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Value::Callable(Callable::RebuildParameter),
            ("torch", class) => match StoredDType::from_storage(class) {
                Some(dtype) => Value::StorageType(dtype),
                None => return Err(Stop::Forbidden(format!("torch.{class}"))),
            },
            _ => return Err(Stop::Forbidden(format!("{module}.{name}"))),
        };
        self.push(value);
        Ok(())
    }

    /// A persistent id: ("storage", class, key, device, number of elements).
    fn storage(&mut self) -> Result<(), Stop> {
        let id = self.pop()?;
        let storage = match &self.values[id] {
            Value::Tuple(parts) => match parts[..] {
                [kind, class, key, _device, elements] => {
                    match (&self.values[kind], &self.values[class], &self.values[key], self.natural(elements))
                    {
                        (Value::Str(k), &Value::StorageType(dtype), Value::Str(_), Some(elements))
                            if &self.bytes[k.clone()] == b"storage" =>
                        {
                            Some(Storage { dtype, key, elements })
                        }
                        _ => None,
                    }
                }
                _ => None,
            },
            _ => None,
        };
        let Some(storage) = storage else { return bad("a persistent id is not that of a storage") };
        self.push(Value::Storage(storage));
        Ok(())
    }

    fn call(&mut self) -> Result<(), Stop> {
        let (args, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(args), Value::Callable(function)) = (&self.values[args], &self.values[function])
        else {
            return bad("it calls something that is no function");
        };
        match (function, &args[..]) {
            (Callable::OrderedDict, []) => self.push(Value::Dict(vec![])),
            (Callable::RebuildParameter, &[tensor, ..]) => self.stack.push(tensor),
            (Callable::RebuildTensor, &[storage, offset, dims, strides, ..]) => {
                let view = self.view(storage, offset, dims, strides);
                let Some(view) = view else {
                    return bad("a tensor is built from something else than a storage");
                };
                self.push(Value::Tensor(view));
            }
            _ => return bad("a function is called with arguments it does not take"),
        }
        Ok(())
    }

    /// State that torch hangs on an `OrderedDict` (versions of modules) says nothing about tensors.
    fn build(&mut self) -> Result<(), Stop> {
        self.pop()?;
        match self.stack.last().map(|&id| &self.values[id]) {
            Some(Value::Dict(_)) => Ok(()),
            _ => bad("it sets the state of something that is no dict"),
        }
    }

    fn view(&self, storage: Id, offset: Id, dims: Id, strides: Id) -> Option<View> {
        let &Value::Storage(storage) = &self.values[storage] else { return None };
        let (dims, strides) = (self.naturals(dims)?, self.naturals(strides)?);
        (dims.len() == strides.len()).then_some(())?;
        Some(View { storage, offset: self.natural(offset)?, dims, strides })
    }

    fn natural(&self, id: Id) -> Option<u64> {
        match self.values[id] {
            Value::Int(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// A short tuple: one long tuple shared by many tensors would otherwise be copied for each.
    fn naturals(&self, id: Id) -> Option<Vec<u64>> {
        match &self.values[id] {
            Value::Tuple(items) if items.len() <= 64 => items.iter().map(|&i| self.natural(i)).collect(),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "pickle_tests.rs"]
mod tests;
