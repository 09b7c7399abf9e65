//! What is written in the scenes: words of a lexicon, numbers and codes.

use std::path::Path;

use pheye_files::{Kind, quoted};

use crate::random::Rng;
use crate::{Error, Result};

/// The built-in lexicon.
const BUILT_IN: &str = include_str!("../words/lexicon.txt");

/// The largest file of words in bytes, and the most characters of a word.
const LIMITS: (u64, usize) = (4 << 20, 20);

/// The share of numbers and of codes among the texts.
const NUMBERS: f32 = 0.13;
const CODES: f32 = 0.07;

/// What a text is, and what a question may call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Word,
    Number,
    Price,
    Code,
}

impl Sort {
    /// The noun for a text of this kind.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Sort::Word => "word",
            Sort::Number => "number",
            Sort::Price => "price",
            Sort::Code => "code",
        }
    }
}

/// A text of a scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// As it is drawn, with its letter case.
    pub(crate) drawn: String,
    pub(crate) sort: Sort,
}

impl Text {
    /// The text as answers and captions have it.
    pub(crate) fn answer(&self) -> String {
        self.drawn.to_lowercase()
    }
}

/// The letter case of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Upper,
    Title,
    Lower,
}

impl Case {
    fn of(self, word: &str) -> String {
        match self {
            Case::Upper => word.to_uppercase(),
            Case::Lower => word.to_owned(),
            Case::Title => {
                let mut letters = word.chars();
                let first = letters.next().into_iter().flat_map(char::to_uppercase);
                first.chain(letters).collect()
            }
        }
    }
}

/// The words that scenes show, in lower case.
pub(crate) struct Lexicon {
    words: Vec<String>,
}

impl Lexicon {
    /// The words of a file, or the built-in ones.
    pub(crate) fn open(path: Option<&Path>) -> Result<Lexicon> {
        let Some(path) = path else { return Lexicon::parse(BUILT_IN, Path::new("lexicon.txt")) };
        let text = pheye_files::read_text(path, Kind::Any, LIMITS.0);
        Lexicon::parse(&text.map_err(|source| Error::Io { path: path.to_owned(), source })?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Lexicon> {
        let fault = |line, message| Err(Error::Lexicon { path: path.to_owned(), line, message });
        let mut words = std::collections::BTreeSet::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
            for word in line.split_whitespace() {
                let word = word.to_lowercase();
                if word.chars().count() > LIMITS.1 || !word.chars().all(char::is_alphanumeric) {
                    let limit = LIMITS.1;
                    let why =
                        format!("`{}` is not a word of up to {limit} letters and digits", quoted(&word));
                    return fault(number + 1, why);
                }
                // A letter whose case does not convert back would make an answer that is not what is drawn.
                if word.to_uppercase().to_lowercase() != word {
                    return fault(number + 1, format!("`{word}` changes when it is written in capitals"));
                }
                words.insert(word);
            }
        }
        if words.is_empty() {
            return fault(1, "there is no word in the file".to_owned());
        }
        Ok(Lexicon { words: words.into_iter().collect() })
    }

    /// Every character that a text may contain, in order.
    pub(crate) fn characters(&self) -> Vec<char> {
        let both = |word: &String| word.chars().chain(word.to_uppercase().chars()).collect::<Vec<_>>();
        let mut all: Vec<char> = self.words.iter().flat_map(both).collect();
        all.extend(('0'..='9').chain('A'..='Z').chain(['x', 'H', '$', '.', '%', '-']));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The words, in alphabetical order.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    /// A random kind of text.
    pub(crate) fn sort(rng: &mut Rng) -> Sort {
        match rng.unit() {
            p if p < CODES => Sort::Code,
            p if p < CODES + 0.3 * NUMBERS => Sort::Price,
            p if p < CODES + NUMBERS => Sort::Number,
            _ => Sort::Word,
        }
    }

    /// A random text of a kind, a word in the letter case `case`.
    pub(crate) fn draw(&self, sort: Sort, case: Case, rng: &mut Rng) -> Text {
        let drawn = match sort {
            Sort::Word => case.of(rng.pick::<String>(&self.words)),
            Sort::Number => number(rng),
            Sort::Price => price(rng),
            Sort::Code => code(rng),
        };
        Text { drawn, sort }
    }

    /// A text that is not `text` and looks like it: a word at a small edit distance, or other digits.
    pub(crate) fn near(&self, text: &Text, rng: &mut Rng) -> String {
        let answer = text.answer();
        if text.sort != Sort::Word {
            return other_digit(&answer, rng);
        }
        let candidates = (0..NEAR).map(|_| rng.pick(&self.words).clone()).filter(|word| *word != answer);
        let nearest = candidates.min_by_key(|word| strsim::levenshtein(word, &answer));
        nearest.unwrap_or_else(|| answer.chars().rev().collect())
    }
}

/// The number of words among which the nearest is a plausible wrong one.
const NEAR: usize = 60;

/// A house number, a year, a speed limit or a percentage.
fn number(rng: &mut Rng) -> String {
    match rng.below(10) {
        0..=3 => rng.integer(1, 999).to_string(),
        4..=5 => rng.integer(1850, 2030).to_string(),
        6..=7 => (10 * rng.integer(1, 13)).to_string(),
        8 => format!("{}%", 5 * rng.integer(1, 19)),
        _ => rng.integer(1000, 99_999).to_string(),
    }
}

fn price(rng: &mut Rng) -> String {
    let cents = rng.choose(["00", "25", "49", "50", "75", "90", "95", "99"]);
    match rng.below(3) {
        0 => format!("${}", rng.integer(1, 99)),
        1 => format!("${}.{cents}", rng.integer(1, 19)),
        _ => format!("{}.{cents}", rng.integer(1, 99)),
    }
}

/// Two to five letters and digits, at least one of each, sometimes with a hyphen.
fn code(rng: &mut Rng) -> String {
    // Without I, O and Q, which look like digits.
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPRSTUVWXYZ";
    let (letters, digits) = (rng.integer(1, 2), rng.integer(1, 3));
    let letters: String = (0..letters).map(|_| char::from(*rng.pick(LETTERS))).collect();
    let digits: String = (0..digits).map(|_| char::from(b"23456789"[rng.below(8)])).collect();
    let hyphen = if rng.chance(0.25) { "-" } else { "" };
    if rng.chance(0.7) { format!("{letters}{hyphen}{digits}") } else { format!("{digits}{hyphen}{letters}") }
}

/// `text` with one of its digits replaced by another.
fn other_digit(text: &str, rng: &mut Rng) -> String {
    let at: Vec<usize> = text.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(i, _)| i).collect();
    let at = *rng.pick(&at);
    let old = text.as_bytes()[at] - b'0';
    // Never 0, so that no number begins with it.
    let others: Vec<u8> = (1..=9).filter(|digit| *digit != old).collect();
    let new = rng.pick(&others);
    format!("{}{new}{}", &text[..at], &text[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_words() {
        let lexicon = Lexicon::open(None).unwrap();
        assert!(lexicon.words().len() > 1000, "{}", lexicon.words().len());
        let short =
            |word: &String| (2..=9).contains(&word.len()) && word.bytes().all(|c| c.is_ascii_lowercase());
        assert!(lexicon.words().iter().all(short));
    }

    #[test]
    fn wrong_texts_differ_and_are_alike() {
        let lexicon = Lexicon::open(None).unwrap();
        let mut rng = Rng::new(1, 2);
        let mut distance = 0;
        for _ in 0..2000 {
            let text = lexicon.draw(Lexicon::sort(&mut rng), Case::Title, &mut rng);
            let near = lexicon.near(&text, &mut rng);
            assert_ne!(near, text.answer());
            if text.sort == Sort::Word {
                distance += strsim::levenshtein(&near, &text.answer());
            } else {
                assert_eq!(strsim::levenshtein(&near, &text.answer()), 1, "{near} {text:?}");
                assert!(!near.starts_with('0'), "{near} {text:?}");
            }
        }
        assert!(distance < 2000 * 4, "{distance}");
    }

    #[test]
    fn a_fifth_are_numbers_and_codes() {
        let mut rng = Rng::new(3, 4);
        let n = (0..10_000).filter(|_| Lexicon::sort(&mut rng) != Sort::Word).count();
        assert!((1850..2150).contains(&n), "{n}");
    }
}
