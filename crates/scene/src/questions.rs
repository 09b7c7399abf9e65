//! Questions about a scene whose answers follow from it without doubt.

use crate::lexicon::{Lexicon, Sort, Text};
use crate::mask::Box4;
use crate::random::Rng;
use crate::scene::{Kind, Qa, Word};

/// What a question is made from.
pub(crate) struct Asking<'a> {
    pub(crate) words: &'a [Word],
    pub(crate) texts: &'a [Text],
    /// Side of the image in pixels.
    pub(crate) size: usize,
    pub(crate) lexicon: &'a Lexicon,
    /// Whether only reading is asked for.
    pub(crate) plain: bool,
}

/// Least ratio of two sizes of which one is called larger.
const RATIO: f32 = 1.4;

/// The questions about a scene, in random order.
pub(crate) fn ask(asking: &Asking, rng: &mut Rng) -> Vec<Qa> {
    let mut all = Vec::new();
    if let [only] = asking.words {
        all.push(asking.read(only, rng));
    }
    all.extend(asking.read_all(rng));
    if asking.plain {
        return all;
    }
    for i in 0..asking.words.len() {
        all.extend(asking.by_color(i, rng));
        all.extend(asking.by_place(i, rng));
        all.extend(asking.color_of(i, rng));
    }
    all.extend(asking.by_size(rng));
    all.extend(asking.count(rng));
    all.extend(asking.present(rng));
    all.extend(asking.number(rng));
    rng.shuffle(&mut all);
    all
}

fn answered(kind: Kind, question: String, word: &Word) -> Qa {
    Qa { question, answer: word.text.to_lowercase(), kind, bbox: Some(word.bbox) }
}

impl Asking<'_> {
    fn sort(&self, i: usize) -> Sort {
        self.texts[i].sort
    }

    /// The only text.
    fn read(&self, word: &Word, rng: &mut Rng) -> Qa {
        let mut wordings =
            vec!["what is written here?", "what does the text say?", "what can you read here?"];
        if self.sort(0) == Sort::Word {
            wordings.extend(["what word is this?", "what is the word?"]);
        }
        if word.board.is_some() {
            wordings.extend(["what does the sign say?"; 4]);
            wordings.extend(["what is written on the sign?", "what is on the sign?"]);
        }
        answered(Kind::Read, (*rng.pick(&wordings)).to_owned(), word)
    }

    /// All texts in the order of their centers from top to bottom, if the order is clear.
    fn read_all(&self, rng: &mut Rng) -> Option<Qa> {
        let center = |word: &Word| 2 * word.bbox[1] + word.bbox[3];
        let mut words: Vec<&Word> = self.words.iter().collect();
        words.sort_by_key(|word| center(word));
        let clear =
            |pair: &[&Word]| center(pair[1]) - center(pair[0]) >= pair[0].bbox[3].max(pair[1].bbox[3]);
        if words.len() < 2 || !words.windows(2).all(clear) {
            return None;
        }
        let question = rng.choose([
            "what is all the text?",
            "what does all the text say?",
            "what is written here, from top to bottom?",
        ]);
        let texts: Vec<String> = words.iter().map(|word| word.text.to_lowercase()).collect();
        let bbox = Some(around(&words));
        Some(Qa { question: question.to_owned(), answer: texts.join(" "), kind: Kind::ReadAll, bbox })
    }

    /// A text by the color of its board, or by its own, if no other has it.
    fn by_color(&self, i: usize, rng: &mut Rng) -> Option<Qa> {
        let (word, n) = (&self.words[i], self.words.len());
        // A single text is mostly asked for without its color.
        if n == 1 && rng.chance(0.6) {
            return None;
        }
        let others = |same: &dyn Fn(&Word) -> bool| (0..n).any(|j| j != i && same(&self.words[j]));
        let question = match word.board {
            Some(board) if !others(&|other| other.board.is_some_and(|b| b.color == board.color)) => {
                let color = board.color;
                rng.choose([
                    format!("what does the {color} sign say?"),
                    format!("what is written on the {color} sign?"),
                    format!("what is on the {color} sign?"),
                ])
            }
            _ if !word.decorated && !others(&|other| other.color == word.color) => {
                let (noun, color) = (self.sort(i).noun(), word.color);
                rng.choose([
                    format!("what is the {color} {noun}?"),
                    format!("what does the {color} text say?"),
                    format!("what is written in {color}?"),
                ])
            }
            _ => return None,
        };
        Some(answered(Kind::ReadByColor, question, word))
    }

    /// A text by where it is, if it is clearly the farthest in that direction.
    fn by_place(&self, i: usize, rng: &mut Rng) -> Option<Qa> {
        let word = &self.words[i];
        let mut places: Vec<_> = PLACES.iter().filter(|place| self.at(i, place)).collect();
        rng.shuffle(&mut places);
        let place = places.first()?;
        let noun = if word.board.is_some() && self.words.iter().all(|word| word.board.is_some()) {
            "sign"
        } else {
            "text"
        };
        let question = rng.choose([
            format!("what is written {}?", place.at),
            format!("what does the {} {noun} say?", place.name),
            format!("what does the {noun} {} say?", place.at),
        ]);
        Some(answered(Kind::ReadByPlace, question, word))
    }

    /// Whether word `i` is alone at a place.
    fn at(&self, i: usize, place: &Place) -> bool {
        place_of(self.words, i, self.size, place)
    }

    fn color_of(&self, i: usize, rng: &mut Rng) -> Option<Qa> {
        let word = &self.words[i];
        let boards: Vec<_> = self.words.iter().filter_map(|word| word.board).collect();
        if let ([board], Some(_)) = (&boards[..], word.board)
            && rng.chance(0.5)
        {
            let question = "what color is the sign?".to_owned();
            let answer = board.color.to_owned();
            return Some(Qa { question, answer, kind: Kind::ColorOf, bbox: Some(board.bbox) });
        }
        if word.decorated {
            return None;
        }
        let question = match self.words.len() {
            1 if rng.chance(0.5) => "what color is the text?".to_owned(),
            _ => format!("what color is the {} {}?", self.sort(i).noun(), word.text.to_lowercase()),
        };
        let answer = word.color.to_owned();
        Some(Qa { question, answer, kind: Kind::ColorOf, bbox: Some(word.bbox) })
    }

    /// The largest and the smallest text, if they are clearly so.
    fn by_size(&self, rng: &mut Rng) -> Vec<Qa> {
        let mut all = Vec::new();
        for (kind, name) in [(Kind::Smallest, "smallest"), (Kind::Largest, "largest")] {
            let clear = |a: f32, b: f32| if kind == Kind::Smallest { b / a >= RATIO } else { a / b >= RATIO };
            let is = |i: usize| {
                let others = (0..self.words.len()).filter(|j| *j != i);
                // By the body and by the capitals: `x` of one can be as high as `H` of the other.
                others
                    .map(|j| (&self.words[i], &self.words[j]))
                    .all(|(a, b)| clear(a.height, b.height) && clear(a.capitals, b.capitals))
            };
            let Some(i) = (0..self.words.len()).find(|i| is(*i)).filter(|_| self.words.len() > 1) else {
                continue;
            };
            let question = rng.choose([
                format!("what does the {name} text say?"),
                format!("what is the {name} text?"),
                format!("what is written in the {name} letters?"),
            ]);
            all.push(answered(kind, question, &self.words[i]));
        }
        all
    }

    fn count(&self, rng: &mut Rng) -> Option<Qa> {
        // How many words there are is always the same question, and needs no reading.
        if rng.chance(0.4) {
            return None;
        }
        let only_words = self.texts.iter().all(|text| text.sort == Sort::Word);
        let question = if only_words && rng.chance(0.7) {
            "how many words are there?"
        } else {
            rng.choose(["how many texts are there?", "how many pieces of text are there?"])
        };
        let answer = self.words.len().to_string();
        Some(Qa { question: question.to_owned(), answer, kind: Kind::Count, bbox: None })
    }

    /// Whether a text is there: one that is, or one that is like it.
    fn present(&self, rng: &mut Rng) -> Option<Qa> {
        let i = rng.below(self.words.len());
        let (text, noun) = (&self.texts[i], self.sort(i).noun());
        let there = rng.chance(0.5);
        let asked = if there { text.answer() } else { self.lexicon.near(text, rng) };
        if !there && self.texts.iter().any(|text| text.answer() == asked) {
            return None;
        }
        let question = rng.choose([
            format!("is the {noun} {asked} there?"),
            format!("is there the {noun} {asked}?"),
            format!("does it say {asked}?"),
        ]);
        let answer = if there { "yes" } else { "no" };
        let bbox = there.then_some(self.words[i].bbox);
        Some(Qa { question, answer: answer.to_owned(), kind: Kind::Present, bbox })
    }

    /// The only number, price or code.
    fn number(&self, rng: &mut Rng) -> Option<Qa> {
        let mut with_digits = (0..self.words.len()).filter(|i| self.sort(*i) != Sort::Word);
        let (i, None) = (with_digits.next()?, with_digits.next()) else { return None };
        let noun = self.sort(i).noun();
        let question = rng.choose([format!("what is the {noun}?"), format!("what {noun} is written here?")]);
        Some(answered(Kind::Number, question, &self.words[i]))
    }
}

/// The smallest box around the boxes of `words`.
fn around(words: &[&Word]) -> Box4 {
    let least = |axis: usize| words.iter().map(|word| word.bbox[axis]).min().unwrap_or_default();
    let most = |axis: usize| words.iter().map(|word| word.bbox[axis] + word.bbox[axis + 2]).max();
    let side = |axis: usize| most(axis).unwrap_or_default() - least(axis);
    [least(0), least(1), side(0), side(1)]
}

/// A side of the image.
pub(crate) struct Place {
    name: &'static str,
    /// With its preposition.
    pub(crate) at: &'static str,
    axis: usize,
    /// Whether coordinates are small there.
    low: bool,
}

pub(crate) const PLACES: [Place; 4] = [
    Place { name: "top", at: "at the top", axis: 1, low: true },
    Place { name: "bottom", at: "at the bottom", axis: 1, low: false },
    Place { name: "left", at: "on the left", axis: 0, low: true },
    Place { name: "right", at: "on the right", axis: 0, low: false },
];

/// Whether word `i` is at a place: its center is in that half, and farther there than that of any other word by
/// a fifth of the image. A single word is at no place.
pub(crate) fn place_of(words: &[Word], i: usize, size: usize, place: &Place) -> bool {
    let center = |word: &Word| 2 * word.bbox[place.axis] + word.bbox[place.axis + 2];
    let (own, size) = (center(&words[i]), 2 * size as i32);
    let before = |other: i32| if place.low { other - own } else { own - other };
    let others = (0..words.len()).filter(|j| *j != i).all(|j| before(center(&words[j])) >= size / 5);
    words.len() > 1 && others && before(size / 2) > 0
}
