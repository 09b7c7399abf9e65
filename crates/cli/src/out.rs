//! The one place that prints. Nothing here panics, and losing an output never stops work that does not need it.
//!
//! Standard output carries the result of a command ([`say!`]): if it cannot be written, the command has failed, with 141
//! where its reader has gone (as `head` does) and 1 otherwise. Where files or the exit code are the result, standard output
//! ([`tell!`]) and standard error ([`note!`]) carry remarks, and losing them changes nothing.
//!
//! Text from files (answers, names, messages) may hold escape sequences. They are escaped in every remark and error, and
//! in results when a terminal would act on them; a pipe gets results as they are.

use std::fmt::Arguments;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::process::exit;

use pheye::tensor::GpuError;
use pheye_files::printable;

/// Exit code where the reader of standard output is gone: that of a program which the signal SIGPIPE (13) ended.
const CLOSED: i32 = 128 + 13;

/// Prints a line of the result.
macro_rules! say {
    ($($text:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($text)*))) };
}
pub(crate) use say;

/// Prints a remark to standard output.
macro_rules! tell {
    ($($text:tt)*) => { $crate::out::remark(format_args!($($text)*)) };
}
pub(crate) use tell;

/// Prints a remark to standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::out::to_stderr(format_args!($($text)*)) };
}
pub(crate) use note;

/// Prints a part of the result at once. If that is not possible, the process ends.
pub fn write(text: Arguments) {
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

/// A line on standard output that nobody depends on.
pub fn remark(text: Arguments) {
    paint(&printable(&text.to_string()));
}

/// As [`remark`], with the escape sequences in `text`, which must all be this program's own.
pub fn paint(text: &str) {
    let mut out = stdout().lock();
    // A lost remark is no fault of the work.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A line on standard error.
pub fn to_stderr(text: Arguments) {
    // As above; there is nowhere else to say it.
    let _ = writeln!(stderr(), "{}", printable(&text.to_string()));
}

/// Says why a command failed, and what may help.
pub fn failed(error: &anyhow::Error) {
    note!("error: {}", pheye_files::chain(error.as_ref()));
    if let Some(hint) = error.chain().find_map(gpu).and_then(hint) {
        note!("hint: {hint}");
    }
}

/// The GPU's error in this one, if it is one.
fn gpu<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a GpuError> {
    let facade = || error.downcast_ref::<pheye::Error>()?.gpu();
    let train = || error.downcast_ref::<pheye::train::Error>()?.gpu();
    let model = || error.downcast_ref::<pheye::model::Error>()?.gpu();
    let ops = || error.downcast_ref::<pheye::ops::Error>()?.gpu();
    let tensor = || error.downcast_ref::<pheye::tensor::Error>()?.gpu();
    error.downcast_ref().or_else(facade).or_else(train).or_else(model).or_else(ops).or_else(tensor)
}

/// What this command can do about a GPU's error.
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
