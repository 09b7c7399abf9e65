//! The tokenizer of captions: the tokens of Stanford's PTBTokenizer 3.4.1, as pycocoevalcap runs it.
//!
//! Published scores of captions count these tokens, so another tokenizer gives other scores. At each place of
//! the text, the rule with the longest match makes a token (`rules.rs`). A rule may look at what follows its
//! token, and the captions of a set are one text, a line each, so the last token of a caption may depend on the
//! next caption. [`tokenize_all`] therefore takes all captions of a set, in the order of the official tools.
//!
//! Characters that end a line in Java, such as U+2028, would shift all later captions by a line in the
//! original. They are spaces here; [`has_line_break`] finds them.

mod abbreviations;
mod characters;
mod emit;
mod lexer;
mod rules;
mod stream;

use crate::python::is_space;

/// Tokens that pycocoevalcap removes. Brackets are in lower case when it looks for these, so they stay.
const REMOVED: [&str; 13] = ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// The tokens of one caption, with nothing after it, in lower case. A token can contain U+00A0 in place of a
/// space (`1 1/2`).
///
/// ```
/// assert_eq!(pheye_metrics::ptb::tokenize("Don't stop."), ["do", "n't", "stop", "."]);
/// ```
pub fn tokenize(caption: &str) -> Vec<String> {
    tokenize_all(&[caption]).pop().unwrap_or_default()
}

/// The tokens of each caption of a set, in lower case.
pub fn tokenize_all<S: AsRef<str>>(captions: &[S]) -> Vec<Vec<String>> {
    stream::lines(captions)
}

/// The tokens that are counted in scores, joined by one space: without punctuation, except brackets.
///
/// ```
/// use pheye_metrics::ptb::{kept, tokenize};
/// assert_eq!(kept(&tokenize("A dog (brown), asleep.")), "a dog -lrb- brown -rrb- asleep");
/// ```
pub fn kept<S: AsRef<str>>(tokens: &[S]) -> String {
    // White space at the end of a line is removed before it is split, and U+00A0 in a token is white space.
    let line = tokens.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches(is_space);
    line.split(' ').filter(|token| !REMOVED.contains(token)).collect::<Vec<_>>().join(" ")
}

/// Whether `caption` contains a character that ends a line in Java or in Unicode, other than a line feed.
pub fn has_line_break(caption: &str) -> bool {
    caption.contains(|c: char| BREAKS.contains(&c) && c != '\n' || c == '\u{85}')
}

/// The characters that end a line in Java; they are read as spaces.
const BREAKS: [char; 6] = ['\n', '\r', '\u{b}', '\u{c}', '\u{2028}', '\u{2029}'];
