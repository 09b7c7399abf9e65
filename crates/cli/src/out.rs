//! Standard output. What reads it may stop before the end, as `head` does: that is no fault, and the command ends as others do.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::process::exit;

/// Exit code where standard output was closed: that of a program which the signal SIGPIPE (13) ended.
const CLOSED: i32 = 128 + 13;

/// Prints a line.
macro_rules! say {
    ($($text:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($text)*))) };
}
pub(crate) use say;

/// Prints `text` at once. A closed output ends the process.
pub fn write(text: Arguments) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            exit(CLOSED);
        }
        eprintln!("error: standard output: {error}");
        exit(1);
    }
}
