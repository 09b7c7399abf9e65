//! What is wrong with a config, in words that lead to the place: file, line, table, key, and the nearest valid key.

use std::path::Path;

use crate::Error;

/// The error of the TOML reader, made into one of ours.
pub(crate) fn explain(mut error: toml::de::Error, text: &str, path: &Path) -> Error {
    let line = error.span().map_or(0, |span| line_of(text, span.start));
    // Without its input the reader prints the path of keys instead of the lines of the file.
    error.set_input(None);
    let shown = error.to_string();
    let keys = shown.rsplit_once("\nin `").map_or("", |(_, keys)| keys.trim_end().trim_end_matches('`'));
    let message = error.message();
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let mut quoted = rest.split('`').step_by(2);
        let key = quoted.next().unwrap_or_default().to_string();
        let valid: Vec<String> = quoted.map(str::to_string).filter(|k| !k.is_empty()).collect();
        let table = keys.strip_suffix(key.as_str()).unwrap_or(keys).trim_end_matches('.').to_string();
        let nearest = nearest(&key, &valid).cloned();
        return Error::UnknownKey { path: path.into(), line, table, key, nearest, valid };
    }
    Error::Config { path: path.into(), line, key: keys.into(), message: message.to_string() }
}

/// A value that was read but makes no sense.
pub(crate) fn fault(key: &str, message: String, text: &str, path: &Path) -> Error {
    Error::Config { path: path.into(), line: find(text, key), key: key.into(), message }
}

/// The valid key most like `key`, if any is much like it.
pub(crate) fn nearest<'a>(key: &str, valid: &'a [String]) -> Option<&'a String> {
    let likeness = |v: &&String| (strsim::jaro_winkler(key, v) * 1e6) as u64;
    valid.iter().max_by_key(likeness).filter(|v| likeness(v) > 700_000)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// The line that sets `key`, or else its table's, or 0.
fn find(text: &str, key: &str) -> usize {
    let (table, name) = key.split_once('.').unwrap_or((key, ""));
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
