//! Images, and the texts beside them, in Parquet files: as MIMIC-IT publishes them (base64 and a column of
//! keys), and as Hugging Face data sets do (a column `image` of bytes and path).
//!
//! Reading an image decodes the page that it is in. pyarrow and pandas by default put up to 1024 images into
//! one page, which makes reading in random order slow; with `row_group_size=16` they make small ones.
//!
//! The files of a data set are one table; a row is addressed by its number in it, or by a name.

mod cache;
mod part;

use std::path::{Path, PathBuf};

use indexmap::IndexSet;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use pheye_files::{caught, within};

use self::cache::Cache;
use self::part::{Column, Part, general};
use super::{Facts, IMAGE_LIMIT, base64};
use crate::{Error, Result};

/// The columns that can have images: the first that the files have is used.
const IMAGES: [&str; 9] =
    ["base64", "image.bytes", "image", "jpg", "jpeg", "png", "img", "bytes", "image_bytes"];
/// The columns that can name rows: the index of pandas, and the key of WebDataset.
const KEYS: [&str; 2] = ["__index_level_0__", "__key__"];
/// The column of paths in Hugging Face's form, which names rows if every row has another one.
const PATHS: &str = "image.path";
/// Maximum number of rows.
const ROWS: u64 = u32::MAX as u64;

/// Parquet files with images.
pub struct Parquet {
    /// As it was given.
    path: PathBuf,
    parts: Vec<Part>,
    /// The number of rows before each part, and of all rows.
    starts: Vec<u64>,
    image: Option<Column>,
    texts: Vec<Column>,
    /// Pages that were decoded last.
    cache: Cache,
    /// The row of each name; without it a row is named by its number.
    names: Option<IndexSet<Box<str>>>,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The bytes of the image; `None` if it is null or there is no column of images.
    pub image: Option<Vec<u8>>,
    /// The value of each column of [`Parquet::columns`]; `None` if it is null.
    pub texts: Vec<Option<String>>,
}

impl Parquet {
    /// Opens the files `paths` as one table; `path` names them all in messages.
    pub(super) fn open(path: &Path, paths: &[PathBuf]) -> Result<Parquet> {
        let (mut parts, mut starts) = (Vec::<Part>::new(), vec![0]);
        for (number, path) in paths.iter().enumerate() {
            let part = guarded(&path.display().to_string(), || Ok(Part::open(path, number)?))?;
            if parts.first().is_some_and(|first| first.columns() != part.columns()) {
                let why = format!("it does not have the columns of {}", paths[0].display());
                return Err(Error::container(path.display(), "Parquet", why));
            }
            starts.push(starts[number] + part.rows());
            if starts[number + 1] > ROWS {
                return Err(Error::container(path.display(), "Parquet", "more than 4294967295 rows"));
            }
            parts.push(part);
        }
        let columns = parts.first().map(Part::columns).unwrap_or_default();
        // Text in a column of bytes is the name of an image elsewhere.
        let holds =
            |name: &&str| columns.iter().find(|c| c.name == **name && (c.is_text == (c.name == "base64")));
        let image = IMAGES.iter().find_map(holds).cloned();
        let texts = columns.iter().filter(|c| c.is_text && Some(*c) != image.as_ref()).cloned().collect();
        let mut parquet =
            Parquet { path: path.into(), parts, starts, image, texts, cache: Cache::default(), names: None };
        parquet.names = parquet.index()?;
        Ok(parquet)
    }

    /// The names of the rows, from the first column that can name them.
    fn index(&self) -> Result<Option<IndexSet<Box<str>>>> {
        let named = |name: &&str| self.columns().any(|column| column == *name);
        let key = KEYS.iter().copied().find(named);
        let Some(column) = key.or(Some(PATHS).filter(named)) else { return Ok(None) };
        let (mut names, mut fault) = (IndexSet::new(), None);
        let done = self.texts(&[column], |row, values| {
            let name = values[0].as_deref().unwrap_or_default();
            if name.is_empty() {
                let why = format!("row {row} has no value in `{column}`, which names its image");
                fault = Some(Error::container(self.path.display(), "Parquet", why));
            } else if !names.insert(name.into()) {
                let archive = self.path.display().to_string();
                fault = Some(Error::Duplicate { archive, name: name.into() });
            }
            Ok(fault.is_none())
        });
        done?;
        match fault {
            None => Ok(Some(names)),
            Some(_) if key.is_none() => Ok(None),
            Some(fault) => Err(fault),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of rows of all files.
    pub fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// The names of the columns of text, with dots between the names of nested ones, in the order of the
    /// schema. Columns of lists and numbers are not among them.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|column| column.name.as_str())
    }

    /// Whether there is a column of images.
    pub fn has_images(&self) -> bool {
        self.image.is_some()
    }

    /// The name of row `row`, with which the store reads its image.
    pub fn name_of(&self, row: u64) -> String {
        let name = self.names.as_ref().and_then(|names| names.get_index(row as usize));
        name.map_or_else(|| row.to_string(), |name| name.to_string())
    }

    pub(super) fn names(&self) -> Vec<String> {
        if self.image.is_none() {
            Vec::new()
        } else {
            (0..self.rows()).map(|row| self.name_of(row)).collect()
        }
    }

    fn row_of(&self, name: &str) -> Option<u64> {
        match &self.names {
            Some(names) => names.get_index_of(name).map(|row| row as u64),
            None => name.parse().ok().filter(|row: &u64| *row < self.rows() && row.to_string() == name),
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let place = || format!("{}: {name}", self.path.display());
        let missing = || Error::Io { name: place(), source: std::io::ErrorKind::NotFound.into() };
        let image = self.row_of(name).map(|row| self.image(row)).ok_or_else(missing)??;
        image.ok_or_else(|| Error::container(place(), "Parquet", "this row has no image"))
    }

    /// The bytes of the image in row `row`; `None` if it is null, or there is no such row or column.
    ///
    /// # Errors
    /// Returns [`Error::Container`] for a damaged file, [`Error::Io`] for an image of more than 512 MiB, and
    /// for base64 that is none.
    pub fn image(&self, row: u64) -> Result<Option<Vec<u8>>> {
        let Some(column) = self.image.as_ref().filter(|_| row < self.rows()) else { return Ok(None) };
        let place = || format!("{}: {}", self.path.display(), self.name_of(row));
        let Some(value) = self.value(column, row)? else { return Ok(None) };
        let io = |source| Error::Io { name: place(), source };
        // Three bytes are four characters.
        let (len, is_base64) = (value.len() as u64, column.name == "base64");
        within(if is_base64 { len / 4 * 3 } else { len }, IMAGE_LIMIT).map_err(io)?;
        let bytes = value.data().to_vec();
        Ok(Some(if is_base64 { base64::decode(bytes).map_err(io)? } else { bytes }))
    }

    /// A row with its image and its texts. For all texts of the table, [`Parquet::texts`] is faster.
    ///
    /// # Errors
    /// The same as of [`Parquet::image`], and [`Error::Container`] if there is no such row or a text is not
    /// UTF-8.
    pub fn row(&self, row: u64) -> Result<Row> {
        if row >= self.rows() {
            let why = format!("row {row} of {}", self.rows());
            return Err(Error::container(self.path.display(), "Parquet", why));
        }
        let texts = self.texts.iter().map(|column| match self.value(column, row)? {
            Some(value) => self.text(column, row, &value).map(Some),
            None => Ok(None),
        });
        Ok(Row { image: self.image(row)?, texts: texts.collect::<Result<_>>()? })
    }

    /// Calls `each` with the number of each row and its values of these columns of text, in order, until it
    /// returns `false`. Images are not read.
    ///
    /// # Errors
    /// Returns [`Error::Container`] for a column that the files do not have as text, a damaged file and text
    /// that is not UTF-8, and the errors of `each`.
    pub fn texts(
        &self,
        columns: &[&str],
        mut each: impl FnMut(u64, &[Option<String>]) -> Result<bool>,
    ) -> Result<()> {
        let find = |name: &&str| {
            self.texts.iter().find(|column| column.name == **name).ok_or_else(|| {
                let known: Vec<_> = self.columns().collect();
                let why = format!("it has no column of text `{name}`; it has {}", known.join(", "));
                Error::container(self.path.display(), "Parquet", why)
            })
        };
        let columns = columns.iter().map(find).collect::<Result<Vec<_>>>()?;
        let numbers: Vec<_> = columns.iter().map(|column| column.number).collect();
        for (part, start) in self.parts.iter().zip(&self.starts) {
            let done = guarded(&part.name(), || {
                let all = part.each(&numbers, |row, values| {
                    let texts = columns.iter().zip(values);
                    let texts = texts.map(|(column, value)| {
                        value.as_ref().map(|value| self.text(column, start + row, value)).transpose()
                    });
                    let texts = texts.collect::<Result<Vec<_>>>().map_err(Stop::Error)?;
                    match each(start + row, &texts) {
                        Ok(true) => Ok(()),
                        Ok(false) => Err(Stop::Done),
                        Err(error) => Err(Stop::Error(error)),
                    }
                });
                match all {
                    Ok(()) => Ok(true),
                    Err(Stop::Done) => Ok(false),
                    Err(stop) => Err(stop),
                }
            })?;
            if !done {
                break;
            }
        }
        Ok(())
    }

    fn value(&self, column: &Column, row: u64) -> Result<Option<ByteArray>> {
        let part = self.starts.partition_point(|&start| start <= row) - 1;
        let read = || Ok(self.parts[part].value(column.number, row - self.starts[part], &self.cache)?);
        guarded(&format!("{}: {}", self.path.display(), self.name_of(row)), read)
    }

    fn text(&self, column: &Column, row: u64, value: &ByteArray) -> Result<String> {
        let text = std::str::from_utf8(value.data());
        let name = || format!("{}: {}, column {}", self.path.display(), self.name_of(row), column.name);
        text.map(str::to_owned).map_err(|e| Error::container(name(), "Parquet", e))
    }

    pub(super) fn facts(&self, name: &str) -> Option<Facts> {
        let row = self.row_of(name)?;
        let number = self.starts.partition_point(|&start| start <= row) - 1;
        let part = &self.parts[number];
        let mut check = crc32fast::Hasher::new();
        check.update(&part.check.to_le_bytes());
        check.update(&(row - self.starts[number]).to_le_bytes());
        Some(Facts { len: part.len, check: Some(check.finalize()) })
    }
}

/// Why reading ended.
enum Stop {
    /// Enough was read.
    Done,
    Library(ParquetError),
    Error(Error),
}

impl From<ParquetError> for Stop {
    fn from(error: ParquetError) -> Stop {
        Stop::Library(error)
    }
}

/// The result of `work`, which calls the library, with `name` in its errors.
fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T, Stop>) -> Result<T> {
    let stop = match caught(work) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(stop)) => stop,
        Err(panic) => Stop::Library(general(&panic)),
    };
    match stop {
        Stop::Error(error) => Err(error),
        Stop::Done => Err(Error::container(name, "Parquet", "reading was stopped")),
        Stop::Library(ParquetError::External(source)) => match source.downcast::<std::io::Error>() {
            Ok(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
                Err(Error::Io { name: name.into(), source: *source })
            }
            Ok(source) => Err(Error::container(name, "Parquet", source)),
            Err(source) => Err(Error::container(name, "Parquet", source)),
        },
        Stop::Library(error) => Err(Error::container(name, "Parquet", error)),
    }
}
