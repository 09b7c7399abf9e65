//! What is drawn from published sources: turns, weights, counts, prompts, and the same after a resume.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::{easy_vqa, encode, options};
use pheye_data::{
    CheckOptions, Content, Format, Loader, LoaderOptions, Manifest, Mixture, OnBroken, PartConfig, Prompt,
    Source, SourceConfig, Turns, check,
};
use pheye_image::Preprocess;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A conversation file about the images `0.png` to `4.png`; image i has i + 1 turns.
fn conversations(dir: &Path) -> SourceConfig {
    let turn = |i: usize, t: usize| {
        format!(
            "{{\"from\": \"human\", \"value\": \"q{i}.{t}\"}}, {{\"from\": \"gpt\", \"value\": \"a{i}.{t}\"}}"
        )
    };
    let row = |i: usize| {
        let turns: Vec<_> = (0..=i).map(|t| turn(i, t)).collect();
        format!("{{\"image\": \"{i}.png\", \"conversations\": [{}]}}", turns.join(", "))
    };
    let rows: Vec<_> = (0..5).map(row).collect();
    let path = dir.join("c.json");
    fs::write(&path, format!("[{}]", rows.join(","))).unwrap();
    SourceConfig::new(Format::Conversation, path)
}

fn images(dir: &Path) {
    let store = Manifest::open(easy_vqa("test")).unwrap().store;
    for i in 0..5 {
        fs::write(dir.join(format!("{i}.png")), store.read(&format!("images/{i}.png")).unwrap()).unwrap();
    }
}

fn loader(configs: &[SourceConfig], options: LoaderOptions) -> Loader {
    let sources = configs.iter().map(|config| Source::open(config, None).unwrap()).collect();
    let mixture = Mixture::new::<Source>(sources, None, options.content, 11).unwrap();
    Loader::new(mixture, Preprocess::new(16, 1), encode(), options).unwrap()
}

/// The texts of the samples from `from` to `to`.
fn texts(loader: &Loader, from: u64, to: u64) -> Vec<String> {
    let step = loader.batch_len();
    let batches = (from..to).step_by(step as usize).map(|position| loader.batch(position).unwrap());
    let text = |ids: Vec<u32>| String::from_utf8(ids.into_iter().map(|b| b as u8).collect()).unwrap();
    batches.flat_map(|batch| batch.sequences).map(|sequence| text(sequence.ids)).collect()
}

#[test]
fn turns_are_samples_and_all_get_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    let config = conversations(dir.path());
    let one = |turns| SourceConfig { turns: Some(turns), ..config.clone() };
    let options = LoaderOptions { batch: 1, questions: None, ..options() };
    for (turns, samples) in [(Turns::Some(1), 5), (Turns::Some(2), 9), (Turns::All, 15)] {
        let loader = loader(&[one(turns)], options.clone());
        assert_eq!(loader.mixture().epoch_len(), samples);
        let pass = texts(&loader, 0, samples);
        assert_eq!(pass.iter().collect::<BTreeSet<_>>().len() as u64, samples, "{pass:?}");
        let of_largest = |text: &&String| text.starts_with("q4.");
        let n = match turns {
            Turns::Some(n) => n as usize,
            Turns::All => 5,
        };
        assert_eq!(pass.iter().filter(of_largest).count(), n);
        // Five passes use each of five turns equally often.
        let mut seen = BTreeMap::new();
        for text in texts(&loader, 0, 5 * samples).into_iter().filter(|text| text.starts_with("q4.")) {
            *seen.entry(text).or_insert(0) += 1;
        }
        assert_eq!(seen.into_values().collect::<Vec<_>>(), [n; 5]);
    }
}

#[test]
fn weights_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let config = conversations(dir.path());
    let lrv = SourceConfig::new(Format::Lrv, file("filter_cap1.json"));
    let shares = |configs: &[SourceConfig]| -> Vec<u64> {
        loader(configs, options()).mixture().summaries().iter().map(|s| s.samples).collect()
    };
    let doubled = SourceConfig { weight: Some(2.0), ..config.clone() };
    let counted = SourceConfig { count: Some(7), ..lrv };
    assert_eq!(shares(&[config.clone(), doubled, counted]), [5, 10, 7]);
    let mut mix = SourceConfig::new(Format::Mix665k, file("llava_v1_5_mix665k.json"));
    let part = |weight, turns| PartConfig { weight, turns, prompt: None };
    mix.parts = BTreeMap::from([
        ("llava".into(), part(Some(0.0), None)),
        ("vqav2".into(), part(Some(3.0), Some(Turns::Some(1)))),
    ]);
    assert_eq!(shares(&[mix.clone()]), [6 + 2 + 1 + 1 + 1]);
    for count in [1, 10, 1000, 1001] {
        assert_eq!(shares(&[SourceConfig { count: Some(count), ..mix.clone() }]), [count]);
    }
    // The draws are those that the summary counts.
    let loader = loader(&[config, mix], options());
    let m = loader.mixture();
    let drawn = (0..m.epoch_len()).filter(|p| m.draw(*p).source == 1).count();
    assert_eq!((m.epoch_len(), drawn), (16, 11));
}

#[test]
fn drawn_questions_have_the_prompt_of_their_part() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["coco/train2017", "gqa/images", "ocr_vqa/images", "textvqa/train_images"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let png = Manifest::open(easy_vqa("test")).unwrap().store.read("images/0.png").unwrap();
    for image in (1..5)
        .map(|i| format!("coco/train2017/{i:012}.jpg"))
        .chain(["gqa/images/10.jpg", "ocr_vqa/images/1.jpg", "textvqa/train_images/11.jpg"].map(String::from))
    {
        fs::write(dir.path().join(image), &png).unwrap();
    }
    let mut mix = SourceConfig::new(Format::Mix665k, file("llava_v1_5_mix665k.json"));
    mix.images = Some(dir.path().into());
    let loader = loader(&[mix], LoaderOptions { batch: 1, ..options() });
    let seen: BTreeSet<String> = texts(&loader, 0, 10 * 9).into_iter().collect();
    let short = "\nAnswer the question using a single word or phrase.";
    let letter = "\nAnswer with the option's letter from the given choices directly.";
    let expected: BTreeSet<String> = [
        "Describe it.A long story.".to_owned(),
        "And then?It ends.".into(),
        format!("Is it red?{short}Yes"),
        format!("How many?{short}2"),
        format!("What sport?{short}Golf"),
        format!("What is it for?{short}drinking"),
        format!("Who is it?\nA. a cat\nB. a dog{letter}B"),
        format!("Where is it?\nA. home\nB. away{letter}A"),
        format!("Is it on the left?{short}Yes"),
        format!("Who wrote it?{short}A. B."),
        "Provide a one-sentence caption for the provided image.A red can.".into(),
    ]
    .into();
    assert_eq!(seen, expected);
}

/// An instruction of one's own takes the place of the question, also where a manifest has questions.
#[test]
fn a_text_may_stand_for_the_question() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    let line =
        |i: usize| format!("{{\"image\": \"{i}.png\", \"qa\": [[\"q\", \"a\"]], \"caption\": \"c{i}\"}}");
    let path = dir.path().join("m.jsonl");
    fs::write(&path, [line(0), line(1)].join("\n")).unwrap();
    let prompt = Some(Prompt::Only("This image shows ".into()));
    let config = SourceConfig { prompt, ..SourceConfig::new(Format::Lines, path) };
    let loader = loader(&[config], LoaderOptions { batch: 1, ..options() });
    let mut seen = texts(&loader, 0, 2);
    seen.sort();
    assert_eq!(seen, ["This image shows c0", "This image shows c1"]);
}

#[test]
fn a_resumed_run_draws_the_same() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    let lines: Vec<_> =
        (0..5).map(|i| format!("{{\"image\": \"{i}.png\", \"caption\": \"c{i}\"}}")).collect();
    fs::write(dir.path().join("m.jsonl"), lines.join("\n")).unwrap();
    let gqa = r#"{"1": {"imageId": 0, "question": "q", "answer": "a"}, "2": {"imageId": 1, "question": "r", "answer": "b"}}"#;
    fs::write(dir.path().join("gqa.json"), gqa).unwrap();
    let mut captions = SourceConfig::new(Format::Lines, dir.path().join("m.jsonl"));
    captions.prompt = Some(Prompt::CaptionsTen);
    let mut gqa = SourceConfig::new(Format::Gqa, dir.path().join("gqa.json"));
    (gqa.image_name, gqa.count) = (Some("{id}.png".into()), Some(3));
    let configs = [SourceConfig { turns: Some(Turns::Some(2)), ..conversations(dir.path()) }, captions, gqa];
    let options = LoaderOptions { batch: 4, ..options() };
    let run = loader(&configs, options.clone());
    let epoch = run.mixture().epoch_len();
    assert_eq!(epoch, 9 + 5 + 3);
    let unbroken: Vec<_> = (0..3 * epoch).step_by(4).map(|p| run.batch(p).unwrap()).collect();
    for stop in [0, 3, 7] {
        let resumed = loader(&configs, options.clone());
        for (i, batch) in unbroken.iter().enumerate().skip(stop) {
            assert_eq!(&resumed.batch(4 * i as u64).unwrap(), batch);
        }
    }
    // The fingerprints of images do not depend on the run either.
    assert_eq!(run.mixture().prints().unwrap(), loader(&configs, options).mixture().prints().unwrap());
    assert!(
        run.mixture().place(0).ends_with("c.json, row 1: ") || run.mixture().place(0).contains("row 1: ")
    );
}

#[test]
fn a_check_finds_what_would_stop_a_run() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    let png = fs::read(dir.path().join("1.png")).unwrap();
    fs::write(dir.path().join("1.png"), &png[..png.len() / 2]).unwrap();
    fs::remove_file(dir.path().join("2.png")).unwrap();
    let again = r#"[{"image": "0.png", "conversations": [{"from": "human", "value": "q0.0"},
        {"from": "gpt", "value": "other"}, {"from": "human", "value": "empty?"}, {"from": "gpt", "value": ""}]}]"#;
    fs::write(dir.path().join("again.json"), again).unwrap();
    let configs =
        [conversations(dir.path()), SourceConfig::new(Format::Conversation, dir.path().join("again.json"))];
    let loader = loader(&configs, LoaderOptions { on_broken: OnBroken::Skip, ..options() });
    let options = CheckOptions { images: true, max_tokens: 8 };
    let calls = std::sync::atomic::AtomicU64::new(0);
    let count = |_, total| {
        assert_eq!(total, 6);
        calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let found = check(loader.mixture(), &*encode(), options, &count);
    assert_eq!((found.texts, found.images, calls.into_inner()), (17, 5, 6));
    let one = |faults: &pheye_data::Faults, end: &str| {
        assert_eq!((faults.count, faults.first.len()), (1, 1), "{faults:?}");
        assert!(faults.first[0].contains(end), "{faults:?}");
    };
    one(&found.missing, "c.json, row 3: ");
    one(&found.broken, "c.json, row 2: ");
    one(&found.unusable, "again.json, row 1: a text has no token to learn from");
    one(&found.too_long, "again.json, row 1: 9 tokens with the prompt, at most 8 fit");
    one(&found.duplicates, "again.json, row 1");
    assert!(found.stops());
    assert_eq!((found.tokens.counts[0], found.tokens.longest), (16, 9));
    assert_eq!(serde_json::to_value(&found).unwrap()["sources"][0]["parts"][0]["turns"], 15);
    let unseen =
        check(loader.mixture(), &*encode(), CheckOptions { images: false, max_tokens: 99 }, &|_, _| {});
    assert_eq!((unseen.broken.count, unseen.missing.count, unseen.too_long.count), (0, 1, 0));
    let text = Mixture::new::<Source>(vec![Source::open(&configs[0], None).unwrap()], None, Content::Text, 0);
    assert_eq!(text.unwrap().epoch_len(), 5);
}
