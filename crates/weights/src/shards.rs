//! A sharded checkpoint: a JSON index that maps each tensor to one of the files in the same folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::entry::Contents;
use crate::error::name;
use crate::file::DataFile;
use crate::header::LIMIT;
use crate::sniff::{BOM, Format, format};
use crate::{Error, Result, header, torch};

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads the shards that `index` names, and the tensors that it lists.
pub(crate) fn read(index: &DataFile) -> Result<(Vec<DataFile>, Contents)> {
    if index.len > LIMIT {
        return Err(Error::HeaderTooLong { path: index.path.clone(), len: index.len, limit: LIMIT });
    }
    let json = index.bytes();
    let json = json.strip_prefix(BOM).unwrap_or(json);
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
    let (mut files, mut held, mut metadata) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for shard in shards {
        if shard.is_empty() || Path::new(shard).file_name() != Some(shard.as_ref()) {
            return Err(fault(shard, "its name must be that of a file beside the index".into()));
        }
        let file = DataFile::open(&index.path.with_file_name(shard))?;
        let Contents { mut entries, metadata: strings, .. } = read_single(&file, format(&file)?)?;
        strings.into_iter().for_each(|(key, value)| _ = metadata.entry(key).or_insert(value));
        entries.values_mut().for_each(|e| e.file = files.len());
        held.insert(shard, entries);
        files.push(file);
    }
    let mut entries = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        let entry = held.get_mut(shard).and_then(|h| h.remove(tensor));
        let entry = entry.ok_or_else(|| fault(shard, format!("holds no tensor `{}`", name(tensor))))?;
        entries.insert(tensor.clone(), entry);
    }
    Ok((files, Contents { entries, metadata, keys: vec![] }))
}

/// The tensors of a file that is not an index of shards.
pub(crate) fn read_single(file: &DataFile, format: Format) -> Result<Contents> {
    match format {
        Format::Safetensors => header::read(file),
        Format::Torch => torch::read(file),
        Format::Index => {
            let looks_like = "JSON, perhaps an index of shards".to_owned();
            Err(Error::NotACheckpoint { path: file.path.clone(), looks_like })
        }
    }
}
