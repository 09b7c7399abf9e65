//! Reads untrusted files, of which both names and contents may be hostile.
//!
//! A manifest may name a FIFO, which blocks forever, or `/dev/zero`, which never ends, and a sparse file may
//! claim more bytes than there is memory. Therefore a file is opened only if it is a regular file, its size
//! is compared with a limit before anything is allocated, and no more than the limit is read even if the file
//! grows meanwhile. If a library panics on the contents, [`caught`] turns the panic into an error.
#![forbid(unsafe_code)]

mod guard;

pub use guard::caught;

use std::fs::{File, Metadata};
use std::io::{self, Error, ErrorKind, Read};
use std::path::Path;

/// The size limit for configuration files in bytes, far above any real one.
pub const CONFIG_LIMIT: u64 = 16 << 20;

/// The kinds of files that may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular files and symbolic links to them: for a name that comes from another file.
    Regular,
    /// Pipes and devices too, such as `/dev/stdin`: for a name that the user typed. Reading may wait for the
    /// writer.
    Any,
}

/// Opens `path` for reading. With [`Kind::Regular`] it never waits for the writer of a FIFO.
///
/// # Errors
/// Returns [`ErrorKind::NotFound`] if the file or the target of a link does not exist,
/// [`ErrorKind::InvalidInput`] for a directory and, with [`Kind::Regular`], for anything that is not a
/// regular file, and other errors of the system. The message does not contain the path.
pub fn open(path: &Path, kind: Kind) -> io::Result<File> {
    Ok(open_with_len(path, kind)?.0)
}

/// Like [`open`], and also returns the file size as the system reports it: 0 for pipes and devices.
///
/// # Errors
/// The same errors as [`open`].
pub fn open_with_len(path: &Path, kind: Kind) -> io::Result<(File, u64)> {
    // The kind is checked before opening, because opening a FIFO waits for a writer and opening a device may
    // have side effects. It is checked again afterwards, because the path may have been replaced.
    check(&std::fs::metadata(path).map_err(|e| dangling(path, e))?, kind)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    check(&metadata, kind)?;
    Ok((file, metadata.len()))
}

/// `error`, or the missing target if `path` is a dangling link, because the link itself is visible to the
/// user.
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

/// Reads all bytes of `path`, at most `limit`. A regular file of size 0 is not read, because files of virtual
/// file systems, such as `/proc/kmsg`, may block forever.
///
/// # Errors
/// The same errors as [`open`], and [`ErrorKind::FileTooLarge`] for a longer file. If the system reports the
/// size, this is checked before reading.
pub fn read(path: &Path, kind: Kind, limit: u64) -> io::Result<Vec<u8>> {
    let (file, len) = open_with_len(path, kind)?;
    within(len, limit)?;
    if len == 0 && kind == Kind::Regular {
        return Ok(Vec::new());
    }
    take(file, len, limit)
}

/// Reads `path` as UTF-8 text of at most `limit` bytes, without a byte order mark at its beginning (RFC 8259
/// allows a JSON parser to ignore it).
///
/// # Errors
/// The same errors as [`read`], and [`ErrorKind::InvalidData`] if the text is not UTF-8; the message mentions
/// UTF-16 if it has that byte order mark.
pub fn read_text(path: &Path, kind: Kind, limit: u64) -> io::Result<String> {
    text(read(path, kind, limit)?)
}

/// Converts UTF-8 `bytes` to a string, without a byte order mark at its beginning.
///
/// # Errors
/// Returns [`ErrorKind::InvalidData`] if the text is not UTF-8; the message mentions UTF-16 if it has that
/// byte order mark.
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

/// Reads `reader` to its end, at most `limit` bytes, into a buffer with room for `expected` bytes, capped at
/// `limit`. For entries of archives, whose actual size may exceed the declared one.
///
/// # Errors
/// Returns the error of `reader`, [`ErrorKind::OutOfMemory`] if the buffer cannot be allocated, and
/// [`ErrorKind::FileTooLarge`] if there are more than `limit` bytes.
pub fn take(reader: impl Read, expected: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // If the expected size exceeds the memory, this is an error and not an abort.
    let expected = usize::try_from(expected.min(limit)).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(expected).map_err(|_| Error::from(ErrorKind::OutOfMemory))?;
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    within(bytes.len() as u64, limit)?;
    Ok(bytes)
}

/// Returns `len`, the declared or actual size of a file in bytes, if it is at most `limit`.
///
/// # Errors
/// Returns [`ErrorKind::FileTooLarge`] if it exceeds the limit.
pub fn within(len: u64, limit: u64) -> io::Result<u64> {
    if len <= limit {
        return Ok(len);
    }
    Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than the limit of {limit} bytes")))
}

/// Escapes control characters except line feed and tab as `\u{1b}`, so that text from a file cannot control a
/// terminal. Bidirectional formatting characters count as control characters.
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

/// Like [`printable`], but also escapes line feeds and tabs, so that the result is on one line. For names of
/// tensors and files in messages.
pub fn quoted(name: &str) -> String {
    printable(name).replace('\n', "\\n").replace('\t', "\\t")
}

fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The message of an error and of all its sources, joined by ": ". A source whose message is already
/// contained in the text is left out, because errors of other libraries often repeat their source.
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
