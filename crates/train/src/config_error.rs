//! Errors in a config, with their location: file, line, table, key, and the nearest valid key.

use std::path::Path;

use crate::Error;

/// Converts an error of the TOML parser.
pub(crate) fn explain(mut error: toml::de::Error, text: &str, path: &Path) -> Error {
    let line = error.span().map_or(0, |span| line_of(text, span.start));
    // Without its input, the error prints the path of keys instead of an excerpt of the file.
    error.set_input(None);
    let shown = error.to_string();
    let keys = shown.rsplit_once("\nin `").map_or("", |(_, keys)| keys.trim_end().trim_end_matches('`'));
    let message = error.message();
    if let Some((key, valid)) = unknown(message) {
        let table = keys.strip_suffix(key.as_str()).unwrap_or(keys).trim_end_matches('.').to_string();
        let nearest = nearest(&key, &valid).cloned();
        return Error::UnknownKey { path: path.into(), line, table, key, nearest, valid };
    }
    Error::Config { path: path.into(), line, key: keys.into(), message: message.to_string() }
}

/// Adds the location in the config to an error about the network; `config` is the table `[model.config]`.
pub(crate) fn network(error: Error, config: &toml::Table, text: &str, path: &Path) -> Error {
    match error {
        Error::Preset { name } => {
            let message =
                format!("there is no preset `{name}`; there are {}", pheye_model::PRESETS.join(", "));
            fault("model.preset", message, text, path)
        }
        Error::Network { message } => match unknown(&message) {
            Some((key, valid)) => {
                let known = serde_json::to_value(pheye_model::Config::default()).unwrap_or_default();
                let table =
                    table_of("model.config", config, &known, &key).unwrap_or_else(|| "model.config".into());
                let line = find(text, &format!("{table}.{key}"));
                let nearest = nearest(&key, &valid).cloned();
                Error::UnknownKey { path: path.into(), line, table, key, nearest, valid }
            }
            None => fault("model.config", message, text, path),
        },
        other => other,
    }
}

/// Extracts the key and the valid keys from serde's message about an unknown field.
fn unknown(message: &str) -> Option<(String, Vec<String>)> {
    let mut quoted = message.strip_prefix("unknown field `")?.split('`').step_by(2).map(str::to_string);
    let key = quoted.next()?;
    Some((key, quoted.filter(|k| !k.is_empty()).collect()))
}

/// The dotted name of the table, at or below `table` (called `name`), that sets `key` although `known`, the
/// network's own config, has no such key there.
fn table_of(name: &str, table: &toml::Table, known: &serde_json::Value, key: &str) -> Option<String> {
    if table.contains_key(key) && known.get(key).is_none() {
        return Some(name.to_string());
    }
    table.iter().find_map(|(k, v)| table_of(&format!("{name}.{k}"), v.as_table()?, known.get(k)?, key))
}

/// The error for a value that was parsed but is out of range.
pub(crate) fn fault(key: &str, message: String, text: &str, path: &Path) -> Error {
    Error::Config { path: path.into(), line: find(text, key), key: key.into(), message }
}

/// The error for a value of the table number `i` of the array of tables `table`.
pub(crate) fn in_table(table: &str, i: usize, key: &str, message: String, text: &str, path: &Path) -> Error {
    let header = format!("[[{table}]]");
    let begins = text
        .match_indices(&header)
        .filter(|(at, _)| text[..*at].rsplit('\n').next().is_some_and(|before| before.trim().is_empty()));
    // An array that is written in line has no headers.
    let at = begins.map(|(at, _)| at).nth(i);
    let line = at.map_or(0, |at| {
        let mut lines = text[at..].lines().skip(1).take_while(|line| !line.trim_start().starts_with('['));
        let found = lines.position(|line| line.split('=').next().is_some_and(|k| k.trim() == key));
        line_of(text, at) + found.map_or(0, |n| n + 1)
    });
    Error::Config { path: path.into(), line, key: format!("{table}[{i}].{key}"), message }
}

/// The valid key that is most similar to `key`, if one is similar enough.
pub(crate) fn nearest<'a>(key: &str, valid: &'a [String]) -> Option<&'a String> {
    let likeness = |v: &&String| (strsim::jaro_winkler(key, v) * 1e6) as u64;
    valid.iter().max_by_key(likeness).filter(|v| likeness(v) > 700_000)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// The line that sets `key`, or else the line of its table's header, or 0.
fn find(text: &str, key: &str) -> usize {
    let (table, name) = key.rsplit_once('.').unwrap_or((key, ""));
    let (mut inside, mut header) = (false, 0);
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.trim_matches(['[', ']']) == table;
            header = if inside { i + 1 } else { header };
        } else if inside && line.split('=').next().is_some_and(|k| k.trim() == name) {
            return i + 1;
        }
    }
    header
}
