//! Reads JSON so that errors name the file and the key.

use std::path::Path;

use pheye_files::{CONFIG_LIMIT, Kind, quoted, read_text};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Error, Result};

/// The JSON in the file `path`.
///
/// # Errors
/// [`Error::Read`] when the file cannot be read or is longer than 16 MiB, [`Error::Config`] when it is not JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = read_text(path, Kind::Regular, CONFIG_LIMIT)
        .map_err(|source| Error::Read { path: path.into(), source })?;
    serde_json::from_str(&text).map_err(|e| fault(path, e.to_string()))
}

/// Deserializes `value`, which is from the file `path`, as a `T`; `within` is put before its keys in messages.
///
/// # Errors
/// [`Error::Config`] when a key has a value of the wrong type; the error names the key.
pub fn parse<T: DeserializeOwned>(path: &Path, within: &str, value: Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|error| {
        let error = error.to_string();
        let why = match culprit::<T>(&value, &error) {
            Some(key) => format!("`{within}{}`: {}", quoted(&key), quoted(&error)),
            None => quoted(&error),
        };
        fault(path, why)
    })
}

/// The key or nested key that alone causes the same error, because serde does not name it.
fn culprit<T: DeserializeOwned>(value: &Value, error: &str) -> Option<String> {
    let at_fault = |alone: Value| serde_json::from_value::<T>(alone).is_err_and(|e| e.to_string() == error);
    let (key, value) = value.as_object()?.iter().find(|(key, value)| at_fault(json!({ *key: value })))?;
    let inner = value.as_object().into_iter().flatten();
    let inner = inner.map(|(k, v)| (k, json!({ key: { k: v } }))).find(|(_, alone)| at_fault(alone.clone()));
    Some(inner.map_or(key.clone(), |(k, _)| format!("{key}.{k}")))
}

/// The error of a file whose contents are wrong.
pub(crate) fn fault(path: &Path, why: String) -> Error {
    Error::Config { path: path.into(), why }
}

/// A value as shown in messages: on one line, truncated if long.
pub fn shown(value: &Value) -> String {
    const MOST: usize = 80;
    let text = quoted(&value.to_string());
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
