//! Progress of a training run: two lines on a terminal, otherwise a line from time to time, as in a log file.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use pheye::train::{Event, StepReport};
use pheye_files::{printable, quoted};

use crate::numbers;
use crate::numbers::duration;
use crate::out::{note, warning, width};
use crate::progress::{LOG_EVERY, Loading};

/// Number of skipped images and texts that are named individually.
const SKIPPED_SHOWN: u64 = 10;
/// Share of a new step in the averages, which therefore cover about twenty steps: single steps are noisy.
const NEW: f64 = 0.05;

/// Shows the events of a training run.
pub(crate) struct Training {
    bar: ProgressBar,
    terminal: bool,
    logged: Instant,
    average: Option<Average>,
    total: u64,
    /// The step that the run began or went on at.
    from: u64,
    /// Number of steps with gradient spikes.
    spikes: u64,
    loading: Option<Loading>,
}

/// Averages over the last steps.
#[derive(Clone, Copy)]
struct Average {
    loss: f64,
    seconds: f64,
    waiting: f64,
    tokens: f64,
    samples: f64,
}

impl Average {
    /// The averages of a single step.
    fn of(s: &StepReport) -> Average {
        let (tokens, samples) = (s.tokens as f64, s.samples as f64);
        Average { loss: s.loss, seconds: s.seconds, waiting: s.waiting, tokens, samples }
    }

    fn and(self, s: &StepReport) -> Average {
        let new = Average::of(s);
        let mix = |old: f64, new: f64| (1.0 - NEW) * old + NEW * new;
        Average {
            loss: mix(self.loss, new.loss),
            seconds: mix(self.seconds, new.seconds),
            waiting: mix(self.waiting, new.waiting),
            tokens: mix(self.tokens, new.tokens),
            samples: mix(self.samples, new.samples),
        }
    }

    /// What is shown of the last steps, the most important first.
    fn parts(&self, s: &StepReport) -> Vec<String> {
        let mut parts = vec![
            format!("loss {:.4}", self.loss),
            format!("{} tokens/s", rate(self.tokens / self.seconds)),
            format!("waiting {:.1} %", 100.0 * self.waiting / self.seconds),
            format!("{} samples/s", rate(self.samples / self.seconds)),
        ];
        parts.extend(s.memory.gpu.map(|bytes| format!("GPU {}", numbers::bytes(bytes))));
        parts.extend(s.memory.peak_resident.map(numbers::bytes));
        parts
    }
}

impl Training {
    pub(crate) fn new() -> Training {
        let terminal = crate::out::animated();
        let (bar, logged) = (ProgressBar::hidden(), Instant::now());
        Training { bar, terminal, logged, average: None, total: 0, from: 0, spikes: 0, loading: None }
    }

    /// Shows an event.
    pub(crate) fn event(&mut self, event: Event) {
        match event {
            Event::Loading { done, all } => self.loading.get_or_insert_with(Loading::new).at(done, all),
            Event::Begin { total, from, trained, skipped } => {
                self.loading = None;
                skipped.iter().for_each(|why| self.line(&format!("checkpoint not used: {why}")));
                (self.total, self.from) = (total, from);
                if self.terminal {
                    self.bar = ProgressBar::new(total).with_style(style());
                    self.bar.set_position(from);
                }
                let trained = numbers::grouped(trained as u64);
                self.line(&format!("{trained} trained parameters, steps {from} to {total}"));
            }
            Event::Step(step) => self.step(&step),
            // In a small run there are many; each is in the file with its samples.
            Event::Spike(_) => self.spikes += 1,
            Event::Evaluated { step, evaluation: e } => {
                let share = 100.0 * e.accuracy;
                self.line(&format!(
                    "step {step}: {share:.2} % of {} test questions answered right",
                    e.questions
                ));
            }
            Event::Skipped { why, total } if total <= SKIPPED_SHOWN => self.line(&format!("skipped: {why}")),
            Event::Skipped { total, .. } if total == SKIPPED_SHOWN + 1 => {
                self.line("skipped: more, which are counted in metrics.jsonl (`skipped`)");
            }
            Event::Warning(what) if self.bar.is_hidden() => warning!("{what}"),
            Event::Warning(what) => self.line(&format!("warning: {what}")),
            Event::Saved(path) => {
                let text = format!("saved {}", quoted(&path.display().to_string()));
                self.bar.set_message(fit(&[text], width()));
            }
            _ => {}
        }
    }

    fn step(&mut self, s: &StepReport) {
        let average = self.average.map_or_else(|| Average::of(s), |average| average.and(s));
        self.average = Some(average);
        let left = format!("{} left", duration((self.total - s.step) as f64 * average.seconds));
        let parts = average.parts(s);
        if !self.terminal && (self.logged.elapsed() > LOG_EVERY || s.step == self.total) {
            self.logged = Instant::now();
            note!("step {}/{}  {}  {left}", s.step, self.total, parts.join("  "));
        }
        self.bar.set_prefix(left);
        self.bar.set_message(fit(&parts, width()));
        self.bar.set_position(s.step);
    }

    /// Removes the bar, and tells how many gradients were far above the others. Returns the step that the run began or
    /// went on at.
    pub(crate) fn finish(self) -> u64 {
        self.bar.finish_and_clear();
        match self.spikes {
            0 => {}
            1 => note!("1 step had an unusually large gradient; spikes.jsonl lists its samples"),
            n => note!("{n} steps had unusually large gradients; spikes.jsonl lists their samples"),
        }
        self.from
    }

    fn line(&self, text: &str) {
        if self.bar.is_hidden() {
            note!("{text}");
        } else {
            self.bar.println(printable(text));
        }
    }
}

/// A bar as wide as the terminal, and a line of numbers below it.
fn style() -> ProgressStyle {
    let template = "{wide_bar} {pos}/{len} steps  {prefix}\n{msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// As many of the first `parts` as fit into `width` columns.
fn fit(parts: &[String], width: usize) -> String {
    let mut text = String::new();
    for part in parts {
        let gap = if text.is_empty() { "" } else { "  " };
        if text.chars().count() + gap.len() + part.chars().count() >= width {
            break;
        }
        text += &format!("{gap}{part}");
    }
    text
}

/// A rate with three digits.
fn rate(n: f64) -> String {
    match n {
        n if n >= 99_950.0 => format!("{:.0}k", n / 1e3),
        n if n >= 9_995.0 => format!("{:.1}k", n / 1e3),
        n if n >= 99.95 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use pheye::train::MemoryUse;

    use super::*;

    #[test]
    fn a_narrow_terminal_shows_what_matters_most() {
        let memory = MemoryUse { peak_resident: Some(1_234_000_000), gpu: None };
        let report = StepReport {
            step: 1,
            loss: 0.41234,
            lr: 0.0,
            grad_norm: 0.0,
            tokens: 3520,
            samples: 41,
            seconds: 0.1,
            waiting: 0.0012,
            memory,
        };
        let parts = Average::of(&report).parts(&report);
        let whole = "loss 0.4123  35.2k tokens/s  waiting 1.2 %  410 samples/s  1.2 GB";
        assert_eq!(fit(&parts, 80), whole);
        assert_eq!(fit(&parts, 60), &whole[..whole.len() - "  1.2 GB".len()]);
        assert_eq!(fit(&parts, 20), "loss 0.4123");
        assert_eq!(fit(&parts, 5), "");
    }

    #[test]
    fn times_and_rates_are_short() {
        assert_eq!(
            [0.2, 61.0, 3700.0, 90_000.0].map(duration),
            ["1 s", "1 min 1 s", "1 h 1 min", "1 day 1 h"]
        );
        assert_eq!(
            [0.51, 123.4, 9994.0, 12_345.0, 234_567.0].map(rate),
            ["0.5", "123", "9994", "12.3k", "235k"]
        );
    }
}
