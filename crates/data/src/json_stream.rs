//! Finds the rows of a published file in one pass over it, in blocks of a few megabytes: JSON lines, or the
//! elements of one array or object, which may have gigabytes.
//!
//! Only the structure around the rows is parsed here (brackets, strings, commas). The grammar inside a row is
//! checked by the parser that each row goes to next.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use memchr::{memchr, memchr2};

/// Where the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One row a line; blank lines are none.
    Lines,
    /// The elements of the array that the file is.
    Array,
    /// The members of the object that the file is; a row is `"key": value`.
    Object,
    /// The elements of the array under this key of the object that the file is.
    ArrayIn(&'static str),
    /// The members of the object under this key of the object that the file is.
    ObjectIn(&'static str),
}

impl Layout {
    /// Whether a row is a member of an object.
    pub(crate) fn members(self) -> bool {
        matches!(self, Layout::Object | Layout::ObjectIn(_))
    }

    fn key(self) -> Option<&'static str> {
        match self {
            Layout::ArrayIn(key) | Layout::ObjectIn(key) => Some(key),
            _ => None,
        }
    }

    /// The brackets around the rows.
    fn brackets(self) -> (u8, u8) {
        if self.members() { (b'{', b'}') } else { (b'[', b']') }
    }
}

/// Why a file cannot be scanned.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It cannot be read.
    Io(io::Error),
    /// Its form is wrong.
    Form {
        /// The row or line, from 1; 0 before the first.
        row: u32,
        /// Offset in the file in bytes.
        byte: u64,
        /// What is wrong.
        message: String,
    },
}

/// A row in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its bytes in the block, without white space around them.
    pub(crate) range: Range<usize>,
    /// Its number in the file, from 1; of lines, the line number.
    pub(crate) number: u32,
}

/// Complete rows that follow each other in a file.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// The bytes, among them the rows.
    pub(crate) bytes: &'a [u8],
    /// Offset of the first byte in the file.
    pub(crate) offset: u64,
    /// The rows.
    pub(crate) rows: &'a [Found],
}

/// Maximum length of a row in bytes, far above the longest text that can be trained on.
pub(crate) const ROW_LIMIT: usize = 16 << 20;
/// Maximum nesting inside a row; that of serde_json.
const DEPTH: usize = 127;

/// Finds the rows of `reader`.
pub(crate) struct Scanner<R> {
    reader: R,
    layout: Layout,
    /// Bytes that are read at once, and about the length of a block.
    piece: usize,
    buffer: Vec<u8>,
    /// Offset of the buffer in the file.
    offset: u64,
    /// Position in the buffer of the next byte to look at.
    at: usize,
    state: State,
    /// The value that `at` is in.
    value: Option<Nest>,
    /// Begin of the row, or of the key, that `at` is in.
    start: Option<usize>,
    /// Whether the key of the layout was met.
    met: bool,
    number: u32,
    rows: Vec<Found>,
    /// An error that is returned after the rows before it.
    pending: Option<Broken>,
    ended: bool,
    crc: crc32fast::Hasher,
}

/// What the scanner expects next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The outermost bracket.
    Begin,
    /// A key of the outer object, or its end if nothing came before.
    Member {
        first: bool,
    },
    /// The rest of a key of the outer object, `:`, the value, the rest of a value without rows, `,` or `}`.
    MemberKey,
    MemberColon {
        rows: bool,
    },
    MemberValue {
        rows: bool,
    },
    MemberRest,
    MemberEnd,
    /// A row, or the end of the rows if nothing came before.
    Row {
        first: bool,
    },
    /// The rest of a row's key, `:`, the value, the rest of the value, `,` or the end of the rows.
    RowKey,
    RowColon,
    RowValue,
    RowRest,
    RowEnd,
    /// The end of the file.
    End,
}

impl<R: Read> Scanner<R> {
    /// Scans `reader`, a file of this layout, `piece` bytes at a time.
    pub(crate) fn new(reader: R, layout: Layout, piece: usize) -> Scanner<R> {
        Scanner {
            reader,
            layout,
            // A byte order mark must be seen whole.
            piece: piece.max(4),
            buffer: Vec::new(),
            offset: 0,
            at: 0,
            state: State::Begin,
            value: None,
            start: None,
            met: false,
            number: 0,
            rows: Vec::new(),
            pending: None,
            ended: false,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// The next rows, or `None` at the end of the file.
    ///
    /// # Errors
    /// Returns [`Broken`] for the first thing that is wrong, after all rows before it.
    pub(crate) fn block(&mut self) -> Result<Option<Block<'_>>, Broken> {
        self.rows.clear();
        self.drop_used();
        while !self.ended && self.pending.is_none() {
            if let Err(broken) = self.advance() {
                self.pending = Some(broken);
            }
            if self.buffer.len() >= self.piece && !self.rows.is_empty() {
                break;
            }
        }
        match self.pending.take() {
            Some(broken) if self.rows.is_empty() => Err(broken),
            pending => {
                self.pending = pending;
                let block = Block { bytes: &self.buffer, offset: self.offset, rows: &self.rows };
                Ok((!self.rows.is_empty()).then_some(block))
            }
        }
    }

    /// Length of the file in bytes and its CRC-32, after the last block.
    pub(crate) fn print(self) -> (u64, u32) {
        (self.offset + self.buffer.len() as u64, self.crc.finalize())
    }

    /// Reads one piece and scans it.
    fn advance(&mut self) -> Result<(), Broken> {
        if self.rows.is_empty() {
            self.drop_used();
        }
        let more = self.read().map_err(Broken::Io)?;
        let lines = self.layout == Layout::Lines;
        if self.offset == 0 && (self.buffer.starts_with(b"\xFF\xFE") || self.buffer.starts_with(b"\xFE\xFF"))
        {
            self.number = u32::from(lines);
            return Err(self.broken("it is UTF-16; save it as UTF-8"));
        }
        self.ended = !more;
        let scanned = if lines { self.lines(more) } else { self.json(more) };
        scanned.map_err(|message| self.broken(&message))
    }

    fn broken(&self, message: &str) -> Broken {
        Broken::Form { row: self.number, byte: self.offset + self.at as u64, message: message.into() }
    }

    /// Forgets the bytes before the row that has begun.
    fn drop_used(&mut self) {
        let used = self.start.unwrap_or(self.at);
        self.buffer.drain(..used);
        self.offset += used as u64;
        self.at -= used;
        self.start = self.start.map(|_| 0);
    }

    /// Appends the next piece to the buffer; `false` at the end of the file.
    fn read(&mut self) -> io::Result<bool> {
        let len = self.buffer.len();
        self.buffer.resize(len + self.piece, 0);
        let mut read = 0;
        while read < self.piece {
            match self.reader.read(&mut self.buffer[len + read..]) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.buffer.truncate(len + read);
        self.crc.update(&self.buffer[len..]);
        Ok(read > 0)
    }

    fn count(&mut self) -> Result<(), String> {
        self.number = self.number.checked_add(1).ok_or("more than 4294967295 rows")?;
        Ok(())
    }

    fn lines(&mut self, more: bool) -> Result<(), String> {
        loop {
            let start = *self.start.get_or_insert(self.at);
            let found = memchr(b'\n', &self.buffer[self.at..]);
            let end = found.map_or(self.buffer.len(), |n| self.at + n);
            if end - start > ROW_LIMIT {
                self.count()?;
                return Err(format!("longer than the limit of {ROW_LIMIT} bytes"));
            }
            if found.is_none() && more {
                self.at = end;
                return Ok(());
            }
            self.count()?;
            let line = &self.buffer[start..end];
            // In concatenated files a byte order mark may also be at the start of other lines.
            let json = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line).trim_ascii();
            if !json.is_empty() {
                let at = json.as_ptr().addr() - self.buffer.as_ptr().addr();
                self.rows.push(Found { range: at..at + json.len(), number: self.number });
            }
            self.start = None;
            self.at = end;
            if found.is_none() {
                return Ok(());
            }
            self.at += 1;
        }
    }

    fn json(&mut self, more: bool) -> Result<(), String> {
        while self.at < self.buffer.len() {
            let Some(value) = &mut self.value else {
                self.byte()?;
                continue;
            };
            match value.feed(&self.buffer[self.at..])? {
                None => self.at = self.buffer.len(),
                Some(n) => {
                    self.at += n;
                    self.value = None;
                }
            }
            if self.start.is_some_and(|start| self.at - start > ROW_LIMIT) {
                return Err(format!("longer than the limit of {ROW_LIMIT} bytes"));
            }
            if self.value.is_none() {
                self.value_ended()?;
            }
        }
        if more || self.state == State::End {
            return Ok(());
        }
        Err(match self.state {
            State::Begin => "it is empty".into(),
            _ => "the file ends here, before its last bracket: it is not complete".into(),
        })
    }

    /// Looks at a byte between values.
    fn byte(&mut self) -> Result<(), String> {
        let byte = self.buffer[self.at];
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
            return Ok(());
        }
        if self.offset == 0 && self.at == 0 && self.buffer.starts_with(b"\xEF\xBB\xBF") {
            self.at += 3;
            return Ok(());
        }
        let (open, close) = self.layout.brackets();
        let key = self.layout.key();
        self.state = match (self.state, byte) {
            (State::Begin, b'{') if key.is_some() => State::Member { first: true },
            (State::Begin, _) if key.is_none() && byte == open => State::Row { first: true },
            (State::Member { .. }, b'"') => return self.begin(State::MemberKey, true),
            (State::MemberColon { rows }, b':') => State::MemberValue { rows },
            (State::MemberValue { rows: true }, _) if byte == open => State::Row { first: true },
            (State::MemberValue { rows: false }, _) => return self.begin(State::MemberRest, false),
            (State::MemberEnd, b',') => State::Member { first: false },
            (State::Member { first: true } | State::MemberEnd, b'}') => match key {
                Some(key) if !self.met => return Err(format!("the object has no `{key}`")),
                _ => State::End,
            },
            (State::Row { first: true } | State::RowEnd, _) if byte == close => {
                if key.is_some() {
                    State::MemberEnd
                } else {
                    State::End
                }
            }
            (State::Row { .. }, b'"') if self.layout.members() => {
                self.count()?;
                return self.begin(State::RowKey, true);
            }
            (State::Row { .. }, _) if !self.layout.members() => {
                self.count()?;
                return self.begin(State::RowRest, true);
            }
            (State::RowColon, b':') => State::RowValue,
            (State::RowValue, _) => return self.begin(State::RowRest, false),
            (State::RowEnd, b',') => State::Row { first: false },
            _ => return Err(self.unexpected(byte)),
        };
        self.at += 1;
        Ok(())
    }

    /// Begins a value at the next byte, and a row or key if `start`.
    fn begin(&mut self, state: State, start: bool) -> Result<(), String> {
        self.state = state;
        self.value = Some(Nest::default());
        if start {
            self.start = Some(self.at);
        }
        Ok(())
    }

    /// The value before `at` is complete.
    fn value_ended(&mut self) -> Result<(), String> {
        self.state = match self.state {
            State::MemberKey => {
                let written = self.start.take().map_or(&[][..], |start| &self.buffer[start..self.at]);
                let name: String = serde_json::from_slice(written).map_err(|e| e.to_string())?;
                let rows = self.layout.key() == Some(name.as_str());
                if rows && std::mem::replace(&mut self.met, true) {
                    return Err(format!("`{name}` is there twice"));
                }
                State::MemberColon { rows }
            }
            State::RowKey => State::RowColon,
            State::RowRest => {
                if let Some(start) = self.start.take() {
                    self.rows.push(Found { range: start..self.at, number: self.number });
                }
                State::RowEnd
            }
            _ => State::MemberEnd,
        };
        Ok(())
    }

    fn unexpected(&self, byte: u8) -> String {
        let (open, close) = self.layout.brackets();
        let kind = if self.layout.members() { "an object" } else { "an array" };
        let found = match byte {
            0 => "a NUL byte, as in UTF-16".into(),
            byte if byte.is_ascii_graphic() => format!("`{}`", char::from(byte)),
            byte => format!("the byte {byte:#04x}"),
        };
        let wanted = match self.state {
            State::Begin if self.layout.key().is_some() => "`{`, because the file is one object".into(),
            State::Begin => format!("`{}`, because the file is {kind}", char::from(open)),
            State::Member { .. } | State::Row { .. } => "the next key".into(),
            State::MemberColon { .. } | State::RowColon => "`:`".into(),
            State::MemberValue { .. } => {
                format!("`{}`, because `{}` is {kind}", char::from(open), self.layout.key().unwrap_or(""))
            }
            State::MemberEnd => "`,` or `}`".into(),
            State::RowEnd => format!("`,` or `{}`", char::from(close)),
            _ => "the end of the file".into(),
        };
        format!("here is {found} instead of {wanted}")
    }
}

/// A JSON value of which only brackets and strings are looked at.
#[derive(Default)]
struct Nest {
    /// The closing brackets that are due.
    due: Vec<u8>,
    mode: Mode,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Mode {
    #[default]
    Begin,
    Between,
    Text,
    Escape,
    Scalar,
}

impl Nest {
    /// Continues with `bytes`; returns the number of bytes up to the end of the value if it ends in them.
    fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.mode {
                Mode::Text => {
                    let Some(n) = memchr2(b'"', b'\\', &bytes[at..]) else { return Ok(None) };
                    at += n + 1;
                    self.mode = if bytes[at - 1] == b'"' { Mode::Between } else { Mode::Escape };
                }
                Mode::Escape => {
                    at += 1;
                    self.mode = Mode::Text;
                    continue;
                }
                Mode::Scalar if b",:]} \t\r\n".contains(&byte) => return Ok(Some(at)),
                Mode::Scalar => {
                    at += 1;
                    continue;
                }
                Mode::Begin | Mode::Between => {
                    at += 1;
                    self.bracket(byte)?;
                }
            }
            if self.mode == Mode::Between && self.due.is_empty() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// A byte outside strings and scalars.
    fn bracket(&mut self, byte: u8) -> Result<(), String> {
        let begin = std::mem::replace(&mut self.mode, Mode::Between) == Mode::Begin;
        match byte {
            b'"' => self.mode = Mode::Text,
            b'{' | b'[' if self.due.len() == DEPTH => {
                return Err(format!("brackets are nested more than {DEPTH} deep"));
            }
            b'{' => self.due.push(b'}'),
            b'[' => self.due.push(b']'),
            b'}' | b']' if self.due.pop() != Some(byte) => {
                return Err(format!("`{}` closes no bracket", char::from(byte)));
            }
            b',' | b':' if begin => return Err(format!("`{}` where a value is wanted", char::from(byte))),
            _ if begin => self.mode = Mode::Scalar,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
