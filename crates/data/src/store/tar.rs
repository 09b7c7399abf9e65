//! Files in tar archives, as WebDataset stores them: shards of images with their captions beside them.
//!
//! One pass over the headers makes an index; a member is then one read at its position, without a lock and
//! in any order.

use std::io::{self, BufRead, BufReader, Error as IoError, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;
use pheye_files::within;
use pheye_image::EXTENSIONS;

use super::folder::END;
use super::{IMAGE_LIMIT, MANIFEST_LIMIT};
use crate::shared::{Kept, Shared, Window};
use crate::{Error, Result};

/// Maximum size in bytes of what precedes one member: its header, long name and PAX records.
const HEADERS: u64 = 1 << 20;
const BLOCK: u64 = 512;
/// The extensions of images.
/// The extension of images in some WebDatasets, whatever their format is.
const IMAGE: &str = "img";

/// Tar archives with their index: names in the order of the archives.
pub struct Tar {
    /// As it was given.
    path: PathBuf,
    shards: Vec<Kept>,
    members: IndexMap<Box<str>, Member>,
}

/// Where a file lies.
#[derive(Clone, Copy)]
struct Member {
    shard: u32,
    at: u64,
    len: u64,
}

/// The files of one shard that have the same name up to the first dot of its last part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The common part of the names, without the dot.
    pub key: String,
    /// The rest of each name after the dot, in small letters, with the whole name, in the order of the
    /// archive.
    pub members: Vec<(String, String)>,
}

impl Sample {
    /// The name of the file with this extension (in small letters, without a dot).
    pub fn member(&self, extension: &str) -> Option<&str> {
        self.members.iter().find(|(e, _)| e == extension).map(|(_, name)| name.as_str())
    }

    /// The name of its first image: a file with one of [`pheye_image::EXTENSIONS`], or `.img`.
    pub fn image(&self) -> Option<&str> {
        let image = self
            .members
            .iter()
            .find(|(extension, _)| extension == IMAGE || EXTENSIONS.contains(&extension.as_str()));
        image.map(|(_, name)| name.as_str())
    }
}

impl Tar {
    /// Indexes the archives `shards`; `path` names them all in messages.
    ///
    /// If two archives have a file of the same name, every name begins with the file name of its archive:
    /// `shard-000001.tar/000000.jpg`.
    pub(super) fn open(path: &Path, shards: &[PathBuf]) -> Result<Tar> {
        let (mut kept, mut found) = (Vec::new(), Vec::new());
        for (number, path) in shards.iter().enumerate() {
            let name = path.display().to_string();
            let file = Arc::new(Shared::open(path).map_err(|source| Error::Io { name, source })?);
            found.push(scan(path, &file, number as u32)?);
            kept.push(Kept::new(path, file, number));
        }
        let members = match merge(found.iter().flatten().map(|(name, member)| (name.clone(), *member))) {
            Some(members) => members,
            None => {
                let shard = |member: &Member| file_name(&shards[member.shard as usize]);
                let all = found.iter().flatten();
                let named = all.map(|(name, member)| (format!("{}/{name}", shard(member)), *member));
                merge(named).ok_or_else(|| {
                    Error::container(path.display(), "tar", "two archives have the same file name")
                })?
            }
        };
        Ok(Tar { path: path.into(), shards: kept, members })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all regular files, in the order of the archives.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(|name| &**name)
    }

    /// The samples of all archives in their order: images with the texts beside them. Names without an
    /// extension belong to none.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples: IndexMap<(u32, &str), Sample> = IndexMap::new();
        for (name, member) in &self.members {
            let last = name.rfind('/').map_or(0, |at| at + 1);
            let Some(dot) = name[last..].find('.').filter(|&dot| dot > 0) else { continue };
            let (key, extension) = (&name[..last + dot], &name[last + dot + 1..]);
            let sample = samples.entry((member.shard, key));
            let sample = sample.or_insert_with(|| Sample { key: key.into(), members: Vec::new() });
            sample.members.push((extension.to_lowercase(), name.to_string()));
        }
        samples.into_values().collect()
    }

    pub(super) fn len_of(&self, name: &str) -> Option<u64> {
        self.members.get(name).map(|member| member.len)
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.with(name, |file, member| file.bytes(member.at, within(member.len, IMAGE_LIMIT)?))
    }

    /// Calls `read` with a reader of the file `name`, which has at most 4 GiB.
    pub(super) fn reader<T>(
        &self,
        name: &str,
        read: impl FnOnce(&mut dyn BufRead) -> io::Result<T>,
    ) -> io::Result<T> {
        self.with(name, |file, member| {
            let end = member.at + within(member.len, MANIFEST_LIMIT)?;
            read(&mut BufReader::new(file.window(member.at, end)))
        })
    }

    /// The first and last [`END`] bytes of the file `name`.
    pub(super) fn ends(&self, name: &str) -> io::Result<Vec<u8>> {
        self.with(name, |file, Member { at, len, .. }| {
            let mut bytes = file.bytes(at, len.min(END))?;
            let last = len.saturating_sub(END).max(END).min(len);
            bytes.extend(file.bytes(at + last, len - last)?);
            Ok(bytes)
        })
    }

    fn with<T>(&self, name: &str, read: impl FnOnce(&Shared, Member) -> io::Result<T>) -> io::Result<T> {
        let member = *self.members.get(name).ok_or(ErrorKind::NotFound)?;
        read(&*self.shards[member.shard as usize].get()?, member)
    }
}

/// The index of all members, or `None` if two have the same name.
fn merge(all: impl Iterator<Item = (String, Member)>) -> Option<IndexMap<Box<str>, Member>> {
    let mut members = IndexMap::new();
    for (name, member) in all {
        match members.entry(name.into_boxed_str()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(place) => place.insert(member),
        };
    }
    members.shrink_to_fit();
    Some(members)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The regular files of one archive.
fn scan(path: &Path, file: &Shared, shard: u32) -> Result<Vec<(String, Member)>> {
    let name = || path.display().to_string();
    let io = |source| Error::Io { name: name(), source };
    refuse_packed(file).map_err(|why| Error::container(name(), "tar", why))?;
    let damaged = |e: IoError| match e.raw_os_error() {
        Some(_) => io(e),
        None => Error::container(name(), "tar", e),
    };
    let mut archive = tar::Archive::new(Headers { file: file.window(0, file.len()), read: 0 });
    let (mut members, mut seen, mut next) = (Vec::new(), std::collections::HashSet::new(), 0);
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let full = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_gnu_sparse() {
            let why = "it is stored as a sparse file; write the archive without `--sparse`";
            return Err(Error::container(format!("{}: {full}", name()), "tar", why));
        }
        let (at, len) = (entry.raw_file_position(), entry.size());
        let end = at.checked_add(len).filter(|&end| end <= file.len());
        let Some(end) = end else {
            let why =
                format!("the archive is cut off: it has {} bytes and ends inside this file", file.len());
            return Err(Error::container(format!("{}: {full}", name()), "tar", why));
        };
        next = end.next_multiple_of(BLOCK);
        // Archives of `.` have this in front of every name.
        let short = full.trim_start_matches("./");
        // An old archive marks a folder by the end of its name alone.
        if !kind.is_file() || short.ends_with('/') {
            continue;
        }
        if !seen.insert(short.to_owned()) {
            return Err(Error::Duplicate { archive: name(), name: short.into() });
        }
        members.push((short.to_owned(), Member { shard, at, len }));
    }
    check_end(&name(), file, next)?;
    Ok(members)
}

/// Checks that the archive ends at `at` with a block of zeros, as a complete one does.
fn check_end(name: &str, file: &Shared, at: u64) -> Result<()> {
    match file.bytes(at, BLOCK) {
        Ok(block) if block.iter().all(|&b| b == 0) => Ok(()),
        Ok(_) => Err(Error::container(name, "tar", "the archive has no end after its last file")),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
            let why = format!("the archive is cut off after {} bytes: its end marker is missing", file.len());
            Err(Error::container(name, "tar", why))
        }
        Err(source) => Err(Error::Io { name: name.into(), source }),
    }
}

fn refuse_packed(file: &Shared) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let head = file.bytes(0, file.len().min(6))?;
    let magic: [(&[u8], &str); 4] =
        [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "Zstandard"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz")];
    match magic.iter().find(|(magic, _)| head.starts_with(magic)) {
        Some((_, name)) => Err(format!("it is compressed with {name}; unpack it first").into()),
        None => Ok(()),
    }
}

/// Reads headers, and the records that extend them up to a limit: contents are skipped by seeking.
struct Headers<'a> {
    file: Window<&'a Shared>,
    /// Bytes read since the last seek to the next header.
    read: u64,
}

impl Read for Headers<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(bytes)?;
        self.read += read as u64;
        within(self.read, HEADERS).map_err(|_| IoError::other("a name or header of more than 1 MiB"))?;
        Ok(read)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.read = 0;
        self.file.seek(to)
    }
}
