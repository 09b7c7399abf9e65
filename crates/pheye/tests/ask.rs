//! Asking a model questions about images, with the nano model's tokenizer and a random network.
#![cfg(feature = "ask")]

use std::path::{Path, PathBuf};

use pheye::image::{Rgb8, Tiles};
use pheye::model::{Config, GenerationConfig, Options, Pheye};
use pheye::ops::Cx;
use pheye::text::Tokenizer;
use pheye::{Assistant, Error, OnText};

fn tokenizer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/tokenizer.json")
}

fn assistant() -> Assistant {
    let config = Config::preset("nano").unwrap();
    let tokenizer = Tokenizer::from_file(tokenizer(), None).unwrap();
    Assistant { model: Pheye::random(&config, 3).unwrap(), tokenizer }
}

/// An image of two colours in stripes.
fn image(seed: u8) -> Rgb8 {
    let (width, height) = (40, 30);
    let pixel = |i: usize| if i % 7 < 3 { [seed, 255 - seed, 90] } else { [200, seed, 10] };
    Rgb8 { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
}

#[test]
fn many_questions_are_answered_as_one_by_one() {
    let (assistant, cx) = (assistant(), Cx::cpu());
    let images = [image(30), image(220)];
    let tiles: Vec<Tiles> = images.iter().map(|p| assistant.preprocess().pixels(p)).collect();
    let (questions, about) =
        (["what color is the shape?", "is it red?", "what shape is in the image?"], [0, 0, 1]);
    let mut streamed = [const { String::new() }; 3];
    let tiles: Vec<&Tiles> = tiles.iter().collect();
    let how = GenerationConfig::greedy(6);
    let mut on_text = |i: usize, piece: &str| streamed[i].push_str(piece);
    let answers = assistant.ask(&cx, &tiles, &questions, &about, &how, Some(&mut on_text)).unwrap();
    for (i, answer) in answers.iter().enumerate() {
        let alone = assistant.answer(&cx, &images[about[i]], questions[i], &how).unwrap();
        assert_eq!(*answer, alone);
        assert!((1..=6).contains(&answer.ids.len()));
        assert_eq!(answer.text, streamed[i].trim());
    }
    assert!(assistant.ask(&cx, &tiles, &[], &[], &how, None).unwrap().is_empty());
}

#[test]
fn impossible_questions_are_refused() {
    let (assistant, cx) = (assistant(), Cx::cpu());
    let fault = |question: &str| {
        assistant.answer(&cx, &image(1), question, &GenerationConfig::greedy(4)).unwrap_err()
    };
    assert!(matches!(fault("  "), Error::Text(_)));
    let long = fault(&"what color is the shape? ".repeat(60));
    assert!(matches!(long, Error::Text(_)) && long.to_string().contains("128"), "{long}");
    let none = assistant.ask(&cx, &[], &["what?"], &[0], &GenerationConfig::greedy(4), None).unwrap_err();
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
    let answer = |a: &Assistant| a.answer(&cx, &image(9), question, &GenerationConfig::greedy(5)).unwrap();
    assert_eq!(answer(&loaded), answer(&assistant()));

    let mut small = Config::preset("nano").unwrap();
    small.text.vocab_size = 100;
    Pheye::random(&small, 1).unwrap().save(path).unwrap();
    assert!(fault().contains("100"), "{}", fault());
}

#[test]
fn stop_strings_end_answers_wherever_tokens_do() {
    let (assistant, cx) = (assistant(), Cx::cpu());
    let (tiles, question) = (assistant.preprocess().pixels(&image(9)), ["what color is the shape?"]);
    let ask = |how: &GenerationConfig, on_text: Option<&mut OnText>| {
        assistant.ask(&cx, &[&tiles], &question, &[0], how, on_text).unwrap()
    };
    let open = ask(&GenerationConfig::greedy(12), None).swap_remove(0);
    // A stop string of two characters that belong to different tokens, in the middle of the answer.
    let texts: Vec<String> =
        (0..=open.ids.len()).map(|n| assistant.tokenizer.decode(&open.ids[..n]).unwrap()).collect();
    let whole = texts.last().unwrap();
    let border = texts.iter().map(String::len).find(|&n| n > 3 && whole.is_char_boundary(n - 1)).unwrap();
    let stop = whole[border - 1..].chars().take(2).collect::<String>();
    let until = whole[..whole.find(&stop).unwrap()].trim();
    for how in [
        GenerationConfig {
            stop_strings: vec!["never there".into(), stop.clone()],
            ..GenerationConfig::greedy(12)
        },
        GenerationConfig {
            num_return_sequences: 1,
            stop_strings: vec![stop.clone()],
            ..GenerationConfig::greedy(12)
        },
    ] {
        let mut streamed = String::new();
        let mut on_text = |_: usize, piece: &str| streamed.push_str(piece);
        let answer = ask(&how, Some(&mut on_text)).swap_remove(0);
        assert_eq!((answer.text.as_str(), streamed.trim()), (until, until), "{stop:?} in {whole:?}");
        assert!(answer.ids.len() < open.ids.len() && open.ids.starts_with(&answer.ids));
    }
}

#[test]
fn beams_and_samples_answer_each_question_several_times() {
    let (assistant, cx) = (assistant(), Cx::cpu());
    let tiles = [image(9), image(200)].map(|p| assistant.preprocess().pixels(&p));
    let tiles: Vec<&Tiles> = tiles.iter().collect();
    let ask = |how: &GenerationConfig| {
        assistant.ask(&cx, &tiles, &["what is it?", "is it red?"], &[0, 1], how, None).unwrap()
    };
    let plain = GenerationConfig::greedy(6);
    let beams = GenerationConfig { num_beams: 4, num_return_sequences: 2, ..plain.clone() };
    let samples = GenerationConfig { do_sample: true, num_return_sequences: 3, seed: 5, ..plain };
    for how in [&beams, &samples] {
        let answers = ask(how);
        assert_eq!(answers.len(), 2 * how.num_return_sequences);
        assert_eq!(answers, ask(how));
        assert!(answers.chunks(how.num_return_sequences).all(|a| a[0] != a[1]), "{answers:?}");
    }
    let mut on_text = |_: usize, _: &str| ();
    let fault = assistant.ask(&cx, &tiles, &["what?"], &[0], &beams, Some(&mut on_text)).unwrap_err();
    assert!(fault.to_string().starts_with("num_beams"), "{fault}");
}
