//! The files that benchmarks publish, and the results that are scored against them.
//!
//! What the official codes refuse is refused here, with the number of entries at fault and the first of them:
//! results for other questions or images than the references have, missing results, ids that occur twice. What
//! they score although it is doubtful, such as an empty reference, is scored as they do and reported as a
//! [`Warning`].

mod captions;
mod id;
mod json;
mod matching;
mod questions;

pub use captions::{CaptionSet, caption_scores, captions, tokenize};
pub use id::Id;
pub use json::{Entries, lines, read as json, text};
pub use matching::{none_of, unique};
pub use questions::{Metric, Questions, Reference, questions, references};

/// Which references need a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// All, as the official codes have it.
    All,
    /// Those that have one; the others are left out. For a trial on a part of a benchmark.
    Some,
}

/// The most of an entry's kind that a message names.
const NAMED: usize = 5;

/// Something doubtful that is scored nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub name: String,
    /// What it is.
    pub what: &'static str,
    /// The number of entries that it concerns.
    pub count: usize,
    /// The ids of the first of them.
    pub examples: Vec<String>,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Warning { name, what, count, examples } = self;
        let quoted = |text: &str| pheye_files::quoted(text);
        write!(f, "{}: {count} {what}: {}", quoted(name), quoted(&examples.join(", ")))
    }
}

/// A warning about the entries `ids`, or none if there are none.
fn warning(name: &str, what: &'static str, ids: &[&str]) -> Option<Warning> {
    let examples = ids.iter().take(NAMED).map(|id| (*id).to_owned()).collect();
    (!ids.is_empty()).then(|| Warning { name: name.to_owned(), what, count: ids.len(), examples })
}
