//! Writes JSON, and the errors of files whose JSON is wrong.

use std::path::Path;

use pheye_weights::atomic_write;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Error, Result};

/// Writes `value` to the file `path`, atomically.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| fault(path, e.to_string()))?;
    Ok(atomic_write(path, |file| writeln!(file, "{text}"))?)
}

/// The error of a file whose contents are wrong.
pub(crate) fn fault(path: &Path, why: String) -> Error {
    Error::Config { path: path.into(), why }
}

/// The shortest decimal for `value`: 1e-5, where the nearest f64 would print 17 digits.
pub(crate) fn decimal(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(value.into()))
}
