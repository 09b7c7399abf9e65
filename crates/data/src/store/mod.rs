//! Files by name, in a folder, in an archive, or in a file of records: one small interface over all of them.
//!
//! A name is never used as a path except in a folder, so that absolute names and `..` in an archive name
//! nothing outside it.

mod archive;
pub mod base64;
mod folder;
#[cfg(feature = "parquet")]
pub mod parquet;
mod places;
pub mod tar;
mod zip;

use std::io::BufRead;
use std::path::{Path, PathBuf};

use pheye_image::{DecodeOptions, Rgb8};

use self::base64::Base64;
#[cfg(feature = "parquet")]
use self::parquet::Parquet;
use self::places::Place;
use self::tar::Tar;
pub use self::zip::Zip;
use crate::{Error, Result};

/// Maximum size of an image file in bytes.
const IMAGE_LIMIT: u64 = DecodeOptions::MAX_BYTES;
/// Maximum size of a manifest in bytes.
const MANIFEST_LIMIT: u64 = 4 << 30;

/// Where the files of a manifest are stored.
pub enum Store {
    /// In a folder; names are paths relative to it.
    Folder(PathBuf),
    /// In a zip archive, stored or deflated.
    Zip(Zip),
    /// In tar archives (WebDataset shards).
    Tar(Tar),
    /// In a column of Parquet files.
    #[cfg(feature = "parquet")]
    Parquet(Parquet),
    /// As base64 in one JSON object.
    Base64(Base64),
}

/// The properties of a file that are known without unpacking it.
pub(crate) struct Facts {
    /// Size in bytes: of the file; of its base64 in a JSON object; of the whole file that holds it in Parquet.
    pub(crate) len: u64,
    /// A checksum of the contents, or of what describes them, if the container has one.
    pub(crate) check: Option<u32>,
}

impl Store {
    /// Opens a container by its name:
    ///
    /// - a folder. If it has neither sub-folders nor a `manifest.jsonl`, and only `.tar` files, or only
    ///   `.parquet` files, beside notes (`.json`, `.txt`, `.md`, `.csv`), those are opened as one container;
    /// - `.tar` archives and `.parquet` files, one or several: `shard-{000000..000015}.tar`;
    /// - `.json`: an object whose values are base64;
    /// - any other file: a zip archive.
    ///
    /// # Errors
    /// Returns [`Error::Io`], [`Error::Zip`], [`Error::Container`] or [`Error::Duplicate`] if the container
    /// cannot be read; the error names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        Ok(match places::find(path)? {
            Place::Folder => Store::Folder(path.into()),
            Place::Zip => Store::Zip(Zip::open(path)?),
            Place::Json => Store::Base64(Base64::open(path)?),
            Place::Tar(shards) => Store::Tar(Tar::open(path, &shards)?),
            #[cfg(feature = "parquet")]
            Place::Parquet(parts) => Store::Parquet(Parquet::open(path, &parts)?),
            #[cfg(not(feature = "parquet"))]
            Place::Parquet(_) => {
                let why = "this program was built without the feature `parquet`";
                return Err(Error::container(path.display(), "Parquet", why));
            }
        })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        match self {
            Store::Folder(path) => path,
            Store::Zip(zip) => zip.path(),
            Store::Tar(tar) => tar.path(),
            #[cfg(feature = "parquet")]
            Store::Parquet(parquet) => parquet.path(),
            Store::Base64(json) => json.path(),
        }
    }

    /// The path of the file `name` for messages.
    pub fn name(&self, name: &str) -> String {
        match self {
            Store::Folder(path) => path.join(name).display().to_string(),
            _ => format!("{}: {name}", self.path().display()),
        }
    }

    /// The names of all files: in a folder sorted, elsewhere in the order of the container. In Parquet without
    /// a column of names they are the numbers of the rows.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if a folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(match self {
            Store::Folder(path) => folder::names(path)?,
            Store::Zip(zip) => zip.names(),
            Store::Tar(tar) => tar.names().map(str::to_owned).collect(),
            #[cfg(feature = "parquet")]
            Store::Parquet(parquet) => parquet.names(),
            Store::Base64(json) => json.names().map(str::to_owned).collect(),
        })
    }

    /// The bytes of the image `name`, a regular file of at most 512 MiB.
    ///
    /// # Errors
    /// Returns [`Error::Io`], [`Error::Zip`] or [`Error::Container`] if the file cannot be read; the error
    /// names it.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Store::Folder(path) => folder::read(&path.join(name)).map_err(|e| self.io(name, e)),
            Store::Zip(zip) => zip.read(name),
            Store::Tar(tar) => tar.read(name).map_err(|e| self.io(name, e)),
            #[cfg(feature = "parquet")]
            Store::Parquet(parquet) => parquet.read(name),
            Store::Base64(json) => json.read(name).map_err(|e| self.io(name, e)),
        }
    }

    /// The image `name`, decoded.
    ///
    /// # Errors
    /// Returns the errors of [`Store::read`], and [`Error::Image`] if the image cannot be decoded.
    pub fn image(&self, name: &str, options: &DecodeOptions) -> Result<Rgb8> {
        Ok(pheye_image::decode(&self.read(name)?, &self.name(name), options)?)
    }

    /// Reads the manifest `name`, a regular file of at most 4 GiB, with `read`. Only a folder and an archive
    /// can have one.
    pub(crate) fn read_manifest<T>(
        &self,
        name: &str,
        read: impl FnOnce(&mut dyn BufRead) -> Result<T>,
    ) -> Result<T> {
        let io = |source| self.io(name, source);
        match self {
            Store::Folder(path) => read(&mut folder::reader(&path.join(name)).map_err(io)?),
            Store::Zip(zip) => zip.read_manifest(name, read),
            Store::Tar(tar) => {
                let result = tar.reader(name, |reader| Ok(read(reader)));
                result.map_err(io)?
            }
            _ => Err(io(std::io::ErrorKind::NotFound.into())),
        }
    }

    /// Whether the file `name` is there.
    pub fn contains(&self, name: &str) -> bool {
        self.facts(name).is_some()
    }

    /// The properties of the file `name`, or `None` if it does not exist or is not a regular file.
    pub(crate) fn facts(&self, name: &str) -> Option<Facts> {
        match self {
            Store::Folder(path) => folder::facts(&path.join(name)),
            Store::Zip(zip) => zip.facts(name),
            Store::Tar(tar) => Some(Facts { len: tar.len_of(name)?, check: None }),
            #[cfg(feature = "parquet")]
            Store::Parquet(parquet) => parquet.facts(name),
            Store::Base64(json) => json.facts(name),
        }
    }

    /// The first and last 4 KiB of the file `name`, if the container knows no checksum.
    pub(crate) fn ends(&self, name: &str) -> std::io::Result<Vec<u8>> {
        match self {
            Store::Folder(path) => folder::ends(&path.join(name)),
            Store::Tar(tar) => tar.ends(name),
            _ => Ok(Vec::new()),
        }
    }

    pub(crate) fn io(&self, name: &str, source: std::io::Error) -> Error {
        Error::Io { name: self.name(name), source }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_in_a_tar_archive() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/stores");
        let store = Store::open(data.join("pax.tar")).unwrap();
        let read = |name: &str| {
            store.read_manifest(name, |reader| {
                let mut text = String::new();
                reader.read_to_string(&mut text).map_err(|e| store.io(name, e))?;
                Ok(text)
            })
        };
        assert_eq!(read("manifest.jsonl").unwrap(), "{\"image\": \"000.jpg\", \"caption\": \"two cats\"}\n");
        assert!(read("none.jsonl").unwrap_err().to_string().ends_with("pax.tar: none.jsonl: cannot be read"));
    }
}
