//! Reads every sample of a mixture once, before a run does: missing and broken images, texts that are too
//! long, and duplicates.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pheye_files::{chain, quoted};
use pheye_image::DecodeOptions;
use rayon::prelude::*;
use serde::Serialize;

use crate::loader::encoded;
use crate::source::key;
use crate::{Content, Encode, Encoded, Error, Example, Mixture, Result, Store, Summary};

/// Number of faults of a kind that are named.
const NAMED: usize = 20;
/// Upper bounds of the histogram of lengths in tokens; further lengths are in the last count.
const BOUNDS: [usize; 9] = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/// How samples are checked.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Whether images are decoded; otherwise only whether they exist is checked.
    pub images: bool,
    /// Maximum number of tokens of a sequence.
    pub max_tokens: usize,
}

/// Faults of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Their number.
    pub count: u64,
    /// The first of them by the order of the files, at most 20.
    pub first: Vec<String>,
}

/// Lengths of sequences in tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// Upper bounds, inclusive.
    pub bounds: Vec<usize>,
    /// For each bound the number of sequences up to it and above the one before; the last count is of those
    /// above all bounds.
    pub counts: Vec<u64>,
    /// The sum of all lengths.
    pub total: u64,
    /// The greatest length.
    pub longest: usize,
}

/// What was found in the data of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is used of each source, and what is not.
    pub sources: Vec<Summary>,
    /// Number of different texts: all turns of all items.
    pub texts: u64,
    /// Number of different images.
    pub images: u64,
    /// Images that do not exist.
    pub missing: Faults,
    /// Images that exist and cannot be decoded.
    pub broken: Faults,
    /// Rows and texts that cannot be read or tokenized.
    pub unusable: Faults,
    /// Texts of more tokens than fit.
    pub too_long: Faults,
    /// Questions that an image has more than once.
    pub duplicates: Faults,
    /// Lengths of the texts that can be tokenized.
    pub tokens: Lengths,
}

impl Check {
    /// Whether a run with `on_broken = "stop"` would stop.
    pub fn stops(&self) -> bool {
        [&self.missing, &self.broken, &self.unusable, &self.too_long].iter().any(|faults| faults.count > 0)
    }
}

/// What was found about one item.
#[derive(Default)]
struct Found {
    image: bool,
    missing: Option<String>,
    broken: Option<String>,
    unusable: Vec<String>,
    too_long: Vec<String>,
    lengths: Vec<usize>,
    /// Hashes of its questions with its image.
    asked: Vec<u64>,
}

/// Reads every sample of `mixture` once, in parallel. `encode` must tokenize texts longer than
/// `options.max_tokens` too. `on` receives the number of items checked so far, and their total, from any thread.
pub fn check(
    mixture: &Mixture,
    encode: &Encode,
    options: CheckOptions,
    on: &(dyn Fn(u64, u64) + Sync),
) -> Check {
    let (total, done, seen) = (mixture.len() as u64, AtomicU64::new(0), Mutex::new(HashSet::new()));
    let mut check = Check {
        sources: mixture.summaries(),
        texts: 0,
        images: 0,
        missing: Faults::default(),
        broken: Faults::default(),
        unusable: Faults::default(),
        too_long: Faults::default(),
        duplicates: Faults::default(),
        tokens: Lengths { bounds: BOUNDS.into(), counts: vec![0; BOUNDS.len() + 1], total: 0, longest: 0 },
    };
    let mut asked: Vec<(u64, u32)> = Vec::new();
    // In pieces, so that what was found does not grow with the data.
    for begin in (0..mixture.len()).step_by(PIECE) {
        let numbers = begin..(begin + PIECE).min(mixture.len());
        let look = |number| {
            let found = item(mixture, number, encode, options, &seen);
            on(1 + done.fetch_add(1, Ordering::Relaxed), total);
            found
        };
        let found: Vec<Found> = numbers.clone().into_par_iter().map(look).collect();
        for (number, found) in numbers.zip(found) {
            asked.extend(found.asked.iter().map(|question| (*question, number as u32)));
            check.add(found);
        }
    }
    asked.sort_unstable();
    let mut again: Vec<u32> = asked.windows(2).filter(|w| w[0].0 == w[1].0).map(|w| w[1].1).collect();
    again.sort_unstable();
    let first = again.iter().take(NAMED).map(|number| mixture.place(*number as usize)).collect();
    check.duplicates = Faults { count: again.len() as u64, first };
    check
}

/// Items that are looked at between two sums.
const PIECE: usize = 1 << 14;

impl Check {
    fn add(&mut self, found: Found) {
        self.images += u64::from(found.image);
        self.texts += found.asked.len() as u64;
        self.missing.add(found.missing);
        self.broken.add(found.broken);
        self.unusable.add(found.unusable);
        self.too_long.add(found.too_long);
        for length in found.lengths {
            let at = self.tokens.bounds.partition_point(|bound| *bound < length);
            self.tokens.counts[at] += 1;
            self.tokens.total += length as u64;
            self.tokens.longest = self.tokens.longest.max(length);
        }
    }
}

impl Faults {
    fn add(&mut self, faults: impl IntoIterator<Item = String>) {
        for fault in faults {
            self.count += 1;
            if self.first.len() < NAMED {
                self.first.push(quoted(&fault));
            }
        }
    }
}

fn item(
    mixture: &Mixture,
    number: usize,
    encode: &Encode,
    options: CheckOptions,
    seen: &Mutex<HashSet<u64>>,
) -> Found {
    let (source, i) = mixture.numbered(number);
    let (mut found, content) = (Found::default(), mixture.content());
    let fault = |error| chain(&source.fault(i, error));
    let item = match mixture.whole_item(number) {
        Ok(item) => item,
        Err(error) => {
            found.unusable.push(fault(error));
            return found;
        }
    };
    let image = item.image.as_ref().map_or_else(String::new, |image| source.store().name(image));
    for text in item.texts(content) {
        found.asked.push(match text {
            // The same instruction asks for each caption of an image.
            Example::Question(question, answer) if source.part(i).prompt.replaces() => {
                key(&[&image, question, answer])
            }
            Example::Question(question, _) => key(&[&image, question]),
            Example::Text(text) => key(&[&image, text]),
        });
        match encoded(encode, text, options.max_tokens) {
            Ok(Encoded { ids, .. }) => {
                let (tokens, limit) = (ids.len(), options.max_tokens);
                found.lengths.push(tokens);
                found.too_long.extend((tokens > limit).then(|| fault(Error::TooLong { tokens, limit })));
            }
            Err(error @ Error::TooManyBytes { .. }) => found.too_long.push(fault(error)),
            Err(error) => found.unusable.push(fault(error)),
        }
    }
    let Some(name) = item.image.filter(|_| content != Content::Text) else { return found };
    let store = source.store();
    found.image = seen.lock().unwrap_or_else(|e| e.into_inner()).insert(key(&[&image]));
    if found.image {
        match looked_at(store, &name, options.images) {
            Ok(true) => {}
            Ok(false) => found.missing = Some(source.place(i)),
            Err(error) => found.broken = Some(fault(error)),
        }
    }
    found
}

/// Whether the image exists; an error if it cannot be decoded.
fn looked_at(store: &Store, name: &str, decode: bool) -> Result<bool> {
    if !store.contains(name) {
        return Ok(false);
    }
    if decode {
        store.image(name, &DecodeOptions::default())?;
    }
    Ok(true)
}
