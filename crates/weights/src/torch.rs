//! Reads torch's zip archive: `NAME/data.pkl` describes the tensors, and `NAME/data/KEY` contains the bytes
//! of a storage.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use crate::entry::{Contents, Entry, Record};
use crate::error::name;
use crate::file::DataFile;
use crate::value::{Foreign, Id, Pickle, Storage, Value, View};
use crate::{Error, Result, pickle};

/// The maximum size of a pickle in bytes. Real ones have a few hundred bytes per tensor.
const PICKLE_LIMIT: u64 = 64 << 20;

/// The maximum number of tensors. Their dimensions are stored per tensor here, while in the pickle tensors
/// may share them.
const TENSORS_LIMIT: usize = 1 << 18;

/// The maximum number of elements of a tensor that has more than its storage (as `expand` creates), so that a
/// small file cannot demand arbitrary memory.
const EXPANDED_LIMIT: u64 = 1 << 26;

/// The keys under which training scripts save a state dict, most specific first.
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "model", "module", "weights"];

/// A file in the zip.
struct Member {
    bytes: Arc<Record>,
    /// Whether it is neither compressed nor encrypted.
    stored: bool,
}

/// The files in the zip by name.
type Members = HashMap<String, Member>;

/// Reads the tensors of the state dict in `file`.
pub(crate) fn read(file: &DataFile) -> Result<Contents> {
    let members = members(file)?;
    let not_torch = |reason: String| Error::NotTorchZip { path: file.path.clone(), reason };
    let mut pickles = members.keys().filter(|name| {
        let top = name.strip_suffix("data.pkl");
        top.is_some_and(|top| top.is_empty() || top.ends_with('/') && top.matches('/').count() == 1)
    });
    let pickle = pickles.next().ok_or_else(|| not_torch("it has no data.pkl".into()))?;
    if pickles.next().is_some() {
        return Err(not_torch("it has more than one data.pkl".into()));
    }
    let top = pickle.strip_suffix("data.pkl").unwrap_or_default();
    if members.contains_key(&format!("{top}constants.pkl")) {
        return Err(Error::TorchScript { path: file.path.clone() });
    }
    if let Some(order) = members.get(&format!("{top}byteorder"))
        && let order = file.read(order.bytes.start..order.bytes.start + order.bytes.len.min(16))?
        && order != b"little"
    {
        return Err(not_torch(match order {
            b"big" => "it was written on a big-endian machine".into(),
            _ => "its byte order is neither `little` nor `big`".into(),
        }));
    }
    let bytes = pickle_bytes(file, pickle, &members[pickle])?;
    let pickle = pickle::read(bytes, &file.path)?;
    let mut keys = Vec::new();
    let Some(state) = state_dict(&pickle, pickle.root, 3, &mut keys) else {
        return Err(Error::NoTensors { path: file.path.clone(), top: describe(&pickle) });
    };
    let entries = entries(file, &members, top, &pickle, state)?;
    Ok(Contents { entries, metadata: BTreeMap::new(), keys })
}

/// The bytes of the pickle `name`, with its checksum verified.
fn pickle_bytes<'a>(file: &'a DataFile, name: &str, member: &Member) -> Result<&'a [u8]> {
    if !member.stored {
        return Err(Error::NotTorchZip { path: file.path.clone(), reason: compressed(name) });
    }
    let record = &member.bytes;
    if record.len > PICKLE_LIMIT {
        return Err(Error::HeaderTooLong { path: file.path.clone(), len: record.len, limit: PICKLE_LIMIT });
    }
    let bytes = file.read(record.range())?;
    if record.crc != 0 && crc32fast::hash(bytes) != record.crc {
        let reason = format!("`{name}` does not match its checksum");
        return Err(Error::Zip { path: file.path.clone(), reason });
    }
    Ok(bytes)
}

fn compressed(file: &str) -> String {
    format!("`{}` is compressed or encrypted; zip its files again without compression", name(file))
}

/// The tensors of `state`; other values, such as step counts, are skipped.
fn entries(
    file: &DataFile,
    members: &Members,
    top: &str,
    pickle: &Pickle<'_>,
    state: &[(Id, Id)],
) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    for &(key, value) in state {
        let (Some(tensor), value) = (pickle.text(key), pickle.get(value)) else { continue };
        let entry = match value {
            Value::Foreign(foreign) => listed(pickle, foreign),
            Value::Tensor(view) => {
                let Value::Storage(storage) = pickle.get(view.storage) else { continue };
                let key = pickle.text(storage.key).unwrap_or_default();
                let fault = |reason: String| Error::Record {
                    path: file.path.clone(),
                    tensor: tensor.clone().into_owned(),
                    record: key.clone().into_owned(),
                    reason,
                };
                let member = members.get(&format!("{top}data/{key}"));
                let member = member.ok_or_else(|| fault("is missing".into()))?;
                if !member.stored {
                    return Err(fault("is compressed or encrypted".into()));
                }
                place(pickle, view, storage, &member.bytes).map_err(fault)?
            }
            _ => continue,
        };
        entries.insert(tensor.into_owned(), entry);
        if entries.len() > TENSORS_LIMIT {
            let reason = format!("its state dict has more than {TENSORS_LIMIT} tensors");
            return Err(Error::NotTorchZip { path: file.path.clone(), reason });
        }
    }
    Ok(entries)
}

/// The files in the zip, each checked to be inside it.
fn members(file: &DataFile) -> Result<Members> {
    let fault = |reason: String| Error::Zip { path: file.path.clone(), reason };
    let mut zip = archive(file.bytes()).map_err(|e| fault(e.to_string()))?;
    check_end(file, zip.comment().len() as u64)?;
    if zip.has_duplicate_names() {
        return Err(fault("two of its files have the same name".into()));
    }
    let mut members = HashMap::new();
    for i in 0..zip.len() {
        let entry = zip.by_index_raw(i).map_err(|e| fault(e.to_string()))?;
        let path = entry.name().map_err(|e| fault(e.to_string()))?.into_owned();
        let (start, len) = (entry.data_start().unwrap_or(u64::MAX), entry.compressed_size());
        match start.checked_add(len) {
            Some(end) if end <= file.len => {}
            _ => return Err(fault(format!("`{}` is outside the file", name(&path)))),
        }
        let stored =
            entry.compression() == CompressionMethod::Stored && entry.size() == len && !entry.encrypted();
        let bytes = Arc::new(Record { start, len, crc: entry.crc32(), sound: OnceLock::new() });
        // Names that differ in their bytes may still decode to the same text.
        if members.insert(path.clone(), Member { bytes, stored }).is_some() {
            return Err(fault(format!("`{}` occurs twice", name(&path))));
        }
    }
    Ok(members)
}

/// Opens the zip in `bytes`. The offset of the central directory in the end record is correct if nothing
/// precedes the zip, so it is tried first. Otherwise the library locates the directory by its distance from
/// the end record, which can go wrong for torch's zips: 76 bytes of zip64 records are between the directory
/// and the end record, and if the first entry of the directory also has 76 bytes, the second is mistaken for
/// the first.
fn archive(bytes: &[u8]) -> zip::result::ZipResult<ZipArchive<Cursor<&[u8]>>> {
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    ZipArchive::with_config(config, Cursor::new(bytes)).or_else(|_| ZipArchive::new(Cursor::new(bytes)))
}

/// Returns an error if bytes follow the zip, which ends with a 22-byte end record and its comment. The zip
/// library ignores such bytes.
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

/// The location of a tensor in the file, or what is wrong with its record.
fn place(pickle: &Pickle<'_>, view: &View, storage: &Storage, record: &Arc<Record>) -> Result<Entry, String> {
    let View { dtype, offset, dims, strides, .. } = *view;
    let sizes = (pickle.natural(offset), pickle.naturals(dims), pickle.naturals(strides));
    let (Some(offset), Some(dims), Some(strides)) = sizes else {
        return Err("has a tensor without sizes".into());
    };
    if storage.bytes != record.len {
        return Err(format!("has {} bytes, the pickle says {}", record.len, storage.bytes));
    }
    let size = dtype.size() as u64;
    let held = storage.bytes / size;
    let elements = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    // One past the last element of the view.
    let end = dims.iter().zip(&strides).try_fold(offset.checked_add(1), |end, (&d, &s)| {
        Some(end?.checked_add(d.saturating_sub(1).checked_mul(s)?))
    });
    let elements = match (elements, end.flatten()) {
        (Some(0), _) if offset <= held => 0,
        (Some(n), Some(end)) if n > 0 && end <= held && n <= held.max(EXPANDED_LIMIT) => n,
        _ => {
            let rank = dims.len().min(8);
            return Err(format!(
                "has {held} elements; shape {:?} with strides {:?} at offset {offset} exceeds them",
                &dims[..rank],
                &strides[..rank]
            ));
        }
    };
    let mut next = 1;
    let mut follows = |(&d, &s): (&u64, &u64)| {
        let yes = d == 1 || s == next;
        next *= d;
        yes
    };
    let packed = elements == 0 || dims.iter().zip(&strides).rev().all(&mut follows);
    let narrow = |all: &[u64]| all.iter().map(|&n| n as usize).collect();
    Ok(Entry {
        file: 0,
        dtype,
        dims: narrow(&dims),
        strides: (!packed).then(|| narrow(&strides)),
        start: record.start + offset * size,
        bytes: elements * size,
        record: (record.crc != 0).then(|| record.clone()),
        unusable: None,
    })
}

/// The entry of a tensor that is listed but cannot be read.
fn listed(pickle: &Pickle<'_>, foreign: &Foreign) -> Entry {
    let dims = pickle.naturals(foreign.dims).unwrap_or_default();
    let held = |id: Id| match pickle.get(id) {
        Value::Storage(storage) => Some(storage),
        Value::Tensor(view) => match pickle.get(view.storage) {
            Value::Storage(storage) => Some(storage),
            _ => None,
        },
        _ => None,
    };
    let parts = match pickle.items(foreign.parts) {
        Some(parts) => &parts[..parts.len().min(4)],
        None => &[foreign.parts],
    };
    let sizes = parts.iter().filter_map(|&part| held(part)).map(|storage| storage.bytes);
    Entry {
        file: 0,
        dtype: foreign.dtype,
        dims: dims.iter().map(|&d| d as usize).collect(),
        strides: None,
        start: 0,
        bytes: sizes.fold(0, u64::saturating_add),
        record: None,
        unusable: Some(foreign.kind),
    }
}

/// The dict of tensors: `id`, or a dict inside it, whose keys are appended to `keys`.
fn state_dict<'p>(
    pickle: &'p Pickle<'_>,
    id: Id,
    depth: usize,
    keys: &mut Vec<String>,
) -> Option<&'p [(Id, Id)]> {
    let Value::Dict(pairs) = pickle.get(id) else { return None };
    if depth > 0 {
        for wrapper in WRAPPERS {
            let inner = pairs.iter().rev().find(|(k, _)| pickle.text(*k).as_deref() == Some(wrapper));
            keys.push(wrapper.to_owned());
            if let Some(state) = inner.and_then(|&(_, v)| state_dict(pickle, v, depth - 1, keys)) {
                return Some(state);
            }
            keys.pop();
        }
    }
    if has_tensors(pickle, id) {
        return Some(pairs);
    }
    // Under any other key, if exactly one value is such a dict.
    let mut inner = pairs.iter().filter(|&&(k, v)| pickle.text(k).is_some() && has_tensors(pickle, v));
    let (Some(&(key, only)), None) = (inner.next(), inner.next()) else { return None };
    keys.extend(pickle.text(key).map(Cow::into_owned));
    match pickle.get(only) {
        Value::Dict(pairs) => Some(pairs),
        _ => None,
    }
}

/// Whether value `id` is a dict that contains tensors.
fn has_tensors(pickle: &Pickle<'_>, id: Id) -> bool {
    let tensor = |&(_, v): &(Id, Id)| matches!(pickle.get(v), Value::Tensor(_) | Value::Foreign(_));
    matches!(pickle.get(id), Value::Dict(pairs) if pairs.iter().any(tensor))
}

fn describe(pickle: &Pickle<'_>) -> String {
    match pickle.get(pickle.root) {
        Value::Dict(pairs) => {
            let keys = pairs.iter().take(8).filter_map(|&(k, _)| pickle.text(k));
            let keys: Vec<String> =
                keys.map(|k| format!("`{}`", k.chars().take(40).collect::<String>())).collect();
            if keys.is_empty() { "an empty dict".into() } else { format!("the keys {}", keys.join(", ")) }
        }
        Value::Tensor(_) | Value::Foreign(_) => "a single tensor without a name".into(),
        Value::List(_) | Value::Tuple(_) => "a list".into(),
        _ => "no dict".into(),
    }
}
