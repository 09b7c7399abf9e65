//! The only module that prints. Nothing here panics, and work continues without an output that it does not
//! need.
//!
//! Standard output carries the result of a command ([`say!`]). If it cannot be written, the command fails
//! with exit code 141 if the reader has closed the pipe (as `head` does), or 1 otherwise. For commands whose
//! result is files or an exit code, standard output ([`tell!`]) and standard error ([`note!`]) carry
//! messages, and failing to write them is ignored.
//!
//! Text from files (answers, names, messages) may contain escape sequences. They are escaped in every message
//! and error, and in results that go to a terminal; a pipe receives results unchanged.

use std::fmt::Arguments;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::process::exit;

use pheye::tensor::GpuError;
use pheye_files::printable;

/// Exit code when the reader of standard output has closed the pipe: that of a program killed by SIGPIPE
/// (signal 13).
const CLOSED: i32 = 128 + 13;

/// Prints a line of the result to standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($text)*))) };
}
pub(crate) use say;

/// Prints a message to standard output.
macro_rules! tell {
    ($($text:tt)*) => { $crate::out::remark(format_args!($($text)*)) };
}
pub(crate) use tell;

/// Prints a message to standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::out::to_stderr(format_args!($($text)*)) };
}
pub(crate) use note;

/// Prints a part of the result and flushes it. If that fails, the process exits.
pub(crate) fn write(text: Arguments) {
    let text = text.to_string();
    let text = if stdout().is_terminal() { printable(&text) } else { text };
    let mut out = stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            exit(CLOSED);
        }
        note!("error: standard output: {error}");
        exit(1);
    }
}

/// Prints a line on standard output. A failure to write it is ignored.
pub(crate) fn remark(text: Arguments) {
    paint(&printable(&text.to_string()));
}

/// Like [`remark`], without escaping: every escape sequence in `text` must come from this program.
pub(crate) fn paint(text: &str) {
    let mut out = stdout().lock();
    // A message that cannot be written does not stop the work.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints a line on standard error.
pub(crate) fn to_stderr(text: Arguments) {
    // A failure is ignored, because there is no other stream to report it on.
    let _ = writeln!(stderr(), "{}", printable(&text.to_string()));
}

/// Columns of the terminal that standard error or standard output is; without one, more than any line has.
pub(crate) fn width() -> usize {
    let terminal =
        [console::Term::stderr(), console::Term::stdout()].into_iter().find(console::Term::is_term);
    terminal.and_then(|term| term.size_checked()).map_or(usize::MAX / 2, |(_, columns)| columns.into())
}

/// Prints why a command failed, and a hint if there is one.
pub(crate) fn failed(error: &anyhow::Error) {
    note!("error: {}", pheye_files::chain(error.as_ref()));
    if let Some(hint) = error.chain().find_map(gpu).and_then(hint) {
        note!("hint: {hint}");
    }
}

/// The GPU error in `error`, if it is one or contains one.
fn gpu<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a GpuError> {
    let facade = || error.downcast_ref::<pheye::Error>()?.gpu();
    let train = || error.downcast_ref::<pheye::train::Error>()?.gpu();
    let model = || error.downcast_ref::<pheye::model::Error>()?.gpu();
    let ops = || error.downcast_ref::<pheye::ops::Error>()?.gpu();
    let tensor = || error.downcast_ref::<pheye::tensor::Error>()?.gpu();
    error.downcast_ref().or_else(facade).or_else(train).or_else(model).or_else(ops).or_else(tensor)
}

/// What the user of this command can do about a GPU error.
fn hint(error: &GpuError) -> Option<&'static str> {
    match error {
        GpuError::NoKernels { .. } | GpuError::NoDriver | GpuError::NoDevice { .. } => {
            Some("`--device cpu` runs without a GPU")
        }
        GpuError::OutOfMemory { .. } => Some(
            "training takes less memory with a smaller `train.batch` (and more `train.accumulation`), a higher \
             `train.recompute`, or a model of a lower image level",
        ),
        _ => None,
    }
}
