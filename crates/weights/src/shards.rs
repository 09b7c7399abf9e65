//! A sharded checkpoint: a JSON file saying which file beside it holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::read_single;
use crate::file::DataFile;
use crate::header::{Header, LIMIT};
use crate::sniff::format;
use crate::{Error, Result};

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shards that `index` names, and the tensors it places in them.
pub(crate) fn read(index: &DataFile) -> Result<(Vec<DataFile>, Header)> {
    if index.len > LIMIT {
        return Err(Error::HeaderTooLong { path: index.path.clone(), len: index.len, limit: LIMIT });
    }
    let json = index.read(0..index.len)?;
    let Index { weight_map } = serde_json::from_slice(json).map_err(|e| Error::Header {
        path: index.path.clone(),
        reason: format!("not an index of shards: {e}"),
    })?;
    let fault = |shard: &str, reason: String| Error::Shard {
        path: index.path.clone(),
        shard: shard.to_owned(),
        reason,
    };

    let shards: BTreeSet<&String> = weight_map.values().collect();
    let (mut files, mut held) = (Vec::new(), BTreeMap::new());
    for name in shards {
        if name.is_empty() || Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(fault(name, "its name must be that of a file beside the index".into()));
        }
        let file = DataFile::open(&index.path.with_file_name(name))?;
        let mut entries = read_single(&file, format(&file)?)?.0;
        entries.values_mut().for_each(|e| e.file = files.len());
        held.insert(name, entries);
        files.push(file);
    }
    let mut entries = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        let entry = held.get_mut(shard).and_then(|h| h.remove(tensor));
        let entry = entry.ok_or_else(|| fault(shard, format!("holds no tensor `{tensor}`")))?;
        entries.insert(tensor.clone(), entry);
    }
    Ok((files, (entries, BTreeMap::new())))
}
