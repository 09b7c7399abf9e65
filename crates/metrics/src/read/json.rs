//! JSON files, and objects whose keys may occur twice.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use pheye_files::{Kind, read_text};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{Error, Result};

/// The largest file that is read, in bytes. The annotations of VQAv2 have 0.4 GB.
const LIMIT: u64 = 4 << 30;

/// Reads the file of a `form` at `path`, UTF-8 with or without a byte order mark.
///
/// # Errors
/// Returns [`Error::Io`] if it cannot be read, and [`Error::Form`] if it has another form.
pub fn read<T: DeserializeOwned>(path: &Path, form: &'static str) -> Result<T> {
    parse(&text(path)?, path, form)
}

/// Parses `text`, which is that of the file at `path`, or a part of it.
pub(super) fn parse<'a, T: Deserialize<'a>>(text: &'a str, path: &Path, form: &'static str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| Error::Form { name: name(path), form, source })
}

/// The values of a file with one in each line that is not blank; `text` is that of the file at `path`.
///
/// # Errors
/// Returns [`Error::Form`] for the first line of another form.
pub fn lines<T: DeserializeOwned>(text: &str, path: &Path, form: &'static str) -> Result<Vec<T>> {
    let each = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    each.map(|(i, line)| {
        let named = |source| Error::Form { name: format!("{}, line {}", name(path), i + 1), form, source };
        serde_json::from_str(line).map_err(named)
    })
    .collect()
}

/// The text of the file at `path`.
///
/// # Errors
/// Returns [`Error::Io`] if it cannot be read, is not UTF-8, or has more than 4 GiB.
pub fn text(path: &Path) -> Result<String> {
    read_text(path, Kind::Any, LIMIT).map_err(|source| Error::Io { name: name(path), source })
}

/// The file in messages.
pub(super) fn name(path: &Path) -> String {
    path.display().to_string()
}

/// The entries of an object in their order. A map would drop all but the last of those with one key.
#[derive(Debug)]
pub struct Entries<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Entries<T>, D::Error> {
        struct EntriesVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        from.deserialize_map(EntriesVisitor(PhantomData))
    }
}
