//! Files of JSON lines that grow, of work that may be interrupted: the same command goes on after the last complete
//! line, if everything that the lines depend on is still the same.

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use pheye_files::{Kind, read};
use pheye_metrics::read::json;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The largest file that is continued, in bytes.
const LIMIT: u64 = 4 << 30;

/// Compares `now`, everything that the lines depend on, with the file `path`, or writes it if there is none.
///
/// # Errors
/// [`Error::Settings`] when a setting differs, [`Error::Io`] when the file cannot be read or written.
pub fn settings(path: &Path, now: &Map<String, Value>) -> Result<()> {
    if !path.exists() {
        let text = serde_json::to_string_pretty(now).unwrap_or_default() + "\n";
        return Ok(pheye_weights::atomic_write(path, |out| out.write_all(text.as_bytes()))?);
    }
    let then: Map<String, Value> = json(path, "settings of an evaluation")?;
    let keys = then.keys().chain(now.keys());
    let Some(key) = keys.into_iter().find(|key| then.get(*key) != now.get(*key)) else { return Ok(()) };
    let value = |of: &Map<String, Value>| of.get(key).map_or("nothing".to_owned(), Value::to_string);
    let (key, then, now) = (key.clone(), value(&then), value(now));
    Err(Error::Settings { path: path.to_owned(), key, then, now })
}

/// The complete lines of the file `path`, each with its end; none if there is no file. A line that does not end was being
/// written, perhaps to the middle of a character.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read.
pub fn complete_lines(path: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = match read(path, Kind::Any, LIMIT) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.map_err(io(path))?,
    };
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    Ok(lines.map(<[u8]>::to_vec).collect())
}

/// A file to which lines are added, which are on the disk when [`Grown::add`] returns.
#[derive(Debug)]
pub struct Grown {
    path: PathBuf,
    file: File,
}

impl Grown {
    /// Opens the file, which is created if there is none, to add lines after its end.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn open(path: &Path) -> Result<Grown> {
        let opened = File::options().create(true).write(true).truncate(false).open(path);
        let mut file = opened.map_err(io(path))?;
        file.seek(SeekFrom::End(0)).map_err(io(path))?;
        Ok(Grown { path: path.to_owned(), file })
    }

    /// Opens the file to add lines after `kept`, its first lines; what follows them is removed.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn after(path: &Path, kept: &[Vec<u8>]) -> Result<Grown> {
        let mut grown = Grown::open(path)?;
        let bytes: usize = kept.iter().map(Vec::len).sum();
        let cut = grown.file.set_len(bytes as u64).and_then(|()| grown.file.seek(SeekFrom::End(0)));
        cut.map_err(io(path))?;
        Ok(grown)
    }

    /// Adds complete lines.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be written.
    pub fn add(&mut self, lines: &str) -> Result<()> {
        self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data()).map_err(io(&self.path))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    |source| Error::Io { path: path.to_owned(), source }
}
