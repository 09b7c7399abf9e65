//! Options: what they change, and the message for each that cannot be used.

use std::fs;
use std::path::{Path, PathBuf};

use pheye_scene::{Generator, Options};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[track_caller]
fn refused(options: Options, parts: &[&str]) {
    let error = Generator::new(&options).err().expect("the options are refused");
    let text = pheye_files::chain(&error);
    parts.iter().for_each(|part| assert!(text.contains(part), "no `{part}` in: {text}"));
}

fn default() -> Options {
    Options::default()
}

#[test]
fn values_out_of_range() {
    refused(Options { size: 31, ..default() }, &["size", "31", "32"]);
    refused(Options { size: 5000, ..default() }, &["size", "5000", "1024"]);
    refused(Options { max_words: 0, ..default() }, &["max-words", "0"]);
    refused(Options { max_words: 4, ..default() }, &["max-words", "4"]);
    refused(Options { min_height: 2.0, ..default() }, &["min-height", "2 pixels", "4"]);
    refused(Options { min_height: f32::NAN, ..default() }, &["min-height", "NaN"]);
    refused(Options { min_height: 20.0, size: 32, ..default() }, &["size", "32", "20", "40"]);
    refused(Options { max_height: Some(6.0), ..default() }, &["max-height", "6", "min-height"]);
    refused(Options { max_height: Some(f32::INFINITY), ..default() }, &["max-height", "72"]);
}

#[test]
fn heights_and_counts_are_kept() {
    let options = Options { size: 96, min_height: 9.0, max_height: Some(10.0), max_words: 1, ..default() };
    let generator = Generator::new(&options).unwrap();
    for scene in (0..100).map(|i| generator.scene(i)) {
        assert_eq!((scene.image.width, scene.image.height, scene.words.len()), (96, 96, 1));
        assert!((9.0..=10.0).contains(&scene.words[0].height));
    }
}

#[test]
fn every_size_has_scenes() {
    for size in [32, 33, 47, 200, 1024] {
        let generator = Generator::new(&Options { size, ..default() }).unwrap();
        for i in 0..if size > 500 { 2 } else { 60 } {
            assert!(!generator.scene(i).words.is_empty());
        }
    }
}

#[test]
fn own_fonts_backgrounds_and_words() {
    let dir = tempfile::tempdir().unwrap();
    let (fonts, images) = (dir.path().join("fonts"), dir.path().join("images"));
    fs::create_dir_all(&fonts).unwrap();
    fs::create_dir_all(&images).unwrap();
    fs::copy(data("ComicNeue-Regular.otf"), fonts.join("Comic.otf")).unwrap();
    fs::copy(data("coffee.jpg"), images.join("coffee.jpg")).unwrap();
    let words = dir.path().join("words.txt");
    fs::write(&words, "# two words\nÜber zug\n").unwrap();
    let options = Options { fonts: Some(fonts), backgrounds: Some(images), words: Some(words), ..default() };
    let generator = Generator::new(&options).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for word in (0..60).flat_map(|i| generator.scene(i).words) {
        assert_eq!(word.font, "Comic");
        if word.text.chars().all(char::is_alphabetic) && word.text.chars().count() > 2 {
            seen.insert(word.text.to_lowercase());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["zug", "über"]);
}

#[test]
fn folders_and_files_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let fonts = |name: &str| Options { fonts: Some(path(name)), ..default() };
    let images = |name: &str| Options { backgrounds: Some(path(name)), ..default() };
    let words = |name: &str| Options { words: Some(path(name)), ..default() };
    fs::create_dir(path("empty")).unwrap();
    refused(fonts("empty"), &["empty", "0 fonts", ".ttf"]);
    refused(fonts("none"), &["none", "cannot be read"]);
    refused(images("empty"), &["empty", "0 images", ".png"]);

    fs::create_dir(path("bad")).unwrap();
    fs::write(path("bad/a.otf"), "not a font").unwrap();
    fs::write(path("bad/a.png"), "not an image").unwrap();
    refused(fonts("bad"), &["a.otf", "not a TrueType or OpenType font"]);
    refused(images("bad"), &["background", "a.png", "not an image"]);

    fs::create_dir(path("latin")).unwrap();
    fs::copy(data("ComicNeue-Regular.otf"), path("latin/Comic.otf")).unwrap();
    fs::write(path("greek.txt"), "καφε").unwrap();
    let both = Options { words: Some(path("greek.txt")), ..fonts("latin") };
    refused(both, &["Comic.otf", "no glyph", "κ"]);

    fs::write(path("none.txt"), "# nothing\n").unwrap();
    refused(words("none.txt"), &["none.txt", "no word"]);
    fs::write(path("marks.txt"), "cafe\nbar, pub\n").unwrap();
    refused(words("marks.txt"), &["marks.txt, line 2", "`bar,`"]);
    fs::write(path("sharp.txt"), "straße").unwrap();
    refused(words("sharp.txt"), &["sharp.txt, line 1", "straße", "capitals"]);
    fs::write(path("long.txt"), "abcdefghijklmnopqrst").unwrap();
    refused(words("long.txt"), &["max-height", "28 pixels", "abcdefghijklmnopqrst"]);
    refused(words("missing.txt"), &["missing.txt", "cannot be read"]);
}
