//! Opens zip archives at the offset that Python's `zipfile` computes, and rejects archives with duplicate
//! names.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use pheye_files::Kind;
use zip::read::{ArchiveOffset, Config};
use zip::{ZipArchive, result::ZipError};

use crate::{Error, Result};

pub(crate) type Archive = ZipArchive<BufReader<File>>;

/// Opens the archive `path`.
pub(crate) fn open(path: &Path) -> Result<Archive> {
    let name = || path.display().to_string();
    let io = |source| Error::Io { name: name(), source };
    let mut file = pheye_files::open(path, Kind::Regular).map_err(io)?;
    let offset = prefix(&mut file).map_err(io)?;
    let read = |archive_offset| {
        let file = file.try_clone().map_err(ZipError::Io)?;
        ZipArchive::with_config(Config { archive_offset }, BufReader::new(file))
    };
    let known = offset.and_then(|offset| read(ArchiveOffset::Known(offset)).ok());
    let archive = match known {
        Some(archive) => archive,
        None => read(ArchiveOffset::Detect).map_err(|source| Error::Zip { name: name(), source })?,
    };
    if archive.has_duplicate_names() {
        let start = archive.central_directory_start();
        let name = duplicate(file, start).map_err(io)?;
        return Err(Error::Duplicate { archive: path.display().to_string(), name });
    }
    Ok(archive)
}

const END: usize = 22;
const END_SIGNATURE: &[u8] = b"PK\x05\x06";
const RECORD_SIGNATURE: &[u8] = b"PK\x06\x06";
const LOCATOR_SIGNATURE: &[u8] = b"PK\x06\x07";
/// Bytes of a zip64 end record, without its extensible data sector, and its locator (APPNOTE 4.3.14, 4.3.15).
const ZIP64: u64 = 56 + 20;

/// The number of bytes in the file before the archive, as for a self-extracting archive; `None` if the
/// numbers are inconsistent. The end-of-central-directory record states the directory's size and its offset
/// without that prefix, and the directory ends where the end records begin. zip64 records must be counted
/// among the end records: without the known offset, the `zip` crate searches for the first directory entry,
/// and finds the wrong place if an entry is as long as the zip64 records.
fn prefix(file: &mut File) -> io::Result<Option<u64>> {
    let len = file.seek(SeekFrom::End(0))?;
    // A comment of up to 64 KiB may follow the end record.
    let tail_at = len.saturating_sub((1 << 16) + END as u64 + ZIP64);
    file.seek(SeekFrom::Start(tail_at))?;
    let mut tail = Vec::new();
    file.take(len - tail_at).read_to_end(&mut tail)?;
    let Some(end) = tail.windows(END).rposition(|w| w.starts_with(END_SIGNATURE)) else { return Ok(None) };
    let number = |at: usize| tail.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (Some(size), Some(start)) = (number(end + 12), number(end + 16)) else { return Ok(None) };
    let zip64 = end.checked_sub(20).is_some_and(|at| tail[at..].starts_with(LOCATOR_SIGNATURE));
    let (mut size, mut start) = (u64::from(size), u64::from(start));
    let mut directory_end = tail_at + end as u64;
    if zip64 {
        let record = end.checked_sub(ZIP64 as usize).filter(|at| tail[*at..].starts_with(RECORD_SIGNATURE));
        let Some(record) = record else { return Ok(None) };
        let long = |at: usize| tail.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (Some(long_size), Some(long_start)) = (long(record + 40), long(record + 48)) else {
            return Ok(None);
        };
        (size, start) = (long_size, long_start);
        directory_end -= ZIP64;
    }
    Ok(size.checked_add(start).and_then(|own| directory_end.checked_sub(own)))
}

/// The first name that occurs twice in the central directory at `start`.
fn duplicate(file: File, start: u64) -> io::Result<String> {
    let mut file = BufReader::new(file);
    file.seek(SeekFrom::Start(start))?;
    let mut seen = HashSet::new();
    loop {
        let mut entry = [0; 46];
        file.read_exact(&mut entry)?;
        let len = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        let mut name = vec![0; len(28).into()];
        file.read_exact(&mut name)?;
        if !seen.insert(name.clone()) {
            return Ok(String::from_utf8_lossy(&name).into_owned());
        }
        file.seek_relative(i64::from(len(30)) + i64::from(len(32)))?;
    }
}
