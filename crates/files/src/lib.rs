//! Reads files whose names and contents come from strangers.
//!
//! A manifest may name a FIFO, which blocks for ever, or `/dev/zero`, which never ends; a sparse file may claim more
//! bytes than there is memory. So a file is opened only if it is a regular one, its size is compared with a limit before
//! anything is allocated, and no more than that limit is read even if it grows meanwhile. What a library makes of the
//! contents may end in a panic, which becomes an error ([`caught`]).
#![forbid(unsafe_code)]

mod guard;

pub use guard::caught;

use std::fs::{File, Metadata};
use std::io::{self, Error, ErrorKind, Read};
use std::path::Path;

/// A limit for configuration files, in bytes: far above any real one.
pub const CONFIG_LIMIT: u64 = 16 << 20;

/// Which kinds of file may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular files, also behind symbolic links: for names that come from a file.
    Regular,
    /// Pipes and devices too, such as `/dev/stdin`: for a name that the user typed. Reading waits for the other end.
    Any,
}

/// Opens `path` for reading. A FIFO is never waited for with [`Kind::Regular`].
///
/// # Errors
/// Those of the system, [`ErrorKind::NotFound`] also for a link to nothing; [`ErrorKind::InvalidInput`] for a directory,
/// and with [`Kind::Regular`] for anything that is no regular file. The message does not repeat the path.
pub fn open(path: &Path, kind: Kind) -> io::Result<File> {
    Ok(open_with_len(path, kind)?.0)
}

/// As [`open`], with the file's size as the system knows it: 0 for pipes and devices.
///
/// # Errors
/// As [`open`].
pub fn open_with_len(path: &Path, kind: Kind) -> io::Result<(File, u64)> {
    // Looked at before opening, because opening a FIFO waits for a writer and opening a device may act on it; and
    // again after, because the name may mean another file by then.
    check(&std::fs::metadata(path).map_err(|e| dangling(path, e))?, kind)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    check(&metadata, kind)?;
    Ok((file, metadata.len()))
}

/// `error`, or what is missing when `path` is a link: the link itself is there for everybody to see.
fn dangling(path: &Path, error: Error) -> Error {
    match std::fs::read_link(path) {
        Ok(target) if error.kind() == ErrorKind::NotFound => {
            let target = quoted(&target.display().to_string());
            Error::new(ErrorKind::NotFound, format!("it is a link to {target}, which does not exist"))
        }
        _ => error,
    }
}

fn check(metadata: &Metadata, kind: Kind) -> io::Result<()> {
    if metadata.is_file() || (kind == Kind::Any && !metadata.is_dir()) {
        return Ok(());
    }
    let found = name(metadata);
    Err(Error::new(ErrorKind::InvalidInput, format!("it is {found}, not a regular file")))
}

#[cfg(unix)]
fn name(metadata: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () if kind.is_socket() => "a socket",
        () => "something else",
    }
}

#[cfg(not(unix))]
fn name(metadata: &Metadata) -> &'static str {
    if metadata.is_dir() { "a directory" } else { "something else" }
}

/// The bytes of `path`, at most `limit` of them. A regular file that claims none is not read: those of the system's own
/// file systems, such as `/proc/kmsg`, may wait for ever.
///
/// # Errors
/// As [`open`]; [`ErrorKind::FileTooLarge`] for a longer file, before it is read where the system knows its size.
pub fn read(path: &Path, kind: Kind, limit: u64) -> io::Result<Vec<u8>> {
    let (file, len) = open_with_len(path, kind)?;
    within(len, limit)?;
    if len == 0 && kind == Kind::Regular {
        return Ok(Vec::new());
    }
    take(file, len, limit)
}

/// The text of `path`, UTF-8 of at most `limit` bytes, without a byte order mark at its beginning (RFC 8259 lets a
/// reader of JSON ignore it).
///
/// # Errors
/// As [`read`]; [`ErrorKind::InvalidData`] for what is no UTF-8, UTF-16 by its name.
pub fn read_text(path: &Path, kind: Kind, limit: u64) -> io::Result<String> {
    text(read(path, kind, limit)?)
}

/// The text of `bytes`, UTF-8 without a byte order mark at its beginning.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for what is no UTF-8, UTF-16 by its name.
pub fn text(mut bytes: Vec<u8>) -> io::Result<String> {
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(Error::new(ErrorKind::InvalidData, "it is UTF-16; save it as UTF-8"));
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::new(ErrorKind::InvalidData, format!("it is not UTF-8 (byte {at} begins no character)"))
    })
}

/// What `reader` gives until its end, at most `limit` bytes; `expected` of them are made room for, whatever more there
/// is. For the entries of archives, which may unpack to more than they claim.
///
/// # Errors
/// Those of `reader`; [`ErrorKind::FileTooLarge`] when it gives more.
pub fn take(reader: impl Read, expected: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A claim of more than memory holds is an error like any other, not an abort.
    let expected = usize::try_from(expected.min(limit)).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(expected).map_err(|_| Error::from(ErrorKind::OutOfMemory))?;
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    within(bytes.len() as u64, limit)?;
    Ok(bytes)
}

/// `len`, the size that a file claims or has, if it is at most `limit`; both in bytes.
///
/// # Errors
/// [`ErrorKind::FileTooLarge`].
pub fn within(len: u64, limit: u64) -> io::Result<u64> {
    if len <= limit {
        return Ok(len);
    }
    Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than the limit of {limit} bytes")))
}

/// `text` with control characters (but neither line feed nor tab) as `\u{1b}`: text from a file must not drive a
/// terminal. Characters that change the direction of text count as control characters.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            _ if is_control(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out
}

/// `name` on one line: as [`printable`], and line feeds and tabs escaped too. For names of tensors and files in messages.
pub fn quoted(name: &str) -> String {
    printable(name).replace('\n', "\\n").replace('\t', "\\t")
}

fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// An error with its causes, joined by ": ". A cause that the text before it contains already is left out: errors of
/// other libraries often repeat their source.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// The examples of the README, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
