//! Indices on disk, so that a file of a gigabyte is scanned once and not at each start.
//!
//! A stored index is used only if the published files have the same paths, lengths and times of change, and
//! the rules are the same. A stored index that is damaged is built anew, and a folder that cannot be written
//! to is no error.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pheye_files::Kind;
use serde::{Deserialize, Serialize};

use crate::index::{Facts, Index, Row};
use crate::published::{Published, Span};
use crate::source::key;

const MAGIC: &[u8] = b"pheye index 1\n";
/// Shorter files take no longer to scan than their index to load.
const LEAST: u64 = 1 << 20;
/// A file that was changed so recently may change again within the resolution of its time.
const SETTLED: Duration = Duration::from_secs(2);
/// Maximum length of a stored index in bytes.
const LIMIT: u64 = 4 << 30;
const ROW: usize = 14;
const SPAN: usize = 16;

#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    facts: Facts,
    rows: usize,
    spans: usize,
}

/// The place of the index of a source.
pub(crate) struct Stored {
    file: PathBuf,
    /// What the index depends on.
    key: String,
    tables: usize,
}

/// The default folder of indices: `pheye/index` in the user's folder of caches (`XDG_CACHE_HOME`, otherwise
/// `~/.cache`), if there is one.
pub fn index_folder() -> Option<PathBuf> {
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = set.or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
    Some(folder.join("pheye/index"))
}

impl Stored {
    /// The place in `folder` of the index of `files` under `rules`; the first `tables` files have rows. `None`
    /// if the files are so short, or were changed so recently, that their index is not stored.
    pub(crate) fn new(folder: &Path, files: &[&Published], tables: usize, rules: &str) -> Option<Stored> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.saturating_sub(SETTLED);
        let (mut names, mut states) = (vec![rules.to_owned()], Vec::new());
        for file in files {
            let modified = file.modified.filter(|ns| u128::from(*ns) < now.as_nanos())?;
            names.push(std::path::absolute(file.path.as_ref()?).ok()?.display().to_string());
            states.push(format!("{} {modified}", file.len));
        }
        let parts: Vec<&str> = names.iter().map(String::as_str).collect();
        let file = folder.join(format!("{:016x}.index", key(&parts)));
        let key = [names, states].concat().join("\n");
        let long = files.iter().map(|file| file.len).sum::<u64>() >= LEAST;
        long.then_some(Stored { file, key, tables })
    }

    /// The stored index, if there is one and nothing has changed.
    pub(crate) fn load(&self) -> Option<Index> {
        let bytes = pheye_files::read(&self.file, Kind::Regular, LIMIT).ok()?;
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (len, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
        let (header, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        let header: Header = serde_json::from_slice(header).ok().filter(|h: &Header| h.key == self.key)?;
        let (rows, spans) = rest.split_at_checked(header.rows.checked_mul(ROW)?)?;
        let rows = rows.as_chunks::<ROW>().0.iter().map(row).collect();
        let spans: Vec<Span> = spans.as_chunks::<SPAN>().0.iter().map(span).collect();
        let index = Index { rows, spans, facts: header.facts };
        let whole = index.spans.len() == header.spans && index.facts.prints.len() == self.tables;
        let inside =
            |row: &Row| row.first as usize + usize::from(row.records) * self.tables <= index.spans.len();
        let fits = index.rows.iter().all(inside) && index.spans.iter().all(|s| s.file() < self.tables);
        (whole && fits).then_some(index)
    }

    /// Stores the index. If that fails, the next start takes longer; nothing else.
    pub(crate) fn save(&self, index: &Index) {
        let facts = index.facts.clone();
        let header =
            Header { key: self.key.clone(), facts, rows: index.rows.len(), spans: index.spans.len() };
        let Ok(header) = serde_json::to_vec(&header) else { return };
        let mut bytes = [MAGIC, &(header.len() as u64).to_le_bytes(), &header].concat();
        index.rows.iter().for_each(|row| bytes.extend(row_bytes(row)));
        for span in &index.spans {
            bytes.extend(span.place.to_le_bytes());
            bytes.extend(span.len.to_le_bytes());
            bytes.extend(span.crc.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let _ = self.write(&bytes);
    }

    /// Replaces the file by a complete one. Nothing is synced: a file that is damaged is built anew.
    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let partial = self.file.with_extension(format!("{}.partial", std::process::id()));
        let written = fs::File::create(&partial).and_then(|mut file| file.write_all(bytes));
        let done = written.and_then(|()| fs::rename(&partial, &self.file));
        if done.is_err() {
            // The folder may be full; nothing more can be done about what is left in it.
            let _ = fs::remove_file(&partial);
        }
        done
    }
}

fn row_bytes(row: &Row) -> Vec<u8> {
    let Row { first, number, records, turns, tag, has } = row;
    let halves = [records.to_le_bytes(), turns.to_le_bytes()].concat();
    [&first.to_le_bytes()[..], &number.to_le_bytes(), &halves, &[*tag, *has]].concat()
}

fn row(bytes: &[u8; ROW]) -> Row {
    let [a, b, c, d, e, f, g, h, i, j, k, l, tag, has] = *bytes;
    Row {
        first: u32::from_le_bytes([a, b, c, d]),
        number: u32::from_le_bytes([e, f, g, h]),
        records: u16::from_le_bytes([i, j]),
        turns: u16::from_le_bytes([k, l]),
        tag,
        has,
    }
}

fn span(bytes: &[u8; SPAN]) -> Span {
    let [place, rest @ ..] = bytes.as_chunks::<8>().0 else { return Span { place: 0, len: 0, crc: 0 } };
    let rest = rest.first().copied().unwrap_or_default();
    let [a, b, c, d, e, f, g, h] = rest;
    let (len, crc) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    Span { place: u64::from_le_bytes(*place), len, crc }
}
