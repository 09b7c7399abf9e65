//! Images as base64 in one JSON object, as MIMIC-IT publishes them: `{"LA_IMG_000000000009": "<base64>"}`.
//!
//! The object has several gigabytes, so one pass over it with little memory notes where each value lies, and
//! a value is read and decoded when it is wanted. The pass accepts an object of strings and nothing else.

use std::io::{self, BufRead, BufReader, Error as IoError, ErrorKind, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use indexmap::IndexMap;
use indexmap::map::Entry;
use pheye_files::within;

use super::{Facts, IMAGE_LIMIT};
use crate::shared::Shared;
use crate::{Error, Result};

/// Maximum length of a key in bytes.
const KEY: u64 = 4096;
/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// A JSON object of base64 with its index: keys in the order of the file.
pub struct Base64 {
    path: PathBuf,
    file: Shared,
    values: IndexMap<Box<str>, Value>,
}

/// Where a value lies, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Value {
    at: u64,
    len: u64,
    /// CRC-32 of its text.
    crc: u32,
}

impl Base64 {
    pub(super) fn open(path: &Path) -> Result<Base64> {
        let name = path.display().to_string();
        let file = match Shared::open(path) {
            Ok(file) => file,
            Err(source) => return Err(Error::Io { name, source }),
        };
        let reader = BufReader::with_capacity(BUFFER, file.window(0, file.len()));
        let values = match (Scanner { reader, at: 0 }).object() {
            Ok(values) => values,
            Err(Fault::Io(source)) => return Err(Error::Io { name, source }),
            Err(Fault::Twice(key)) => return Err(Error::Duplicate { archive: name, name: key }),
            Err(Fault::Form(why)) => return Err(Error::container(name, "base64 JSON", why)),
        };
        Ok(Base64 { path: path.into(), file, values })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The keys, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(|name| &**name)
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let value = self.values.get(name).ok_or(ErrorKind::NotFound)?;
        // Three bytes are four characters.
        within(value.len / 4 * 3, IMAGE_LIMIT)?;
        decode(self.file.bytes(value.at, value.len)?)
    }

    pub(super) fn facts(&self, name: &str) -> Option<Facts> {
        self.values.get(name).map(|value| Facts { len: value.len, check: Some(value.crc) })
    }
}

/// Decodes base64 in the standard or the URL-safe alphabet, or a mixture of both, with or without padding.
///
/// # Errors
/// Returns [`ErrorKind::InvalidData`] for any other character, such as white space, and for a length that no
/// bytes can have.
pub(super) fn decode(mut text: Vec<u8>) -> io::Result<Vec<u8>> {
    for character in &mut text {
        match character {
            b'-' => *character = b'+',
            b'_' => *character = b'/',
            _ => {}
        }
    }
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let bytes = GeneralPurpose::new(&STANDARD, CONFIG).decode(text);
    bytes.map_err(|e| IoError::new(ErrorKind::InvalidData, format!("it is not base64: {e}")))
}

/// Why the object could not be read.
enum Fault {
    Io(IoError),
    /// A key that occurs twice.
    Twice(String),
    /// It has another form.
    Form(String),
}

impl From<IoError> for Fault {
    fn from(error: IoError) -> Fault {
        Fault::Io(error)
    }
}

struct Scanner<R> {
    reader: R,
    /// Bytes read so far.
    at: u64,
}

impl<R: BufRead> Scanner<R> {
    fn object(&mut self) -> Result<IndexMap<Box<str>, Value>, Fault> {
        if self.reader.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
            self.skip(3);
        }
        let mut values = IndexMap::new();
        self.expect(b'{', "an object, `{\"NAME\": \"BASE64\", …}`,")?;
        if self.peek()? == Some(b'}') {
            self.skip(1);
            return self.end(values);
        }
        loop {
            self.expect(b'"', "the name of an image in quotes")?;
            let key = self.key()?;
            self.expect(b':', "`:` after a name")?;
            self.expect(b'"', &format!("a string of base64 as the value of `{key}`"))?;
            let value = self.value(&key)?;
            match values.entry(key.into_boxed_str()) {
                Entry::Occupied(twice) => return Err(Fault::Twice(twice.key().to_string())),
                Entry::Vacant(place) => place.insert(value),
            };
            match self.peek()? {
                Some(b',') => self.skip(1),
                Some(b'}') => {
                    self.skip(1);
                    return self.end(values);
                }
                found => return Err(self.wanted("`,` or `}` after a value", found)),
            }
        }
    }

    fn end<T>(&mut self, values: T) -> Result<T, Fault> {
        match self.peek()? {
            None => Ok(values),
            found => Err(self.wanted("nothing after the object", found)),
        }
    }

    fn wanted(&self, what: &str, found: Option<u8>) -> Fault {
        let found = match found {
            Some(byte) => format!("`{}`", byte.escape_ascii()),
            None => "the end of the file".into(),
        };
        Fault::Form(format!("byte {}: {what} is wanted, this is {found}", self.at))
    }

    fn skip(&mut self, count: usize) {
        self.reader.consume(count);
        self.at += count as u64;
    }

    /// The next byte that is not white space, without consuming it.
    fn peek(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let found = buffer.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
            match (buffer.len(), found) {
                (0, _) => return Ok(None),
                (len, None) => self.skip(len),
                (_, Some(count)) => {
                    let byte = buffer[count];
                    self.skip(count);
                    return Ok(Some(byte));
                }
            }
        }
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), Fault> {
        match self.peek()? {
            Some(found) if found == byte => {
                self.skip(1);
                Ok(())
            }
            found => Err(self.wanted(what, found)),
        }
    }

    /// The rest of a key and its closing quote.
    fn key(&mut self) -> Result<String, Fault> {
        let start = self.at;
        let mut json = vec![b'"'];
        loop {
            let read = self.reader.by_ref().take(KEY).read_until(b'"', &mut json)?;
            self.at += read as u64;
            let escapes = json[..json.len() - 1].iter().rev().take_while(|&&b| b == b'\\').count();
            if json.last() == Some(&b'"') && escapes % 2 == 0 && read > 0 {
                break;
            }
            if read == 0 || json.len() as u64 > KEY {
                let why = format!("byte {start}: a name does not end within {KEY} bytes");
                return Err(Fault::Form(why));
            }
        }
        serde_json::from_slice(&json).map_err(|e| Fault::Form(format!("byte {start}: a name: {e}")))
    }

    /// The place of a value; its closing quote is consumed.
    fn value(&mut self, key: &str) -> Result<Value, Fault> {
        let start = self.at;
        let mut crc = crc32fast::Hasher::new();
        loop {
            let buffer = self.reader.fill_buf()?;
            let end = buffer.iter().position(|b| matches!(b, b'"' | b'\\'));
            crc.update(&buffer[..end.unwrap_or(buffer.len())]);
            match (buffer.len(), end) {
                (0, _) => {
                    let why = format!("the file is cut off after {} bytes, in the value of `{key}`", self.at);
                    return Err(Fault::Form(why));
                }
                (len, None) => self.skip(len),
                (_, Some(end)) if buffer[end] == b'"' => {
                    self.skip(end + 1);
                    return Ok(Value { at: start, len: self.at - 1 - start, crc: crc.finalize() });
                }
                (_, Some(end)) => {
                    let why = format!("byte {}: `\\` in the value of `{key}`", self.at + end as u64);
                    return Err(Fault::Form(why));
                }
            }
        }
    }
}
