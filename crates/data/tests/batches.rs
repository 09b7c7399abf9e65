//! The contents of batches, and that they depend only on the position.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{easy_vqa, encode, loader, manifest, options, texts};
use pheye_data::{
    Augmentation, Batch, Content, Error, Loader, LoaderOptions, Manifest, Mixture, OnBroken, Prefetch,
};
use pheye_image::Preprocess;

fn easy() -> Vec<Manifest> {
    vec![Manifest::open(easy_vqa("test")).unwrap()]
}

fn take(loader: Loader, from: u64, ahead: usize, n: usize) -> Vec<Batch> {
    let mut batches = Prefetch::new(Arc::new(loader), from, ahead);
    (0..n).map(|_| batches.next_batch().unwrap()).collect()
}

#[test]
fn prefetch_cache_and_the_start_change_nothing() {
    // The last two batches are in the second epoch.
    let from = 1000 - 16;
    let plain = take(loader(easy(), LoaderOptions { cache_bytes: 0, ..options() }), from, 0, 4);
    assert_eq!(plain, take(loader(easy(), options()), from, 3, 4));
    assert_eq!(plain[2..], take(loader(easy(), options()), from + 16, 1, 2));
    let mut small = Prefetch::new(Arc::new(loader(easy(), options())), from, 2);
    small.next_batch().unwrap();
    assert_eq!(small.position(), from + 8);
}

#[test]
fn a_batch_holds_images_with_some_of_their_questions() {
    let loader = loader(easy(), options());
    let batch = loader.batch(40).unwrap();
    assert_eq!((batch.images.len(), batch.sequences.len()), (8, 24));
    for (i, sequence) in batch.sequences.iter().enumerate() {
        assert_eq!(sequence.image, i / 3);
        let item = loader.mixture().item(&loader.mixture().draw(40 + i as u64 / 3)).unwrap();
        let (question, answer) = sequence.ids.split_at(sequence.loss_from);
        let text = |ids: &[u32]| String::from_utf8(ids.iter().map(|b| *b as u8).collect()).unwrap();
        assert!(item.qa.contains(&(text(question), text(answer))));
    }
    let tiles = &batch.images[0].tiles;
    assert_eq!((tiles.global.len(), tiles.local.len()), (3 * 16 * 16, 4 * 3 * 16 * 16));
    assert!(batch.images[0].name.contains("test.zip: images/"));
}

#[test]
fn every_question_gets_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let qa: Vec<_> = (0..5).map(|i| format!("[\"q{i}\", \"a{i}\"]")).collect();
    let line = format!("{{\"image\": \"x.png\", \"qa\": [{}]}}", qa.join(","));
    std::fs::write(dir.path().join("x.png"), easy()[0].store.read("images/0.png").unwrap()).unwrap();
    let data = vec![manifest(dir.path(), "m.jsonl", &[line])];
    let loader = loader(data, LoaderOptions { batch: 1, questions: Some(2), ..options() });
    let mut seen = Vec::new();
    for position in 0..5 {
        let ids: Vec<_> = loader.batch(position).unwrap().sequences.into_iter().map(|s| s.ids).collect();
        assert_ne!(ids[0], ids[1]);
        seen.extend(ids);
    }
    // Five passes with two questions each use each of the five questions twice.
    assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (10, 5));
}

#[test]
fn augmentation_is_drawn_anew_in_every_pass() {
    let pixels = |augmentation, epoch: u64| {
        let loader = loader(easy(), LoaderOptions { augmentation, batch: 1, ..options() });
        let target = loader.mixture().draw(0).item;
        let position = (0..1000).map(|p| epoch * 1000 + p).find(|p| loader.mixture().draw(*p).item == target);
        loader.batch(position.unwrap()).unwrap().images.remove(0)
    };
    let (still, moving) = (Augmentation::default(), Augmentation::parse(&["shift:9", "rot90"]).unwrap());
    assert_eq!(pixels(still, 0), pixels(still, 1));
    assert_ne!(pixels(moving, 0), pixels(moving, 1));
    for wrong in ["flip", "shift:", "shift:-1", "shift:x", ""] {
        assert!(matches!(Augmentation::parse(&[wrong]), Err(Error::Augmentation(name)) if name == wrong));
    }
}

#[test]
fn captions_and_texts() {
    let captions = loader(easy(), LoaderOptions { content: Content::Captions, ..options() });
    assert_eq!(captions.mixture().epoch_len(), 988);
    let batch = captions.batch(0).unwrap();
    assert!(batch.sequences.iter().enumerate().all(|(i, s)| s.image == i && s.loss_from == 0));

    let dir = tempfile::tempdir().unwrap();
    let data = vec![texts(dir.path(), "t.jsonl", 9)];
    let batch = loader(data, LoaderOptions { content: Content::Text, ..options() }).batch(4).unwrap();
    assert_eq!((batch.images.len(), batch.sequences.len()), (0, 8));
    assert!(batch.sequences.iter().enumerate().all(|(i, s)| s.image == i));
}

/// Three images: the second is damaged, and the question of the third is too long (with `Stop`, the third is
/// removed).
fn broken(on_broken: OnBroken) -> (tempfile::TempDir, Loader) {
    let dir = tempfile::tempdir().unwrap();
    let png = easy()[0].store.read("images/0.png").unwrap();
    std::fs::write(dir.path().join("0.png"), &png).unwrap();
    std::fs::write(dir.path().join("1.png"), &png[..png.len() / 2]).unwrap();
    std::fs::write(dir.path().join("2.png"), &png).unwrap();
    let line = |i: usize| {
        let question = if i == 2 { "x".repeat(600) } else { "?".into() };
        format!("{{\"image\": \"{i}.png\", \"qa\": [[\"{question}\", \"no\"]]}}")
    };
    let mut data = manifest(dir.path(), "m.jsonl", &[line(0), line(1), line(2)]);
    if on_broken == OnBroken::Stop {
        data.items.truncate(2);
    }
    let mixture = Mixture::new(vec![data], None, Content::Questions, 0).unwrap();
    let options =
        LoaderOptions { batch: mixture.epoch_len() as usize, on_broken, cache_bytes: 0, ..options() };
    let loader = Loader::new(mixture, Preprocess::new(16, 1), encode(), options).unwrap();
    (dir, loader)
}

#[test]
fn a_broken_image_stops_the_run_by_name() {
    let (_dir, loader) = broken(OnBroken::Stop);
    let mut batches = Prefetch::new(Arc::new(loader), 0, 2);
    let error = batches.next_batch().unwrap_err();
    let Error::Item { name, line: 2, source } = &error else { panic!("{error:?}") };
    assert!(name.ends_with("m.jsonl") && matches!(**source, Error::Image(_)), "{error:?}");
    assert!(source.to_string().contains("1.png"), "{error:?}");
    assert!(matches!(batches.next_batch(), Err(Error::Stopped)));
    assert_eq!(batches.position(), 0);
}

#[test]
fn or_is_skipped_by_name() {
    let (_dir, loader) = broken(OnBroken::Skip);
    let batch = loader.batch(0).unwrap();
    assert_eq!((batch.images.len(), batch.sequences.len(), batch.skipped.len()), (1, 1, 2));
    assert!(batch.skipped.iter().any(|s| s.contains("1.png")));
    assert!(batch.skipped.iter().any(|s| s.contains("m.jsonl, line 3: 602 tokens")), "{:?}", batch.skipped);
}

#[test]
fn empty_batches_are_refused() {
    for (options, option) in [
        (LoaderOptions { batch: 0, ..options() }, "batch"),
        (LoaderOptions { questions: Some(0), ..options() }, "questions"),
    ] {
        let mixture = Mixture::new(easy(), None, Content::Questions, 0).unwrap();
        let error = Loader::new(mixture, Preprocess::new(16, 1), encode(), options).err();
        assert!(matches!(error, Some(Error::Zero { option: o }) if o == option));
    }
}
