//! Reads the header of a safetensors file. The file is a little-endian u64 length, a JSON object of that
//! length that describes the tensors, and then their bytes without gaps
//! (<https://github.com/huggingface/safetensors>).

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::entry::Contents;
use crate::entry::Entry;
use crate::file::DataFile;
use crate::{Error, Result, StoredDType, Unusable};

/// The maximum length of a header in bytes, the same as in the reference implementation.
pub(crate) const LIMIT: u64 = 100_000_000;

#[derive(Deserialize)]
struct Claim {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

#[derive(Default)]
struct Claims {
    tensors: Vec<(String, Claim)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Claims, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut all = Claims::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        all.metadata = map.next_value()?;
                        continue;
                    }
                    let claim = map.next_value();
                    let claim = claim.map_err(|e| A::Error::custom(format!("tensor `{name}`: {e}")))?;
                    all.tensors.push((name, claim));
                }
                Ok(all)
            }
        }
        d.deserialize_map(All)
    }
}

/// Reads and validates the header of `file`, the only file of its checkpoint.
pub(crate) fn read(file: &DataFile) -> Result<Contents> {
    let path = || file.path.clone();
    let len = file.read(0..8)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    if len > LIMIT {
        return Err(Error::HeaderTooLong { path: path(), len, limit: LIMIT });
    }
    let data = 8 + len;
    let json = file.read(8..data)?;
    let claims: Claims =
        serde_json::from_slice(json).map_err(|e| Error::Header { path: path(), reason: e.to_string() })?;

    let mut tensors = claims.tensors;
    tensors.sort_by_key(|(_, c)| c.data_offsets);
    let mut entries = BTreeMap::new();
    let (mut end, mut previous) = (0, None::<String>);
    for (name, claim) in tensors {
        let layout = |reason| Error::Layout { path: path(), tensor: name.clone(), reason };
        let dtype = StoredDType::from_safetensors(&claim.dtype).ok_or_else(|| Error::UnknownDType {
            path: path(),
            tensor: name.clone(),
            dtype: claim.dtype.clone(),
        })?;
        let (from, to) = claim.data_offsets;
        let elements = claim.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let bytes = elements.and_then(|n| dtype.bytes(n));
        let claimed = || format!("{dtype} {:?} does not fit bytes {from} to {to}", claim.shape);
        if bytes.is_none() || to.checked_sub(from) != bytes {
            return Err(layout(claimed()));
        }
        if from < end {
            let other = previous.as_deref().unwrap_or_default();
            return Err(layout(format!(
                "its bytes {from} to {to} overlap those of `{other}`, which end at {end}"
            )));
        }
        if from > end {
            return Err(layout(format!("{} unused bytes precede it", from - end)));
        }
        // The check of the file's length below ensures that dimensions and offsets fit their types.
        let start = data.checked_add(from).ok_or_else(|| layout(claimed()))?;
        let dims = claim.shape.iter().map(|&d| d as usize).collect();
        let unusable = (!dtype.is_whole_bytes()).then_some(Unusable::Narrow);
        let (strides, record) = (None, None);
        let entry = Entry { file: 0, dtype, dims, strides, start, bytes: to - from, record, unusable };
        if entries.insert(name.clone(), entry).is_some() {
            return Err(Error::Duplicate { path: path(), tensor: name });
        }
        (end, previous) = (to, Some(name));
    }
    let expected = data.saturating_add(end);
    match expected.cmp(&file.len) {
        std::cmp::Ordering::Greater => Err(Error::Truncated { path: path(), expected, found: file.len }),
        std::cmp::Ordering::Less => Err(Error::Trailing { path: path(), extra: file.len - expected }),
        std::cmp::Ordering::Equal => Ok(Contents { entries, metadata: claims.metadata, keys: vec![] }),
    }
}
