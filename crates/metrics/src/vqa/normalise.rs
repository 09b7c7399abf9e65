//! The normalisation of answers by the evaluation code of VQA, and TextVQA's variant of it.
//!
//! Its peculiarities are kept, because every published accuracy has them: a comma between two digits anywhere
//! removes all punctuation, a full stop goes unless a digit follows it, at most 32 full stops go, and one
//! contraction of the table is the wrong way round.

use super::tables::{ARTICLES, CONTRACTIONS, NUMBERS, PUNCTUATION};
use crate::python::{is_digit, split, strip};

/// The most full stops that are removed: the official code passes a flag of this value as the count.
const FULL_STOPS: usize = 32;

/// `answer` on one line: line feeds and tabs become spaces, and white space at both ends is removed.
pub(super) fn one_line(answer: &str) -> String {
    strip(&answer.replace(['\n', '\t'], " ")).to_owned()
}

/// Normalises an answer as the evaluation code of VQA (GT-Vision-Lab/VQA, `vqaEval.py`) does when people
/// disagree: punctuation, full stops, lower case, number words, articles, contractions.
///
/// ```
/// assert_eq!(pheye_metrics::vqa::normalise("The two dogs, I dont know."), "2 dogs i don't know");
/// ```
pub fn normalise(answer: &str) -> String {
    words(&full_stops(&punctuation(&one_line(answer))))
}

/// Normalises an answer as the evaluator of TextVQA (mmf's `EvalAIAnswerProcessor`) does: lower case, without
/// commas and question marks, the possessive apart, then [`normalise`].
///
/// ```
/// assert_eq!(pheye_metrics::vqa::normalise_textvqa("Lay's, chips?"), "lay 's chips");
/// ```
pub fn normalise_textvqa(answer: &str) -> String {
    normalise(strip(&answer.to_lowercase().replace([',', '?'], "").replace("'s", " 's")))
}

/// Removes punctuation marks beside a space, and replaces others by a space; removes all of them if a comma
/// stands between two digits. Both conditions are about `text` before any replacement.
fn punctuation(text: &str) -> String {
    let number = has_grouped_number(text);
    let mut out = text.to_owned();
    for &mark in PUNCTUATION {
        if !text.contains(mark) {
            continue;
        }
        let beside_space = text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
        out = out.replace(mark, if beside_space || number { "" } else { " " });
    }
    out
}

/// Whether `text` has a comma between two digits.
fn has_grouped_number(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    chars.windows(3).any(|w| w[1] == ',' && is_digit(w[0]) && is_digit(w[2]))
}

/// Removes the first [`FULL_STOPS`] full stops that no digit follows.
fn full_stops(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut removed = 0;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let goes = c == '.' && removed < FULL_STOPS && !rest.peek().is_some_and(|&next| is_digit(next));
        if goes {
            removed += 1;
        } else {
            out.push(c);
        }
    }
    out
}

/// Lower case, number words as digits, without articles, contractions with their apostrophes.
fn words(text: &str) -> String {
    let text = text.to_lowercase();
    let numbers = split(&text).map(|word| look_up(NUMBERS, word));
    let kept = numbers.filter(|word| !ARTICLES.contains(word));
    kept.map(|word| look_up(CONTRACTIONS, word)).collect::<Vec<_>>().join(" ")
}

/// The entry of `word` in `table`, or `word`.
fn look_up<'a>(table: &[(&str, &'static str)], word: &'a str) -> &'a str {
    table.iter().find(|(from, _)| *from == word).map_or(word, |(_, to)| to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_between_digits_removes_all_punctuation() {
        assert_eq!(normalise("a-b"), "b"); // "a b", and "a" is an article
        assert_eq!(normalise("x-y 1,000"), "xy 1000");
        assert_eq!(normalise("x- y-z"), "x yz");
    }

    #[test]
    fn thirty_two_full_stops_are_removed() {
        assert_eq!(normalise(&".".repeat(40)), ".".repeat(8));
        assert_eq!(normalise("3. .5 1.5"), "3 .5 1.5");
    }

    #[test]
    fn contractions_are_taken_as_the_table_has_them() {
        assert_eq!(normalise("somebody'd"), "somebodyd");
        assert_eq!(normalise("Im"), "im"); // the keys with capitals never match
    }
}
