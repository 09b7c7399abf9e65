//! Files in a folder.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

use pheye_files::{Kind, within};

use super::{Facts, IMAGE_LIMIT, MANIFEST_LIMIT};
use crate::{Error, Result};

/// Bytes read at each end of a file for its fingerprint.
pub(super) const END: u64 = 4096;
/// Maximum depth of sub-folders, so that links in a circle end.
const DEPTH: usize = 64;

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    pheye_files::read(path, Kind::Regular, IMAGE_LIMIT)
}

/// A reader of a manifest.
pub(super) fn reader(path: &Path) -> io::Result<BufReader<Take<File>>> {
    let (file, len) = pheye_files::open_with_len(path, Kind::Regular)?;
    Ok(BufReader::new(file.take(within(len, MANIFEST_LIMIT)?)))
}

pub(super) fn facts(path: &Path) -> Option<Facts> {
    let metadata = std::fs::metadata(path).ok().filter(|m| m.is_file())?;
    Some(Facts { len: metadata.len(), check: None })
}

/// The first and last [`END`] bytes of a file.
pub(super) fn ends(path: &Path) -> io::Result<Vec<u8>> {
    let (mut file, mut bytes): (File, _) = (File::open(path)?, Vec::new());
    let len = file.metadata()?.len();
    file.by_ref().take(END).read_to_end(&mut bytes)?;
    if len > END {
        file.seek(SeekFrom::Start(len.saturating_sub(END).max(END)))?;
        file.take(END).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The relative paths of all regular files, with `/` between their parts, sorted. Names that are not UTF-8
/// are left out, because no manifest can state them.
pub(super) fn names(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    collect(root, "", DEPTH, &mut names)?;
    names.sort_unstable();
    Ok(names)
}

fn collect(folder: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) -> Result<()> {
    let io = |source| Error::Io { name: folder.display().to_string(), source };
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str() else { continue };
        // Follows links, as reading does; a dangling one is left out.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        if metadata.is_file() {
            names.push(format!("{prefix}{name}"));
        } else if metadata.is_dir() && depth > 0 {
            collect(&entry.path(), &format!("{prefix}{name}/"), depth - 1, names)?;
        }
    }
    Ok(())
}
