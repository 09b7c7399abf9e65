//! Progress of long work: a bar for a person, a line now and then for a log file.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use pheye::train::{Event, StepReport};

/// How often a log file gets a line.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A bar on standard error when that is a terminal, else a line every ten seconds.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    logged: Instant,
    loss: f64,
    began: Instant,
    from: u64,
    total: u64,
}

impl Progress {
    /// A bar of `total` units; `unit` names them.
    pub fn new(total: u64, unit: &str) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let template = format!("{{bar:32}} {{pos}}/{{len}} {unit}  {{msg}}  {{eta}} left");
        bar.set_style(
            ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let now = Instant::now();
        Progress { bar, terminal, logged: now, loss: f64::NAN, began: now, from: 0, total }
    }

    /// Shows an event of a training run.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Begin { total, from, trained, skipped } => {
                skipped.iter().for_each(|why| self.line(&format!("passed over: {why}")));
                *self = Progress { from, ..Progress::new(total, "steps") };
                self.bar.set_position(from);
                self.bar.reset_eta();
                self.line(&format!("{trained} trained parameters, steps {from} to {total}"));
            }
            Event::Step(step) => self.step(step),
            Event::Saved(path) => self.bar.set_message(format!("saved {}", path.display())),
            _ => {}
        }
    }

    fn step(&mut self, s: StepReport) {
        // Smoothed over about twenty steps, else it jumps with every batch.
        self.loss = if self.loss.is_nan() { s.loss } else { 0.95 * self.loss + 0.05 * s.loss };
        let rate = (s.step - self.from) as f64 / self.began.elapsed().as_secs_f64();
        self.bar.set_position(s.step);
        let text = format!("loss {:.4}  {rate:.1} steps/s", self.loss);
        if !self.terminal && (self.logged.elapsed() > LOG_EVERY || s.step == self.total) {
            self.logged = Instant::now();
            let left = (self.total - s.step) as f64 / rate;
            eprintln!("step {}/{}  {text}  {left:.0} s left", s.step, self.total);
        }
        self.bar.set_message(text);
    }

    /// Moves a plain bar to `done`.
    pub fn at(&mut self, done: u64) {
        self.bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, text: &str) {
        if self.terminal {
            self.bar.println(text);
        } else {
            eprintln!("{text}");
        }
    }
}
