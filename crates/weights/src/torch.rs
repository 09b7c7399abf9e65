//! Torch's zip: `NAME/data.pkl` says which tensors there are, `NAME/data/KEY` holds the bytes of each storage.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

use zip::{CompressionMethod, ZipArchive};

use crate::checkpoint::Entry;
use crate::file::DataFile;
use crate::pickle::{Id, Pickle, Value, View};
use crate::{Error, Result};

/// A real one has some hundred bytes per tensor.
const PICKLE_LIMIT: u64 = 64 << 20;

/// Keys under which training scripts put a state dict, most specific first.
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "model", "module", "weights"];

/// A stored file of the zip.
struct Record {
    start: u64,
    len: u64,
    crc: u32,
}

/// The tensors of the state dict in `file`.
pub(crate) fn read(file: &DataFile) -> Result<BTreeMap<String, Entry>> {
    let records = records(file)?;
    let not_torch = |reason: &str| Error::NotTorchZip { path: file.path.clone(), reason: reason.into() };
    let mut pickles = records.keys().filter(|name| {
        let top = name.strip_suffix("data.pkl");
        top.is_some_and(|top| top.is_empty() || top.ends_with('/') && top.matches('/').count() == 1)
    });
    let name = pickles.next().ok_or_else(|| not_torch("it has no data.pkl"))?;
    if pickles.next().is_some() {
        return Err(not_torch("it has more than one data.pkl"));
    }
    let top = name.strip_suffix("data.pkl").unwrap_or_default();
    if let Some(order) = records.get(&format!("{top}byteorder"))
        && file.read(order.start..order.start + order.len.min(16))? != b"little"
    {
        return Err(not_torch("it was written on a big-endian machine"));
    }

    let record = &records[name];
    if record.len > PICKLE_LIMIT {
        return Err(Error::HeaderTooLong { path: file.path.clone(), len: record.len, limit: PICKLE_LIMIT });
    }
    let bytes = file.read(record.start..record.start + record.len)?;
    if crc32fast::hash(bytes) != record.crc {
        return Err(Error::Zip {
            path: file.path.clone(),
            reason: format!("`{name}` does not match its checksum"),
        });
    }
    let pickle = Pickle::read(bytes, &file.path)?;
    let Some(state) = state_dict(&pickle, pickle.root, 3) else {
        return Err(Error::NoTensors { path: file.path.clone(), top: describe(&pickle) });
    };
    let mut entries = BTreeMap::new();
    for &(key, value) in state {
        // Other values (step counts, names) are not weights.
        if let (Some(tensor), Value::Tensor(view)) = (pickle.text(key), pickle.get(value)) {
            let key = pickle.text(view.storage.key).unwrap_or_default();
            let fault = |reason: String| Error::Record {
                path: file.path.clone(),
                tensor: tensor.to_owned(),
                record: key.to_owned(),
                reason,
            };
            let record =
                records.get(&format!("{top}data/{key}")).ok_or_else(|| fault("is missing".into()))?;
            entries.insert(tensor.to_owned(), place(view, record).map_err(fault)?);
        }
    }
    Ok(entries)
}

/// The stored files of the zip, by name, each checked to lie inside it.
fn records(file: &DataFile) -> Result<HashMap<String, Record>> {
    let fault = |reason: String| Error::Zip { path: file.path.clone(), reason };
    let mut zip = ZipArchive::new(Cursor::new(file.bytes())).map_err(|e| fault(e.to_string()))?;
    check_end(file, zip.comment().len() as u64)?;
    let mut records = HashMap::new();
    for i in 0..zip.len() {
        let entry = zip.by_index_raw(i).map_err(|e| fault(e.to_string()))?;
        let name = entry.name().map_err(|e| fault(e.to_string()))?.into_owned();
        let len = entry.size();
        if entry.compression() != CompressionMethod::Stored
            || entry.compressed_size() != len
            || entry.encrypted()
        {
            let reason = format!("`{name}` is compressed or encrypted, which torch never does");
            return Err(Error::NotTorchZip { path: file.path.clone(), reason });
        }
        let start = entry.data_start().unwrap_or(u64::MAX);
        match start.checked_add(len) {
            Some(end) if end <= file.len => {}
            _ => return Err(fault(format!("`{name}` lies outside the file"))),
        }
        let crc = entry.crc32();
        if records.insert(name.clone(), Record { start, len, crc }).is_some() {
            return Err(fault(format!("`{name}` occurs twice")));
        }
    }
    Ok(records)
}

/// A zip ends with 22 bytes and a comment; readers skip whatever follows, this one says so.
fn check_end(file: &DataFile, comment: u64) -> Result<()> {
    let tail = file.len.min(22 + comment + (1 << 16));
    let bytes = file.read(file.len - tail..file.len)?;
    match bytes
        .windows(4)
        .rposition(|w| w == b"PK\x05\x06")
        .map(|at| (tail - at as u64).saturating_sub(22 + comment))
    {
        Some(0) => Ok(()),
        Some(extra) => Err(Error::Trailing { path: file.path.clone(), extra }),
        None => Err(Error::Zip { path: file.path.clone(), reason: "no end of its directory".into() }),
    }
}

/// Where in the file a tensor lies, or what is wrong with its record.
fn place(view: &View, record: &Record) -> Result<Entry, String> {
    let View { storage, offset, dims, strides } = view;
    let size = storage.dtype.size() as u64;
    if storage.elements.checked_mul(size) != Some(record.len) {
        let (n, dtype) = (storage.elements, storage.dtype);
        return Err(format!("has {} bytes, the pickle says {n} elements of {dtype}", record.len));
    }
    let elements = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    // One past the last element that the view touches.
    let end = dims.iter().zip(strides).try_fold(offset.checked_add(1), |end, (&d, &s)| {
        Some(end?.checked_add(d.saturating_sub(1).checked_mul(s)?))
    });
    let within = match (elements, end.flatten()) {
        (Some(0), _) => *offset <= storage.elements,
        (Some(n), Some(end)) => n <= storage.elements && end <= storage.elements,
        _ => false,
    };
    if !within {
        let n = storage.elements;
        return Err(format!(
            "has {n} elements; shape {dims:?} with steps {strides:?} from {offset} is not among them"
        ));
    }
    let mut next = 1;
    let mut follows = |(&d, &s): (&u64, &u64)| {
        let yes = d == 1 || s == next;
        next *= d;
        yes
    };
    let packed = elements == Some(0) || dims.iter().zip(strides).rev().all(&mut follows);
    let narrow = |all: &[u64]| all.iter().map(|&n| n as usize).collect();
    Ok(Entry {
        file: 0,
        dtype: storage.dtype,
        dims: narrow(dims),
        strides: (!packed).then(|| narrow(strides)),
        start: record.start + offset * size,
        crc: (packed && elements == Some(storage.elements)).then_some(record.crc),
    })
}

/// The dict that holds tensors: `id`, or one that a training script put inside it.
fn state_dict<'p>(pickle: &'p Pickle<'_>, id: Id, depth: usize) -> Option<&'p [(Id, Id)]> {
    let Value::Dict(pairs) = pickle.get(id) else { return None };
    if depth > 0 {
        for wrapper in WRAPPERS {
            let inner = pairs.iter().rev().find(|(k, _)| pickle.text(*k) == Some(wrapper));
            if let Some(state) = inner.and_then(|&(_, v)| state_dict(pickle, v, depth - 1)) {
                return Some(state);
            }
        }
    }
    pairs.iter().any(|&(_, v)| matches!(pickle.get(v), Value::Tensor(_))).then_some(pairs)
}

fn describe(pickle: &Pickle<'_>) -> String {
    match pickle.get(pickle.root) {
        Value::Dict(pairs) => {
            let keys = pairs.iter().take(8).filter_map(|&(k, _)| pickle.text(k));
            let keys: Vec<String> =
                keys.map(|k| format!("`{}`", k.chars().take(40).collect::<String>())).collect();
            if keys.is_empty() { "an empty dict".into() } else { format!("the keys {}", keys.join(", ")) }
        }
        Value::Tensor(_) => "a single tensor without a name".into(),
        Value::List(_) | Value::Tuple(_) => "a list".into(),
        _ => "no dict".into(),
    }
}
