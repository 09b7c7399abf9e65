//! An append-only file of a run. A full disk delays what is appended, and a removed file is written again.
//!
//! What a run records about its steps is less important than the run itself: as long as a checkpoint is not
//! due, a file that cannot be written is no reason to stop, and nothing in it may be lost or torn.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, Result, lock};

/// A file that is only appended to.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// Length of what was written completely.
    end: u64,
    /// What could not be written yet.
    pending: Vec<u8>,
}

impl Log {
    /// A new file.
    pub(crate) fn create_new(path: PathBuf) -> Result<Log> {
        let opened = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = opened.map_err(|e| Error::write(&path, e))?;
        Ok(Log { path, file, end: 0, pending: Vec::new() })
    }

    /// A file of JSON lines, each with a `step`. The lines up to and including step `resumed` are kept and
    /// passed to `each`; with `None` the file starts empty.
    pub(crate) fn of_steps(path: PathBuf, resumed: Option<u64>, each: impl FnMut(&Value)) -> Result<Log> {
        let opened = kept(&path, resumed, each);
        let (file, end) = opened.map_err(|e| Error::write(&path, e))?;
        Ok(Log { path, file, end, pending: Vec::new() })
    }

    /// Appends `bytes`. If they cannot be written, they are kept and written with the next ones, and the
    /// first of such failures in a row is returned.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Option<Error> {
        let first = self.pending.is_empty();
        let torn = !first;
        self.pending.extend(bytes);
        let failed = self.flush(torn).err().filter(|_| first);
        failed.map(|e| Error::write(&self.path, e))
    }

    /// Writes what could not be written so far and flushes the file to the disk. A file that was removed or
    /// replaced is written again.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if that fails.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let torn = !self.pending.is_empty();
        let done = self.flush(torn).and_then(|()| self.restore()).and_then(|()| self.file.sync_data());
        done.map_err(|e| Error::write(&self.path, e))
    }

    /// Writes `pending`; `torn` says that an earlier attempt may have written a part of it.
    fn flush(&mut self, torn: bool) -> io::Result<()> {
        if torn {
            self.file.set_len(self.end)?;
            self.file.seek(SeekFrom::Start(self.end))?;
        }
        self.file.write_all(&self.pending)?;
        self.end += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Writes the contents to the path again if it does not refer to the open file.
    fn restore(&mut self) -> io::Result<()> {
        if lock::same(&self.file, &self.path).is_ok_and(|same| same) {
            return Ok(());
        }
        self.path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let mut how = OpenOptions::new();
        let mut file = how.read(true).write(true).create(true).truncate(true).open(&self.path)?;
        self.file.seek(SeekFrom::Start(0))?;
        io::copy(&mut self.file, &mut file)?;
        self.file = file;
        Ok(())
    }
}

/// Opens the file, truncated after its last line of step `resumed`, and returns its length.
fn kept(path: &Path, resumed: Option<u64>, mut each: impl FnMut(&Value)) -> io::Result<(File, u64)> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut end = 0;
    if let Some(step) = resumed {
        let (mut reader, mut line) = (BufReader::new(&file), Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            let Ok(value) = serde_json::from_slice::<Value>(&line) else { break };
            if value["step"].as_u64().is_none_or(|s| s > step) {
                break;
            }
            each(&value);
            end += line.len() as u64;
            line.clear();
        }
    }
    file.set_len(end)?;
    file.seek(SeekFrom::End(0))?;
    Ok((file, end))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_that_a_full_disk_refused_are_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::of_steps(path.clone(), None, |_| {}).unwrap();
        assert!(log.append(b"one\n").is_none());
        // A file that is open for reading alone refuses writes, as a full disk does.
        let good = std::mem::replace(&mut log.file, File::open(&path).unwrap());
        let failed = log.append(b"two\n").unwrap();
        assert!(failed.to_string().ends_with("log: cannot be written"), "{failed}");
        assert!(log.append(b"three\n").is_none(), "the failure is reported once");
        assert!(matches!(log.sync(), Err(Error::Write { .. })));
        log.file = good;
        // As left by a write that the disk took in part.
        fs::write(&path, "one\ntw").unwrap();
        assert!(log.append(b"four\n").is_none());
        log.sync().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\nfour\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_removed_file_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/log");
        let mut log = Log::of_steps(path.clone(), None, |_| {}).unwrap();
        log.append(b"one\n");
        fs::remove_dir_all(dir.path().join("run")).unwrap();
        log.append(b"two\n");
        log.sync().unwrap();
        log.append(b"three\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
    }
}
