//! A model asked in words about pictures, with the nano model's tokenizer and a random network.
#![cfg(feature = "ask")]

use std::path::{Path, PathBuf};

use pheye::image::{Rgb8, Tiles};
use pheye::model::{Config, Options, Pheye};
use pheye::ops::Cx;
use pheye::text::Tokenizer;
use pheye::{Assistant, Error};

fn tokenizer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/tokenizer.json")
}

fn assistant() -> Assistant {
    let config = Config::preset("nano").unwrap();
    let tokenizer = Tokenizer::from_file(tokenizer(), None).unwrap();
    Assistant { model: Pheye::random(&config, 3).unwrap(), tokenizer }
}

/// A picture of one colour with a stripe.
fn picture(seed: u8) -> Rgb8 {
    let (width, height) = (40, 30);
    let pixel = |i: usize| if i % 7 < 3 { [seed, 255 - seed, 90] } else { [200, seed, 10] };
    Rgb8 { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
}

#[test]
fn many_questions_are_answered_as_one_by_one() {
    let (assistant, cx) = (assistant(), Cx::cpu());
    let pictures = [picture(30), picture(220)];
    let tiles: Vec<Tiles> = pictures.iter().map(|p| assistant.preprocess().pixels(p)).collect();
    let (questions, about) =
        (["what color is the shape?", "is it red?", "what shape is in the image?"], [0, 0, 1]);
    let mut streamed = [const { String::new() }; 3];
    let tiles: Vec<&Tiles> = tiles.iter().collect();
    let answers =
        assistant.ask(&cx, &tiles, &questions, &about, 6, |i, piece| streamed[i].push_str(piece)).unwrap();
    for (i, answer) in answers.iter().enumerate() {
        let alone = assistant.answer(&cx, &pictures[about[i]], questions[i], 6).unwrap();
        assert_eq!(*answer, alone);
        assert!((1..=6).contains(&answer.ids.len()));
        // Bytes that make no whole character yet are held back from the stream.
        assert!(answer.text.starts_with(streamed[i].trim()), "{answer:?} {streamed:?}");
    }
    assert!(assistant.ask(&cx, &tiles, &[], &[], 6, |_, _| ()).unwrap().is_empty());
}

#[test]
fn impossible_questions_are_refused() {
    let (assistant, cx) = (assistant(), Cx::cpu());
    let fault = |question: &str| assistant.answer(&cx, &picture(1), question, 4).unwrap_err();
    assert!(matches!(fault("  "), Error::Text(_)));
    let long = fault(&"what color is the shape? ".repeat(60));
    assert!(matches!(long, Error::Text(_)) && long.to_string().contains("128"), "{long}");
    let none = assistant.ask(&cx, &[], &["what?"], &[0], 4, |_, _| ()).unwrap_err();
    assert!(matches!(none, Error::Model(_)), "{none}");
}

#[test]
fn a_folder_is_loaded_with_the_tokenizer_that_fits_it() {
    let path = &Path::new(env!("CARGO_TARGET_TMPDIR")).join("ask");
    let _ = std::fs::remove_dir_all(path);
    assistant().model.save(path).unwrap();
    let fault = || Assistant::load(path, Options::default()).unwrap_err().to_string();
    assert!(fault().contains("tokenizer.json"), "{}", fault());
    std::fs::copy(tokenizer(), path.join("tokenizer.json")).unwrap();
    let loaded = Assistant::load(path, Options::default()).unwrap();
    let (question, cx) = ("is there a circle?", Cx::cpu());
    let answer = |a: &Assistant| a.answer(&cx, &picture(9), question, 5).unwrap();
    assert_eq!(answer(&loaded), answer(&assistant()));

    let mut small = Config::preset("nano").unwrap();
    small.text.vocab_size = 100;
    Pheye::random(&small, 1).unwrap().save(path).unwrap();
    assert!(fault().contains("100"), "{}", fault());
}
