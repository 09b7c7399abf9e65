//! Progress of long work: a bar on a terminal; of downloads, otherwise a line from time to time, as in a log file.

use std::time::{Duration, Instant};

#[cfg(feature = "hub")]
use indicatif::HumanBytes;
use indicatif::{ProgressBar, ProgressStyle};
#[cfg(feature = "hub")]
use pheye_files::{printable, quoted};

use crate::out::note;

/// Time between two lines when standard error is not a terminal.
pub(crate) const LOG_EVERY: Duration = Duration::from_secs(10);

/// The line of a bar that counts `unit`.
fn counting(unit: &str) -> String {
    format!("{{wide_bar}} {{pos}}/{{len}} {unit}  {{eta}} left")
}

#[cfg(feature = "hub")]
const DOWNLOADING: &str = "{prefix}  {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
const LOADING: &str = "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The end of a file's name that leaves room for the figures of a download in `width` columns.
#[cfg(feature = "hub")]
fn end_of(name: &str, width: usize) -> String {
    const FIGURES: usize = 52;
    let most = width.saturating_sub(FIGURES).max(7);
    match name.chars().count() {
        count if count > most => format!("…{}", name.chars().skip(count + 1 - most).collect::<String>()),
        _ => name.to_owned(),
    }
}

/// A bar on a terminal, otherwise a line every ten seconds.
pub(crate) struct Progress {
    bar: ProgressBar,
    total: u64,
    unit: String,
    logged: Instant,
}

impl Progress {
    /// A bar of `total` units; `unit` names them.
    pub(crate) fn new(total: u64, unit: &str) -> Progress {
        let terminal = crate::out::animated();
        let bar = if terminal { ProgressBar::new(total) } else { ProgressBar::hidden() };
        bar.set_style(style(&counting(unit)));
        Progress { bar, total, unit: unit.to_owned(), logged: Instant::now() }
    }

    /// Moves the bar to `done`.
    pub(crate) fn at(&mut self, done: u64) {
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.logged.elapsed() > LOG_EVERY && done < self.total {
            self.logged = Instant::now();
            note!("{done} of {} {}", self.total, self.unit);
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Progress of downloads: a bar for each file on a terminal, otherwise a line every ten seconds.
#[cfg(feature = "hub")]
#[derive(Default)]
pub(crate) struct Download {
    /// The file being downloaded, its bar, and the time of the last line.
    current: Option<(String, ProgressBar, Instant)>,
}

#[cfg(feature = "hub")]
impl Download {
    /// Shows the progress of a download.
    pub(crate) fn event(&mut self, progress: pheye::hub::Progress) {
        use pheye::hub::Progress as P;
        let terminal = crate::out::animated();
        match progress {
            P::Waiting { file } => note!("{file}: another process downloads it; waiting"),
            P::Resumed { file, done } => {
                self.line(&format!("{file}: the connection was cut; resuming at {}", HumanBytes(done)));
            }
            P::Bytes { file, done, total } => {
                if self.current.as_ref().is_none_or(|(name, ..)| name != file) {
                    self.current = Some(begin(file, done, total, terminal));
                }
                let Some((_, bar, logged)) = &mut self.current else { return };
                bar.set_position(done);
                if !terminal && logged.elapsed() > LOG_EVERY {
                    *logged = Instant::now();
                    let of = total.map_or(String::new(), |total| format!(" of {}", HumanBytes(total)));
                    note!("{file}: {}{of}", HumanBytes(done));
                }
            }
            P::Done { .. } => {
                if let Some((_, bar, _)) = self.current.take() {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
    }

    fn line(&self, text: &str) {
        match &self.current {
            Some((_, bar, _)) if !bar.is_hidden() => bar.println(printable(text)),
            _ => note!("{text}"),
        }
    }
}

#[cfg(feature = "hub")]
fn begin(file: &str, done: u64, total: Option<u64>, terminal: bool) -> (String, ProgressBar, Instant) {
    let bar = if terminal { ProgressBar::new(total.unwrap_or(0)) } else { ProgressBar::hidden() };
    bar.set_style(style(DOWNLOADING));
    bar.set_prefix(end_of(&quoted(file), crate::out::width()));
    // The rate counts only the bytes of this attempt, not those downloaded before.
    bar.set_position(done);
    bar.reset_eta();
    (file.to_owned(), bar, Instant::now())
}

/// A progress bar in bytes for loading or writing weights. It appears only if the work takes longer than
/// `BLINK`.
pub(crate) struct Loading {
    what: &'static str,
    began: Instant,
    bar: Option<ProgressBar>,
}

/// Nothing is shown before this time has passed.
const BLINK: Duration = Duration::from_millis(400);

impl Loading {
    pub(crate) fn new() -> Loading {
        Loading::named("loading")
    }

    /// A bar with `what` as its label.
    pub(crate) fn named(what: &'static str) -> Loading {
        Loading { what, began: Instant::now(), bar: None }
    }

    /// Shows `done` of `all` bytes.
    pub(crate) fn at(&mut self, done: u64, all: u64) {
        if self.bar.is_none() && crate::out::animated() && self.began.elapsed() > BLINK && done < all {
            let bar = ProgressBar::new(all);
            bar.set_prefix(self.what);
            self.bar = Some(bar.with_style(style(LOADING)));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// A line that says what goes on and how long it has taken, on a terminal, for work whose end is not known.
pub(crate) struct Waiting(ProgressBar);

impl Waiting {
    pub(crate) fn new(what: &str) -> Waiting {
        if !crate::out::animated() {
            return Waiting(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}");
        let bar = ProgressBar::new_spinner().with_message(what.to_owned());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Waiting(bar)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::*;

    /// What a terminal of `width` columns shows of a bar.
    fn shown(width: u16, template: &str, prefix: &str, total: u64) -> String {
        let term = InMemoryTerm::new(10, width);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style(template));
        bar.set_prefix(prefix.to_owned());
        bar.set_position(total / 3);
        bar.force_draw();
        term.contents()
    }

    #[test]
    fn bars_take_one_line_of_any_terminal() {
        for width in [60, 80, 120] {
            let questions = shown(width, &counting("questions"), "", 9673);
            assert!(questions.contains("3224/9673 questions"), "{questions}");
            let loading = shown(width, LOADING, "loading", 2_640_000_000);
            assert!(loading.contains("880.00 MB/2.64 GB"), "{loading}");
            let mut all = vec![questions, loading];
            #[cfg(feature = "hub")]
            {
                let prefix = end_of("model-00001-of-00003.safetensors", width.into());
                let downloading = shown(width, DOWNLOADING, &prefix, 4_976_698_592);
                assert!(downloading.contains("nsors") && downloading.contains("4.63 GiB"), "{downloading}");
                all.push(downloading);
            }
            for text in all {
                assert_eq!(text.lines().count(), 1, "{text}");
                assert!(text.chars().count() <= width.into(), "{text}");
            }
        }
    }
}
