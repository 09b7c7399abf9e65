//! A sentence that transcribes all words of a scene.

use crate::lexicon::Text;
use crate::questions::{PLACES, place_of};
use crate::random::Rng;
use crate::scene::Word;

/// A caption with every text of the scene, each with its place or color.
pub(crate) fn caption(words: &[Word], texts: &[Text], size: usize, rng: &mut Rng) -> String {
    let places = rng.chance(0.5);
    let phrase = |i: usize, rng: &mut Rng| {
        let said = phrase(&words[i], &texts[i], rng);
        let place = PLACES.iter().find(|place| places && place_of(words, i, size, place));
        place.map_or(said.clone(), |place| format!("{said} {}", place.at))
    };
    let phrases: Vec<String> = (0..words.len()).map(|i| phrase(i, rng)).collect();
    match &phrases[..] {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        _ => phrases.concat(),
    }
}

fn phrase(word: &Word, text: &Text, rng: &mut Rng) -> String {
    let (said, noun) = (text.answer(), text.sort.noun());
    let article = |rest: &str| {
        format!("{} {rest}", if rest.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" })
    };
    match word.board {
        Some(board) => {
            let sign = article(&match rng.below(3) {
                0 => format!("{} {} sign", board.shape, board.color),
                _ => format!("{} sign", board.color),
            });
            match rng.below(3) {
                0 => format!("{sign} that says {said}"),
                1 => format!("{sign} with the {noun} {said}"),
                _ => format!("{sign} with {said} written on it"),
            }
        }
        None if word.decorated => format!("the {noun} {said}"),
        None => match rng.below(3) {
            0 => format!("the {noun} {said} in {}", word.color),
            1 => format!("the {} {noun} {said}", word.color),
            _ => format!("{said} written in {}", word.color),
        },
    }
}
