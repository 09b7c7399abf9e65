//! The only module that prints. Nothing here panics, and work continues without an output that it does not
//! need.
//!
//! Standard output carries the result of a command ([`say!`]). If it cannot be written, the command fails
//! with exit code 141 if the reader has closed the pipe (as `head` does), or 1 otherwise. For commands whose
//! result is files or an exit code, standard output ([`tell!`]) and standard error ([`note!`], [`warning!`] and, with
//! `--verbose`, [`detail!`]) carry messages, and failing to write them is ignored.
//!
//! Text from files (answers, names, messages) may contain escape sequences. They are escaped in every message
//! and error, and in results that go to a terminal; a pipe receives results unchanged.

use std::fmt::Arguments;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::process::exit;
use std::sync::atomic::{AtomicI8, Ordering};

use pheye::tensor::GpuError;
use pheye_files::printable;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

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

/// Prints a message to standard error, unless `--quiet` is given.
macro_rules! note {
    ($($text:tt)*) => { tracing::info!($($text)*) };
}
pub(crate) use note;

/// Prints a warning to standard error, also with `--quiet`.
macro_rules! warning {
    ($($text:tt)*) => { tracing::warn!("warning: {}", format_args!($($text)*)) };
}
pub(crate) use warning;

/// Prints a message to standard error if `--verbose` is given.
macro_rules! detail {
    ($($text:tt)*) => { tracing::debug!($($text)*) };
}
pub(crate) use detail;

/// How much is said on standard error beside errors: −1 for `--quiet`, 0, or the number of `--verbose`.
static VERBOSITY: AtomicI8 = AtomicI8::new(0);

/// Whether `--verbose` is given.
pub(crate) fn verbose() -> bool {
    VERBOSITY.load(Ordering::Relaxed) > 0
}

/// Sets how much is said: the messages of this program go to standard error, a line each.
pub(crate) fn begin(quiet: bool, verbose: u8) {
    VERBOSITY.store(if quiet { -1 } else { verbose.min(2) as i8 }, Ordering::Relaxed);
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::WARN,
        (_, 0) => LevelFilter::INFO,
        (_, 1) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let ours = Targets::new().with_target("pheye", level);
    // It fails only if there is a subscriber already.
    let _ = tracing_subscriber::registry().with(Lines.with_filter(ours)).try_init();
}

/// Prints the message of each event as a line.
struct Lines;

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        to_stderr(format_args!("{}", message.0));
    }
}

/// Whether standard error shows what moves: it is a terminal that can, and `--quiet` is not given.
pub(crate) fn animated() -> bool {
    VERBOSITY.load(Ordering::Relaxed) >= 0 && stderr().is_terminal() && !dumb()
}

/// Whether standard output shows colors: it is a terminal that can, and NO_COLOR (<https://no-color.org>) is not set.
pub(crate) fn colored() -> bool {
    stdout().is_terminal() && !dumb() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether the terminal moves no cursor and has no colors.
fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Prints a part of the result and flushes it. If that fails, the process exits.
pub(crate) fn write(text: Arguments) {
    let text = text.to_string();
    let text = if stdout().is_terminal() { printable(&text) } else { text };
    let mut out = stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            exit(CLOSED);
        }
        to_stderr(format_args!("error: standard output: {error}"));
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
    to_stderr(format_args!("error: {}", pheye_files::chain(error.as_ref())));
    if let Some(hint) = error.chain().find_map(gpu).and_then(hint) {
        to_stderr(format_args!("hint: {hint}"));
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
