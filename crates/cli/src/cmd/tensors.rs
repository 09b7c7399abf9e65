//! `pheye info` for weights files: the name, data type and shape of every tensor, without reading an element.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use pheye::weights::{Checkpoint, FOLDER_FILES, first_in};
use pheye_files::quoted;
use serde_json::{Value, json};

use crate::numbers::{bytes, grouped};
use crate::out::say;

/// File name extensions of weights files.
const ENDINGS: [&str; 4] = ["safetensors", "pt", "pth", "bin"];

/// Lists the tensors of `path`, a weights file or a folder that contains some.
pub(super) fn list(path: &Path, as_json: bool) -> anyhow::Result<()> {
    let files = if path.is_dir() { files_in(path)? } else { vec![path.to_owned()] };
    let checkpoints = files.iter().map(Checkpoint::open).collect::<Result<Vec<_>, _>>()?;
    if as_json {
        let files: Vec<Value> = checkpoints.iter().map(as_value).collect();
        say!("{}", json!({ "files": files }));
        return Ok(());
    }
    for (i, checkpoint) in checkpoints.iter().enumerate() {
        if i > 0 {
            say!("");
        }
        print(checkpoint);
    }
    Ok(())
}

fn files_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    // If the folder has an index, only the index is listed; otherwise its shards would be listed twice.
    if let Some(whole) = first_in(folder, FOLDER_FILES) {
        return Ok(vec![whole]);
    }
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut files = paths.with_context(|| folder.display().to_string())?;
    let known = |ending: &str| ENDINGS.contains(&ending);
    files.retain(|file| file.extension().and_then(|e| e.to_str()).is_some_and(known));
    files.sort();
    ensure!(!files.is_empty(), "{}: no model and no file of weights in it", folder.display());
    Ok(files)
}

fn as_value(checkpoint: &Checkpoint) -> Value {
    let tensor = |t: pheye::weights::TensorInfo| {
        let mut value = json!({
            "name": t.name, "dtype": t.dtype.to_string(), "shape": t.dims, "bytes": t.bytes,
            "file": t.file.display().to_string(),
        });
        if let Some(why) = t.unusable {
            value["unusable"] = json!(why.to_string());
        }
        value
    };
    json!({
        "file": checkpoint.path().display().to_string(),
        "format": checkpoint.format().to_string(),
        "state_dict_keys": checkpoint.state_dict_keys(),
        "metadata": checkpoint.metadata(),
        "tensors": checkpoint.tensors().map(tensor).collect::<Vec<_>>(),
    })
}

/// Maximum width of the name column, in characters.
const WIDEST: usize = 80;

fn print(checkpoint: &Checkpoint) {
    let rows: Vec<(String, String, String)> = checkpoint
        .tensors()
        .map(|t| {
            let why = t.unusable.map_or_else(String::new, |why| format!("  {why}"));
            (quoted(t.name), t.dtype.to_string(), format!("{:?}{why}", t.dims))
        })
        .collect();
    let size: u64 = checkpoint.tensors().map(|t| t.bytes).sum();
    say!(
        "{}: {}, {} tensors, {}",
        checkpoint.path().display(),
        checkpoint.format(),
        grouped(rows.len() as u64),
        bytes(size)
    );
    if !checkpoint.state_dict_keys().is_empty() {
        let keys: Vec<String> = checkpoint.state_dict_keys().iter().map(|key| quoted(key)).collect();
        say!("state dict under `{}`", keys.join("`, `"));
    }
    for (key, text) in checkpoint.metadata() {
        say!("metadata `{}` = {}", quoted(key), quoted(text));
    }
    let wide = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0).min(WIDEST);
    for (name, dtype, shape) in rows {
        say!("  {name:wide$}  {dtype:<8} {shape}");
    }
}
