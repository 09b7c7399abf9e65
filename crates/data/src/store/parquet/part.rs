//! One Parquet file: single values by row, and whole columns, without decoding more than the pages needed.
//!
//! The place of each page is taken from the file's offset index. If it has none, the headers of the pages
//! are read once, so that reading a value decodes one page in either case, and none if it was among the last.

use std::io::BufReader;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::page::PageReader;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;

use super::cache::{Cache, Page};
use crate::shared::{Kept, Shared, Window};

/// Maximum size in bytes of a chunk or page that is read at once.
const CHUNK: usize = 2 << 30;
/// Maximum size in bytes of the metadata at the end of a file.
const FOOTER: u64 = 1 << 30;
const FEWER: &str = "the file has fewer rows than it states";
/// Rows of a column that are decoded at once.
const BATCH: usize = 256;

/// A reader of a column, with the definition level of values that are not null.
type Reader = (ColumnReaderImpl<ByteArrayType>, i16);

/// A Parquet file with its metadata.
pub(super) struct Part {
    number: usize,
    file: Kept,
    metadata: ParquetMetaData,
    /// The number of rows before each row group, and of all rows.
    starts: Vec<u64>,
    /// The pages of each column of each row group, found when first needed.
    pages: Vec<OnceLock<Vec<PageLocation>>>,
    /// CRC-32 of the metadata at the end of the file, which has the size of every page.
    pub(super) check: u32,
    /// Length of the file in bytes.
    pub(super) len: u64,
}

/// A column of byte strings without repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Its number among the leaves of the schema.
    pub(super) number: usize,
    /// The names from the root to it, joined by dots.
    pub(super) name: String,
    /// Whether the file says that it is text.
    pub(super) is_text: bool,
}

impl Part {
    /// Opens the file `path`, number `number` of a container.
    pub(super) fn open(path: &Path, number: usize) -> Result<Part> {
        let file = Arc::new(Shared::open(path)?);
        let chunks = Chunks::new(file.clone());
        let reader = ParquetMetaDataReader::new().with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata = reader.parse_and_finish(&chunks)?;
        let mut starts = vec![0u64];
        for group in metadata.row_groups() {
            let rows = u64::try_from(group.num_rows()).ok();
            let end = rows.and_then(|rows| starts[starts.len() - 1].checked_add(rows));
            // A value is at least a bit, but a run of equal ones is shorter: this refuses only nonsense.
            let end = end.filter(|&end| end <= file.len().saturating_mul(1 << 10));
            starts.push(end.ok_or_else(|| general("it states more rows than it can have"))?);
        }
        let columns = metadata.file_metadata().schema_descr().num_columns();
        if metadata.row_groups().iter().any(|group| group.num_columns() != columns) {
            return Err(general("a row group does not have the columns of the schema"));
        }
        let pages = (0..metadata.num_row_groups() * columns).map(|_| OnceLock::new()).collect();
        let (check, len) = (footer_print(&file)?, file.len());
        Ok(Part { number, file: Kept::new(path, file, number), metadata, starts, pages, check, len })
    }

    /// The path of the file, for messages.
    pub(super) fn name(&self) -> String {
        self.file.path.display().to_string()
    }

    pub(super) fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// The columns of byte strings without repetition.
    pub(super) fn columns(&self) -> Vec<Column> {
        let all = self.metadata.file_metadata().schema_descr().columns().iter().enumerate();
        let flat = all.filter(|(_, c)| c.physical_type() == Type::BYTE_ARRAY && c.max_rep_level() == 0);
        flat.map(|(number, c)| Column { number, name: c.path().string(), is_text: is_text(c) }).collect()
    }

    /// The value of a column in row `row` < `rows()`; `None` if it is null. Its whole page is decoded, and
    /// kept in `cache`.
    pub(super) fn value(&self, column: usize, row: u64, cache: &Cache) -> Result<Option<ByteArray>> {
        let group = self.starts.partition_point(|&start| start <= row) - 1;
        let row = (row - self.starts[group]) as i64;
        let (places, chunk) = (self.places(group, column)?, self.metadata.row_group(group).column(column));
        let next = places.partition_point(|place| place.first_row_index <= row);
        let number =
            next.checked_sub(1).ok_or_else(|| general("its first page begins after its first row"))?;
        let (first, key) = (places[number].first_row_index, [self.number, group, column, number]);
        let page = match cache.get(key) {
            Some(page) => page,
            None => {
                let end =
                    places.get(next).map_or(self.group_rows(group) as i64, |place| place.first_row_index);
                let count = usize::try_from(end.checked_sub(first).ok_or_else(|| general(FEWER))?)?;
                let page: Page = self.page(group, column, usize::try_from(first)?, count)?.into();
                let dictionary = (places[0].offset as u64).saturating_sub(chunk.byte_range().0);
                cache.put(key, &page, dictionary as usize);
                page
            }
        };
        page.get((row - first) as usize).cloned().ok_or_else(|| general(FEWER))
    }

    /// `count` values of a column from row `first` of its group.
    fn page(
        &self,
        group: usize,
        column: usize,
        first: usize,
        count: usize,
    ) -> Result<Vec<Option<ByteArray>>> {
        let (mut reader, top) = self.reader(group, column)?;
        if reader.skip_records(first)? != first {
            return Err(general(FEWER));
        }
        batch(&mut reader, top, count)
    }

    /// Calls `each` with the row and the values of these columns for every row in order.
    pub(super) fn each<E: From<ParquetError>>(
        &self,
        columns: &[usize],
        mut each: impl FnMut(u64, &[Option<ByteArray>]) -> Result<(), E>,
    ) -> Result<(), E> {
        for group in 0..self.metadata.num_row_groups() {
            let readers = columns.iter().map(|&column| self.reader(group, column));
            let mut readers = readers.collect::<Result<Vec<_>>>()?;
            let mut row = self.starts[group];
            while row < self.starts[group + 1] {
                let count = BATCH.min((self.starts[group + 1] - row) as usize);
                let read = readers.iter_mut().map(|(reader, top)| batch(reader, *top, count));
                let mut batches = read.collect::<Result<Vec<_>>>()?;
                for at in 0..count {
                    let values: Vec<_> = batches.iter_mut().map(|batch| batch[at].take()).collect();
                    each(row + at as u64, &values)?;
                }
                row += count as u64;
            }
        }
        Ok(())
    }

    fn group_rows(&self, group: usize) -> usize {
        (self.starts[group + 1] - self.starts[group]) as usize
    }

    /// The places of the pages of a column.
    fn places(&self, group: usize, column: usize) -> Result<&[PageLocation]> {
        let place = &self.pages[group * self.metadata.row_group(group).num_columns() + column];
        if place.get().is_none() {
            let known = self.metadata.page_index_for_row_group(group).page_locations(column).cloned();
            let found = match known {
                Some(known) => known,
                None => scan(self.file.get()?, &self.metadata, group, column)?,
            };
            // Another thread may have been faster, with the same places.
            let _ = place.set(found);
        }
        Ok(place.get().map(Vec::as_slice).unwrap_or_default())
    }

    fn reader(&self, group: usize, column: usize) -> Result<Reader> {
        let metadata = self.metadata.row_group(group);
        let chunk = metadata.column(column);
        let descriptor = chunk.column_descr_ptr();
        let top = descriptor.max_def_level();
        let pages = self.places(group, column)?.to_vec();
        let (chunks, rows) = (Arc::new(Chunks::new(self.file.get()?)), self.group_rows(group));
        let pages: Box<dyn PageReader> =
            Box::new(SerializedPageReader::new(chunks, chunk, rows, Some(pages))?);
        match get_column_reader(descriptor, pages) {
            ColumnReader::ByteArrayColumnReader(reader) => Ok((reader, top)),
            _ => Err(general("a column is not of byte strings")),
        }
    }
}

/// The next `count` values of a column.
fn batch(
    reader: &mut ColumnReaderImpl<ByteArrayType>,
    top: i16,
    count: usize,
) -> Result<Vec<Option<ByteArray>>> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (rows, ..) = reader.read_records(count, Some(&mut levels), None, &mut values)?;
    if rows != count {
        return Err(general(FEWER));
    }
    let mut values = values.into_iter();
    if top == 0 {
        return Ok(values.map(Some).collect());
    }
    Ok(levels.iter().map(|&level| if level == top { values.next() } else { None }).collect())
}

/// The places of the data pages of a column in a row group, from their headers.
fn scan(
    file: Arc<Shared>,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
) -> Result<Vec<PageLocation>> {
    let group = metadata.row_group(group);
    let chunk = group.column(column);
    let chunks = Arc::new(Chunks::new(file));
    let rows = usize::try_from(group.num_rows())?;
    let mut reader = SerializedPageReader::new(chunks.clone(), chunk, rows, None)?;
    let (mut pages, mut row) = (Vec::new(), 0);
    let (start, len) = chunk.byte_range();
    let mut end = start;
    while let Some(page) = reader.peek_next_page()? {
        // The header was the last to be read.
        end = chunks.last.load(Ordering::Relaxed);
        close(&mut pages, end)?;
        if !page.is_dict {
            let place =
                PageLocation { offset: i64::try_from(end)?, compressed_page_size: 0, first_row_index: row };
            pages.push(place);
            let levels = page.num_rows.or(page.num_levels).ok_or_else(|| general("a page without rows"))?;
            row = i64::try_from(levels).ok().and_then(|levels| row.checked_add(levels)).unwrap_or(i64::MAX);
        }
        reader.skip_next_page()?;
    }
    close(&mut pages, start.saturating_add(len).max(end))?;
    if row != group.num_rows() {
        return Err(general("the pages of a column do not have the rows of their group"));
    }
    Ok(pages)
}

/// Sets the end of the last page, if it is not set.
fn close(pages: &mut [PageLocation], end: u64) -> Result<()> {
    if let Some(last) = pages.last_mut().filter(|last| last.compressed_page_size == 0) {
        let len = i64::try_from(end)?.checked_sub(last.offset).and_then(|len| i32::try_from(len).ok());
        last.compressed_page_size = len.ok_or_else(|| general("a page of more than 2 GiB"))?;
    }
    Ok(())
}

fn is_text(column: &ColumnDescriptor) -> bool {
    matches!(column.logical_type_ref(), Some(LogicalType::String | LogicalType::Json | LogicalType::Enum))
        || matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM)
}

/// CRC-32 of the metadata at the end of the file: metadata, its length in four bytes, `PAR1`.
fn footer_print(file: &Shared) -> Result<u32> {
    let tail = file.bytes(file.len().saturating_sub(8), 8)?;
    let len = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]])) + 8;
    let at = file.len().checked_sub(len).filter(|_| len <= FOOTER);
    let at = at.ok_or_else(|| general("its metadata is longer than the file"))?;
    Ok(crc32fast::hash(&file.bytes(at, len)?))
}

pub(super) fn general(what: &str) -> ParquetError {
    ParquetError::General(what.into())
}

/// A file as the library reads it: at positions of its own, so that threads do not disturb one another.
struct Chunks {
    file: Arc<Shared>,
    /// Where the last header that was read begins.
    last: AtomicU64,
}

impl Chunks {
    fn new(file: Arc<Shared>) -> Chunks {
        Chunks { file, last: AtomicU64::new(0) }
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<Window<Arc<Shared>>>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        self.last.store(start, Ordering::Relaxed);
        Ok(BufReader::new(Window { file: self.file.clone(), at: start, end: self.file.len() }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if length > CHUNK {
            return Err(general("a part of the file is longer than 2 GiB"));
        }
        Ok(self.file.bytes(start, length as u64)?.into())
    }
}
