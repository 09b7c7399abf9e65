//! What a path names: a folder, an archive, or several files that are one container.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Maximum number of files that a range in braces stands for.
const FILES: u64 = 100_000;
/// Extensions of the files that may lie beside shards.
const NOTES: [&str; 4] = ["json", "txt", "md", "csv"];

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Folder,
    Zip,
    /// One JSON file.
    Json,
    /// Tar archives, in order.
    Tar(Vec<PathBuf>),
    /// Parquet files, in order.
    Parquet(Vec<PathBuf>),
}

/// What `path` names, by its extension, or for a folder by the files in it.
///
/// # Errors
/// Returns [`Error::Io`] if a folder cannot be read, and [`Error::Container`] for a compressed tar archive
/// and a range in braces that is too long.
pub(super) fn find(path: &Path) -> Result<Place> {
    if path.is_dir() {
        return folder(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if is_packed(&name) {
        let why =
            "it is compressed, so that its members cannot be read in any order; unpack it to a .tar file";
        return Err(Error::container(path.display(), "tar", why));
    }
    let files = || if path.exists() { Ok(vec![path.into()]) } else { braces(path) };
    Ok(match Path::new(&name).extension().and_then(|e| e.to_str()) {
        Some("tar") => Place::Tar(files()?),
        Some("parquet") => Place::Parquet(files()?),
        Some("json") => Place::Json,
        _ => Place::Zip,
    })
}

/// Whether a name in small letters is that of a compressed tar archive.
fn is_packed(name: &str) -> bool {
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.ends_with(".tar") || [".tgz", ".tbz", ".tbz2", ".txz", ".tzst"].iter().any(|e| name.ends_with(e))
}

fn folder(path: &Path) -> Result<Place> {
    let io = |source| Error::Io { name: path.display().to_string(), source };
    let (mut tars, mut parquets) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        match Path::new(&name).extension().and_then(|e| e.to_str()) {
            _ if name.starts_with('.') => {}
            _ if file.is_dir() => return Ok(Place::Folder),
            Some("tar") => tars.push(file),
            Some("parquet") => parquets.push(file),
            Some(other) if NOTES.contains(&other) => {}
            _ => return Ok(Place::Folder),
        }
    }
    tars.sort_unstable();
    parquets.sort_unstable();
    Ok(match (tars.is_empty(), parquets.is_empty()) {
        (true, true) => Place::Folder,
        // Tools that make shards put Parquet files with statistics beside them.
        (false, _) => Place::Tar(tars),
        (true, false) => Place::Parquet(parquets),
    })
}

/// The files for which a name with one range, such as `a-{000..015}.tar`, stands; `path` itself if it has
/// none.
fn braces(path: &Path) -> Result<Vec<PathBuf>> {
    let range = path.to_str().and_then(|text| {
        let (before, rest) = text.split_once('{')?;
        let (range, after) = rest.split_once('}')?;
        let (first, last) = range.split_once("..")?;
        let digits = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
        (digits(first) && digits(last)).then_some((before, first, last, after))
    });
    let Some((before, first, last, after)) = range else { return Ok(vec![path.into()]) };
    let bounds = first.parse::<u64>().ok().zip(last.parse::<u64>().ok());
    let Some((from, to)) = bounds.filter(|(from, to)| from <= to && to - from < FILES) else {
        let why = format!("its range {first}..{last} must go up and stand for at most {FILES} files");
        return Err(Error::container(path.display(), "list of", why));
    };
    let width = first.len();
    Ok((from..=to).map(|n| format!("{before}{n:0width$}{after}").into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let names = |path: &str| braces(Path::new(path)).unwrap();
        assert_eq!(
            names("a-{08..11}.tar"),
            ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"].map(PathBuf::from)
        );
        assert_eq!(names("{9..10}/x.tar"), ["9/x.tar", "10/x.tar"].map(PathBuf::from));
        for plain in ["a.tar", "a{0..}.tar", "a{x..y}.tar", "a{1,2}.tar", "a{0..1"] {
            assert_eq!(names(plain), [PathBuf::from(plain)]);
        }
        for wrong in ["a{5..4}.tar", "a{0..100000}.tar", "a{0..99999999999999999999}.tar"] {
            let error = pheye_files::chain(&braces(Path::new(wrong)).unwrap_err());
            assert!(error.contains("must go up and stand for at most 100000 files"), "{error}");
        }
    }

    #[test]
    fn folders_are_told_by_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| std::fs::write(dir.path().join(name), "").unwrap();
        assert_eq!(find(dir.path()).unwrap(), Place::Folder);
        ["b.parquet", "notes.md", ".hidden", "a.parquet"].iter().for_each(|name| put(name));
        let [a, b] = ["a.parquet", "b.parquet"].map(|name| dir.path().join(name));
        assert_eq!(find(dir.path()).unwrap(), Place::Parquet(vec![a, b]));
        put("00.tar");
        assert_eq!(find(dir.path()).unwrap(), Place::Tar(vec![dir.path().join("00.tar")]));
        put("manifest.jsonl");
        assert_eq!(find(dir.path()).unwrap(), Place::Folder);
    }

    #[test]
    fn packed_archives_are_refused() {
        for name in ["a.tar.gz", "A.TGZ", "x.tar.zst", "b.tar.bz2"] {
            let error = pheye_files::chain(&find(Path::new(name)).unwrap_err());
            assert!(error.contains(name) && error.contains("unpack it to a .tar file"), "{error}");
        }
    }
}
