//! Scenes: reproducible, readable, and with answers that follow from their words.

use std::collections::BTreeMap;

use pheye_scene::{Generator, Kind, Options, Scene};

fn generator(seed: u64) -> Generator {
    Generator::new(&Options { seed, ..Options::default() }).unwrap()
}

fn scenes(seed: u64, n: u64) -> Vec<Scene> {
    let generator = generator(seed);
    (0..n).map(|i| generator.scene(i)).collect()
}

/// A checksum of pixels and manifest lines.
fn print(scenes: &[Scene]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for scene in scenes {
        crc.update(&scene.image.pixels);
        crc.update(scene.line("image").as_bytes());
    }
    crc.finalize()
}

/// A change of this number is a change of every data set: it belongs into the changelog.
#[test]
fn the_first_scenes_are_known() {
    let first = scenes(7, 20);
    assert_eq!(print(&first), 3_070_280_276, "the scenes have changed");
}

#[test]
fn a_scene_depends_on_seed_and_number_alone() {
    let one = generator(7);
    let later = [one.scene(5), one.scene(3)];
    let all = scenes(7, 6);
    assert_eq!(print(&later[..1]), print(&all[5..]));
    assert_eq!(print(&later[1..]), print(&all[3..4]));
    assert_ne!(print(&all), print(&scenes(8, 6)));
}

#[test]
fn words_are_apart_and_inside() {
    for scene in scenes(1, 400) {
        let size = scene.image.width as i32;
        assert!((1..=3).contains(&scene.words.len()));
        for (i, word) in scene.words.iter().enumerate() {
            let [x, y, w, h] = word.bbox;
            assert!(x >= 0 && y >= 0 && w > 0 && h > 0 && x + w <= size && y + h <= size, "{word:?}");
            for other in &scene.words[..i] {
                let [ox, oy, ow, oh] = other.bbox;
                let apart = x + w <= ox || ox + ow <= x || y + h <= oy || oy + oh <= y;
                assert!(apart, "{word:?} {other:?}");
            }
        }
    }
}

/// A level text that has no descender is as high as it says.
#[test]
fn heights_are_those_of_the_ink() {
    let mut checked = 0;
    for scene in scenes(2, 600) {
        for word in &scene.words {
            let capitals = word.text.bytes().all(|c| c.is_ascii_uppercase() && c != b'J' && c != b'Q');
            let level = word.angle == 0 && !["Lobster", "DancingScript-Bold"].contains(&word.font.as_str());
            if capitals && level {
                let high = word.bbox[3] as f32;
                assert!((high - word.height).abs() < 2.0 + 0.1 * word.height, "{word:?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn heights_are_log_uniform() {
    let (mut thirds, mut small, mut large) = ([0; 3], f32::MAX, 0.0f32);
    for word in scenes(3, 1500).iter().flat_map(|scene| &scene.words) {
        let part = (word.height / 7.0).ln() / 4f32.ln();
        thirds[((part * 3.0) as usize).min(2)] += 1;
        (small, large) = (small.min(word.height), large.max(word.height));
    }
    let all: i32 = thirds.iter().sum();
    assert!(thirds.iter().all(|n| (f64::from(*n) / f64::from(all) - 1.0 / 3.0).abs() < 0.05), "{thirds:?}");
    assert!(small < 7.1 && large > 27.5, "{small} {large}");
}

#[test]
fn answers_follow_from_the_words() {
    let mut kinds: BTreeMap<Kind, u32> = BTreeMap::new();
    let mut yes = 0;
    for scene in scenes(4, 1000) {
        for qa in &scene.qa {
            *kinds.entry(qa.kind).or_default() += 1;
            assert!(qa.question.ends_with('?') && qa.question.to_lowercase() == qa.question, "{qa:?}");
            assert_eq!(qa.answer.to_lowercase(), qa.answer);
            let word = scene.words.iter().find(|word| Some(word.bbox) == qa.bbox);
            let lower = |word: &pheye_scene::Word| word.text.to_lowercase();
            match qa.kind {
                Kind::Count => assert_eq!(qa.answer, scene.words.len().to_string()),
                Kind::ColorOf => {
                    let signs = scene.words.iter().filter_map(|word| word.board);
                    let sign = signs.map(|sign| sign.color).find(|_| qa.question.contains("the sign"));
                    assert_eq!(Some(qa.answer.as_str()), sign.or(word.map(|word| word.color)), "{qa:?}");
                }
                Kind::ReadAll => {
                    let mut texts: Vec<String> = scene.words.iter().map(lower).collect();
                    let mut answered: Vec<&str> = qa.answer.split(' ').collect();
                    texts.sort();
                    answered.sort_unstable();
                    assert_eq!(texts, answered);
                }
                Kind::Present => {
                    let there = scene.words.iter().any(|word| {
                        qa.question.trim_end_matches('?').split(' ').any(|part| part == lower(word))
                    });
                    assert_eq!(qa.answer == "yes", there, "{qa:?} {:?}", scene.words);
                    assert_eq!(qa.bbox.is_some(), there);
                    yes += u32::from(there);
                }
                _ => assert_eq!(Some(&qa.answer), word.map(lower).as_ref(), "{qa:?}"),
            }
            let by = |pick: fn(f32, f32) -> f32| scene.words.iter().map(|word| word.height).reduce(pick);
            match qa.kind {
                Kind::Smallest => assert_eq!(by(f32::min), word.map(|word| word.height)),
                Kind::Largest => assert_eq!(by(f32::max), word.map(|word| word.height)),
                Kind::Read => assert_eq!(scene.words.len(), 1),
                _ => {}
            }
        }
        let missing = scene.words.iter().find(|word| !scene.caption.contains(&word.text.to_lowercase()));
        assert!(missing.is_none(), "{} lacks {missing:?}", scene.caption);
    }
    assert!(kinds.len() == 10 && kinds.values().all(|n| *n > 100), "{kinds:?}");
    let share = f64::from(yes) / f64::from(kinds[&Kind::Present]);
    assert!((share - 0.5).abs() < 0.06, "{share}");
}

/// A question by a color or place has one answer: the same question never stands for another word of the scene.
#[test]
fn questions_are_unambiguous() {
    for scene in scenes(5, 1000) {
        let answers: BTreeMap<_, _> = scene.qa.iter().map(|qa| (&qa.question, &qa.answer)).collect();
        assert!(scene.qa.iter().all(|qa| answers[&qa.question] == &qa.answer), "{:?}", scene.qa);
        for qa in scene.qa.iter().filter(|qa| qa.kind == Kind::ReadByColor) {
            let on_sign = qa.question.contains("sign");
            let same = scene.words.iter().filter(|word| {
                let color = if on_sign { word.board.map(|sign| sign.color) } else { Some(word.color) };
                color.is_some_and(|color| qa.question.split([' ', '?']).any(|part| part == color))
            });
            assert_eq!(same.count(), 1, "{qa:?} {:?}", scene.words);
        }
    }
}

/// Relative luminance (WCAG 2.1).
fn luminance(p: &[u8]) -> f64 {
    let linear = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(p[0]) + 0.7152 * linear(p[1]) + 0.0722 * linear(p[2])
}

/// After noise and blur, the lightest and the darkest pixels in the box of a text differ clearly: one of the two
/// is the text.
#[test]
fn texts_stand_out() {
    for scene in scenes(6, 400) {
        for word in &scene.words {
            let [x, y, w, h] = word.bbox.map(|v| v as usize);
            let rows = (y..y + h).map(|y| &scene.image.pixels[3 * (y * scene.image.width + x)..][..3 * w]);
            let mut levels: Vec<f64> = rows.flat_map(|row| row.chunks_exact(3).map(luminance)).collect();
            levels.sort_by(f64::total_cmp);
            let n = levels.len() - 1;
            let contrast = (levels[n - n / 20] + 0.05) / (levels[n / 20] + 0.05);
            assert!(contrast > 2.2, "{contrast} {word:?}");
        }
    }
}

#[test]
fn files_decode_to_the_image() {
    let scene = generator(9).scene(0);
    let options = pheye_image::DecodeOptions::default();
    let png = pheye_image::decode(&scene.png().unwrap(), "png", &options).unwrap();
    assert_eq!(png, scene.image);
    let jpeg = pheye_image::decode(&scene.jpeg(95).unwrap(), "jpeg", &options).unwrap();
    let apart = |(a, b): (&u8, &u8)| u64::from(a.abs_diff(*b));
    let sum: u64 = jpeg.pixels.iter().zip(&scene.image.pixels).map(apart).sum();
    assert!(sum < 8 * scene.image.pixels.len() as u64, "{sum}");
}

/// Plain scenes have black words of the lexicon over white, and are asked what is written in them.
#[test]
fn plain_scenes_are_for_reading_alone() {
    let generator = Generator::new(&Options { plain: true, size: 96, ..Options::default() }).unwrap();
    let mut several = 0;
    for i in 0..200 {
        let scene = generator.scene(i);
        assert!(scene.image.pixels.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]), "scene {i} has colors");
        assert_eq!(scene.image.pixels[..3], [255; 3]);
        for word in &scene.words {
            let plain = word.board.is_none() && word.angle == 0 && !word.decorated && word.color == "black";
            assert!(plain && word.text.chars().all(char::is_alphabetic), "{word:?}");
        }
        for qa in &scene.qa {
            assert!(matches!(qa.kind, Kind::Read | Kind::ReadAll), "{qa:?}");
        }
        several += usize::from(scene.qa.iter().any(|qa| qa.kind == Kind::ReadAll));
    }
    assert!(several > 20, "{several}");
}

/// All texts are read from top to bottom, and their box holds all of theirs.
#[test]
fn all_texts_are_read_from_top_to_bottom() {
    let generator = Generator::new(&Options::default()).unwrap();
    let mut found = 0;
    for i in 0..300 {
        let scene = generator.scene(i);
        let Some(qa) = scene.qa.iter().find(|qa| qa.kind == Kind::ReadAll) else { continue };
        let mut words: Vec<_> = scene.words.iter().collect();
        words.sort_by_key(|word| 2 * word.bbox[1] + word.bbox[3]);
        let texts: Vec<String> = words.iter().map(|word| word.text.to_lowercase()).collect();
        assert_eq!(qa.answer, texts.join(" "));
        let [x, y, w, h] = qa.bbox.unwrap();
        for [a, b, c, d] in words.iter().map(|word| word.bbox) {
            assert!(x <= a && y <= b && a + c <= x + w && b + d <= y + h);
        }
        found += 1;
    }
    assert!(found > 30, "{found}");
}
