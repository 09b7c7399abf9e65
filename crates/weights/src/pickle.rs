//! Parses Python pickles of torch state dicts (protocols 2 to 5) as data.
//!
//! A pickle is a program for a stack machine that may call any Python function. This machine calls nothing:
//! it models the results of the functions that torch's own safe loader allows (`globals.rs`) and rejects all
//! others. Values are stored in a table and refer to each other by index, so shared and cyclic values are
//! cheap. Every instruction creates at most one value of fixed size, and their number is limited, so memory
//! is proportional to the size of the pickle.

use std::path::Path;

use crate::globals;
use crate::value::{Id, Pickle, Stop, Value, bad, text};
use crate::{Error, Result};

/// The indices of values that always exist and are shared.
const OPAQUE: Id = 0;
const SET: Id = 1;
const EMPTY: Id = 2;

/// The maximum number of values, of memo entries, and of stack entries, each far more than a checkpoint
/// needs.
const LIMIT: usize = 1 << 23;
/// The maximum depth of nested marks.
const DEEP: usize = 1 << 20;

/// Parses the pickle `bytes`, of at most 4 GiB, from the file `path`.
pub(crate) fn read<'a>(bytes: &'a [u8], path: &Path) -> Result<Pickle<'a>> {
    // The capacity starts at a power of two, so that doubling it ends exactly at the limit.
    let mut values = Vec::with_capacity(4);
    values.extend([Value::Opaque, Value::Set, Value::Tuple([].into())]);
    let so_far = Pickle { bytes, values, root: OPAQUE };
    let mut m = Machine { so_far, at: 0, stack: vec![], marks: vec![], memo: vec![], remembered: 0 };
    match m.run() {
        Ok(root) => Ok(Pickle { root, ..m.so_far }),
        Err(Stop::Forbidden(global)) => Err(Error::ForbiddenGlobal { path: path.to_owned(), global }),
        Err(Stop::Bad(reason)) => Err(Error::Pickle { path: path.to_owned(), at: m.at, reason }),
    }
}

struct Machine<'a> {
    so_far: Pickle<'a>,
    at: usize,
    stack: Vec<Id>,
    /// The stack heights at the open marks; a mark begins a list of arguments.
    marks: Vec<u32>,
    /// The memo by index; unused entries are `NOTHING`.
    memo: Vec<Id>,
    remembered: u32,
}

const NOTHING: Id = Id::MAX;

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, Stop> {
        if self.take(1)? != [0x80] {
            return bad("it does not begin with its protocol");
        }
        let [protocol] = self.array()?;
        if !(2..=5).contains(&protocol) {
            return bad(format!("protocol {protocol}; 2 to 5 are read"));
        }
        loop {
            let [op] = self.array()?;
            if op == b'.' {
                return self.pop();
            }
            if !(self.literal(op)? || self.collection(op)? || self.reference(op)?) {
                return bad(format!("instruction {op:#04x} is not one that tensors need"));
            }
        }
    }

    /// Instructions that push a constant, and frames.
    fn literal(&mut self, op: u8) -> Result<bool, Stop> {
        match op {
            b'N' | 0x88 | 0x89 => self.push_id(OPAQUE)?,
            b'K' => self.int::<1>(|b| b[0].into())?,
            b'M' => self.int(|b| u16::from_le_bytes(b).into())?,
            b'J' => self.int(|b| i32::from_le_bytes(b).into())?,
            b'G' => self.skip(8)?,
            0x8a => {
                let [n] = self.array()?;
                self.long(n.into())?;
            }
            0x8b | b'X' | b'B' => {
                let n = u32::from_le_bytes(self.array()?) as usize;
                match op {
                    0x8b => self.long(n)?,
                    b'X' => self.string(n)?,
                    _ => self.skip(n)?,
                }
            }
            0x8c => {
                let [n] = self.array()?;
                self.string(n.into())?;
            }
            // Bytes, and strings of Python 2, which may contain any bytes.
            b'C' | b'U' => {
                let [n] = self.array()?;
                let (start, n) = (self.at, usize::from(n));
                let text = op == b'U' && text(self.take(n)?).is_some();
                self.at = start;
                if text { self.string(n)? } else { self.skip(n)? }
            }
            0x8d | 0x8e | 0x96 => {
                let n = usize::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(usize::MAX);
                if op == 0x8d { self.string(n)? } else { self.skip(n)? }
            }
            // A frame's length helps readers of a stream and is ignored.
            0x95 => _ = self.take(8)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Instructions that create or extend tuples, lists, dicts and sets.
    fn collection(&mut self, op: u8) -> Result<bool, Stop> {
        match op {
            b'(' if self.marks.len() == DEEP => return bad("marks are nested too deeply"),
            b'(' => self.marks.push(self.stack.len() as u32),
            b'}' => self.push(Value::Dict(vec![]))?,
            b']' => self.push(Value::List(vec![]))?,
            b')' => self.push_id(EMPTY)?,
            0x8f => self.push_id(SET)?,
            0x85..=0x87 => self.tuple(self.stack.len().wrapping_sub(usize::from(op - 0x84)))?,
            b't' => {
                let from = self.mark()?;
                self.tuple(from)?;
            }
            b's' => self.extend_dict(self.stack.len().wrapping_sub(2))?,
            b'u' => {
                let from = self.mark()?;
                self.extend_dict(from)?;
            }
            b'a' => self.extend_list(self.stack.len().wrapping_sub(1))?,
            b'e' => {
                let from = self.mark()?;
                self.extend_list(from)?;
            }
            0x90 => {
                let from = self.mark()?;
                self.split(from)?;
                if self.stack.last() != Some(&SET) {
                    return bad("it adds to something that is no set");
                }
            }
            0x91 => {
                let from = self.mark()?;
                self.split(from)?;
                self.push_id(OPAQUE)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Instructions of the memo, globals, persistent ids, and calls.
    fn reference(&mut self, op: u8) -> Result<bool, Stop> {
        match op {
            b'q' | b'h' => {
                let [n] = self.array()?;
                if op == b'q' { self.store(n.into())? } else { self.recall(n.into())? }
            }
            b'r' | b'j' => {
                let n = u32::from_le_bytes(self.array()?);
                if op == b'r' { self.store(n)? } else { self.recall(n)? }
            }
            0x94 => self.store(self.remembered)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(globals::find(&module, &name).map_err(Stop::Forbidden)?)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.so_far.text(module), self.so_far.text(name)) else {
                    return bad("a global has a name that is no string");
                };
                self.push(globals::find(&module, &name).map_err(Stop::Forbidden)?)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.so_far.storage(id);
                let Some(storage) = storage else { return bad("a persistent id is not that of a storage") };
                self.push(Value::Storage(storage))?;
            }
            b'R' => {
                let (args, function) = (self.pop()?, self.pop()?);
                match self.so_far.call(function, args)? {
                    globals::Called::Old(id) => self.push_id(id)?,
                    globals::Called::Opaque => self.push_id(OPAQUE)?,
                    globals::Called::New(value) => self.push(value)?,
                }
            }
            // BUILD. Torch sets state on an `OrderedDict` (versions of modules), which does not concern
            // tensors.
            b'b' => {
                self.pop()?;
                match self.stack.last().map(|&id| self.so_far.get(id)) {
                    Some(Value::Dict(_)) => {}
                    _ => return bad("it sets the state of something that is no dict"),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take(&mut self, n: usize) -> Result<&[u8], Stop> {
        let taken = self.at.checked_add(n).and_then(|end| self.so_far.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| Stop::Bad("it ends too early".into()))?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn push(&mut self, value: Value) -> Result<(), Stop> {
        let values = &mut self.so_far.values;
        if values.len() == LIMIT {
            return bad(format!("it has more than {LIMIT} values"));
        }
        values.push(value);
        let id = values.len() as Id - 1;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), Stop> {
        if self.stack.len() == LIMIT {
            return bad(format!("its stack has more than {LIMIT} values"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().map_or(0, |&mark| mark as usize)
    }

    /// Pops a value, but not one below the last mark, as in Python.
    fn pop(&mut self) -> Result<Id, Stop> {
        match self.stack.len() > self.floor() {
            true => self.stack.pop().ok_or_else(|| Stop::Bad("empty stack".into())),
            false => bad("it takes a value that is not on its stack"),
        }
    }

    fn mark(&mut self) -> Result<usize, Stop> {
        let mark = self.marks.pop().map(|mark| mark as usize);
        mark.ok_or_else(|| Stop::Bad("there is no mark".into()))
    }

    /// Removes and returns all values from stack height `from` up.
    fn split(&mut self, from: usize) -> Result<Vec<Id>, Stop> {
        if from < self.floor() || from > self.stack.len() {
            return bad("it takes values that are not on its stack");
        }
        Ok(self.stack.split_off(from))
    }

    fn int<const N: usize>(&mut self, read: impl Fn([u8; N]) -> i64) -> Result<(), Stop> {
        let n = read(self.array()?);
        self.push(Value::Int(n))
    }

    /// Skips `n` bytes of a value that is not needed.
    fn skip(&mut self, n: usize) -> Result<(), Stop> {
        self.take(n)?;
        self.push_id(OPAQUE)
    }

    /// An integer of `n` bytes. One of more than 64 bits becomes opaque, because no tensor has such a size.
    fn long(&mut self, n: usize) -> Result<(), Stop> {
        let bytes = self.take(n)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        let Some(low) = all.get_mut(..bytes.len()) else { return self.push_id(OPAQUE) };
        low.copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(all)))
    }

    fn string(&mut self, n: usize) -> Result<(), Stop> {
        let start = self.at as u32;
        if text(self.take(n)?).is_none() {
            return bad("a string is not UTF-8");
        }
        self.push(Value::Str(start..self.at as u32))
    }

    fn tuple(&mut self, from: usize) -> Result<(), Stop> {
        let items = self.split(from)?;
        self.push(Value::Tuple(items.into()))
    }

    fn target(&mut self) -> Option<&mut Value> {
        let top = *self.stack.last()?;
        Some(&mut self.so_far.values[top as usize])
    }

    fn extend_dict(&mut self, from: usize) -> Result<(), Stop> {
        let items = self.split(from)?;
        match self.target() {
            Some(Value::Dict(pairs)) if items.len().is_multiple_of(2) => {
                pairs.extend(items.chunks_exact(2).map(|kv| (kv[0], kv[1])));
                Ok(())
            }
            _ => bad("it sets items of something that is no dict"),
        }
    }

    fn extend_list(&mut self, from: usize) -> Result<(), Stop> {
        let items = self.split(from)?;
        match self.target() {
            Some(Value::List(list)) => {
                list.extend(items);
                Ok(())
            }
            _ => bad("it appends to something that is no list"),
        }
    }

    fn store(&mut self, n: u32) -> Result<(), Stop> {
        let Some(&top) = self.stack.last() else { return bad("it stores a value of an empty stack") };
        // Python numbers memo entries from 0.
        if n as usize >= LIMIT {
            return bad(format!("memo index {n} is not below {LIMIT}"));
        }
        if self.memo.len() <= n as usize {
            self.memo.resize(n as usize + 1, NOTHING);
        }
        let place = &mut self.memo[n as usize];
        self.remembered += u32::from(*place == NOTHING);
        *place = top;
        Ok(())
    }

    fn recall(&mut self, n: u32) -> Result<(), Stop> {
        match self.memo.get(n as usize) {
            Some(&id) if id != NOTHING => self.push_id(id),
            _ => bad(format!("memo index {n} was never stored")),
        }
    }

    fn line(&mut self) -> Result<String, Stop> {
        let rest = &self.so_far.bytes[self.at..];
        match rest.iter().take(200).position(|&b| b == b'\n') {
            Some(n) => {
                let line = String::from_utf8_lossy(&rest[..n]).into_owned();
                self.at += n + 1;
                Ok(line)
            }
            None => bad("a name has no end"),
        }
    }
}

#[cfg(test)]
#[path = "pickle_tests.rs"]
mod tests;
