//! The paths of the cache, and its small files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::repo::is_component;
use crate::{Error, Repo, Result};

/// The folder of a repository in the cache.
#[derive(Debug)]
pub(crate) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, repo: &Repo) -> RepoCache {
        let folder = format!("models--{}", repo.id.replace('/', "--"));
        RepoCache { root: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    /// The commit that `revision` referred to at the last request; a commit with a snapshot refers to itself.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        let known = fs::read_to_string(self.reference(revision)).ok().map(|text| text.trim().to_owned());
        let own = || self.snapshots(revision).is_dir().then(|| revision.to_owned());
        known.or_else(own).filter(|commit| is_component(commit))
    }

    pub(crate) fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    pub(crate) fn snapshots(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    pub(crate) fn incomplete(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// The path of an empty file that records that `commit` does not contain `file`.
    pub(crate) fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(file)
    }

    /// Records that `revision` refers to `commit`, unless it is the commit itself.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.reference(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|text| text == commit) {
            return Ok(());
        }
        write(&path, commit)
    }

    /// Creates the link `file` to the contents `etag` in the snapshot of `commit`, and returns its path.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf> {
        let path = self.snapshots(commit).join(file);
        parent(&path)?;
        let blob = self.blob(etag);
        // `../..` leads out of the commit's folder, with one more `..` for each folder in the file's name.
        // The link is relative, so that the cache can be moved.
        let up = "../".repeat(2 + file.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        let made = replace(&path, |new| link(&target, &blob, new));
        made.map_err(|source| Error::Io { path: path.clone(), doing: "make the link", source })?;
        Ok(path)
    }
}

/// A model repository in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// `OWNER/NAME`, or just `NAME`.
    pub id: String,
    /// The branches and tags that are known, each with its commit, sorted.
    pub revisions: Vec<(String, String)>,
    /// Bytes of complete files.
    pub bytes: u64,
    /// Bytes of downloads that were interrupted.
    pub incomplete: u64,
    /// The folder of a snapshot: that of `main` if there is one.
    pub snapshot: Option<PathBuf>,
}

/// The names of the repositories in `cache` that have a snapshot, sorted.
pub fn cached(cache: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        folders(cache).filter(|(_, root)| has_entries(&root.join("snapshots"))).map(|(id, _)| id).collect();
    names.sort();
    names
}

/// The model repositories in `cache`, sorted by name. What cannot be read counts as absent.
pub fn list(cache: &Path) -> Vec<Cached> {
    let mut all: Vec<Cached> = folders(cache).map(|(id, root)| describe(id, &root)).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// Removes a repository, all its revisions, from `cache`. Returns the bytes that were freed.
///
/// # Errors
/// Returns [`Error::NotCached`] if the cache does not have it, [`Error::InUse`] while another process downloads it, and
/// [`Error::Io`] if a file cannot be removed.
pub fn remove(cache: &Path, repo: &Repo) -> Result<u64> {
    let RepoCache { root, locks } = RepoCache::new(cache, repo);
    if !root.is_dir() {
        return Err(Error::NotCached { repo: repo.id.clone(), cache: cache.to_owned() });
    }
    for entry in fs::read_dir(&locks).into_iter().flatten().flatten() {
        let held = fs::File::options()
            .write(true)
            .open(entry.path())
            .is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)));
        if held {
            return Err(Error::InUse { repo: repo.id.clone() });
        }
    }
    let Cached { bytes, incomplete, .. } = describe(repo.id.clone(), &root);
    let gone = |path: PathBuf| fs::remove_dir_all(&path).map_err(|source| (path, source));
    let removed = gone(root).and_then(|()| if locks.is_dir() { gone(locks) } else { Ok(()) });
    removed.map_err(|(path, source)| Error::Io { path, doing: "remove", source })?;
    Ok(bytes + incomplete)
}

/// The ids and folders of the model repositories in `cache`.
fn folders(cache: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let folder = entry.file_name().into_string().ok()?;
        let id = folder.strip_prefix("models--")?.replace("--", "/");
        id.parse::<Repo>().is_ok().then(|| (id, entry.path()))
    })
}

fn has_entries(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

fn describe(id: String, root: &Path) -> Cached {
    let mut revisions = Vec::new();
    references(&root.join("refs"), "", &mut revisions);
    revisions.sort();
    let (mut bytes, mut incomplete) = (0, 0);
    for entry in fs::read_dir(root.join("blobs")).into_iter().flatten().flatten() {
        let len = entry.metadata().map_or(0, |metadata| metadata.len());
        match entry.path().extension().is_some_and(|end| end == "incomplete") {
            true => incomplete += len,
            false => bytes += len,
        }
    }
    let snapshots = root.join("snapshots");
    let main = revisions.iter().find(|(name, _)| name == "main").map(|(_, commit)| snapshots.join(commit));
    let any = || Some(fs::read_dir(&snapshots).ok()?.flatten().next()?.path());
    let snapshot = main.filter(|folder| folder.is_dir()).or_else(any);
    Cached { id, revisions, bytes, incomplete, snapshot }
}

/// The files below `folder` are revisions, whose names may have `/`.
fn references(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.path().is_dir() {
            references(&entry.path(), &format!("{prefix}{name}/"), found);
        } else if let Ok(commit) = fs::read_to_string(entry.path()) {
            found.push((format!("{prefix}{name}"), commit.trim().to_owned()));
        }
    }
}

/// The target of the link `path`, if the target does not exist.
pub(crate) fn dangling(path: &Path) -> Option<PathBuf> {
    let target = fs::read_link(path).ok()?;
    let target = path.parent()?.join(target);
    matches!(fs::metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound).then_some(target)
}

#[cfg(unix)]
fn link(target: &Path, _: &Path, new: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, new)
}

/// On Windows symbolic links need a privilege, so the snapshot gets a hard link or a copy.
#[cfg(not(unix))]
fn link(_: &Path, blob: &Path, new: &Path) -> io::Result<()> {
    fs::hard_link(blob, new).or_else(|_| fs::copy(blob, new).map(|_| ()))
}

/// Writes a small file atomically: another process sees either the old contents or the new.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    parent(path)?;
    let written = replace(path, |new| fs::write(new, text));
    written.map_err(|source| Error::Io { path: path.to_owned(), doing: "write", source })
}

/// Creates the parent folder of `path`.
pub(crate) fn parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|source| Error::Io {
        path: folder.to_owned(),
        doing: "make the folder",
        source,
    })
}

/// Calls `make` to create a file under a name unique to this thread and process, then renames it to `path`.
fn replace(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{:?}.new", std::process::id(), std::thread::current().id()));
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    make(&new).and_then(|()| fs::rename(&new, path)).inspect_err(|_| _ = fs::remove_file(&new))
}
