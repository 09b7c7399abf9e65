//! A run resumes only with the files that it began with.

mod common;

use std::fs;
use std::path::Path;

use common::{Bench, line, run, run_to};
use pheye_train::{Checkpoints, Error, Event, Start, State};

fn other_files(bench: &Bench, config: &pheye_train::Config) -> Vec<String> {
    let before = bench.checkpoints("run");
    match run(config, Start::Resume, |_| {}) {
        Err(Error::OtherFiles { path, changes }) => {
            assert!(path.ends_with("step-000004"));
            assert_eq!(bench.checkpoints("run"), before);
            changes
        }
        other => panic!("{other:?}"),
    }
}

/// Changes the file with `how`, calls `look`, and restores the file.
fn with(path: &Path, how: impl FnOnce(&mut Vec<u8>), look: impl FnOnce()) {
    let good = fs::read(path).unwrap();
    let mut bad = good.clone();
    how(&mut bad);
    fs::write(path, bad).unwrap();
    look();
    fs::write(path, good).unwrap();
}

#[test]
fn files_that_changed_are_named() {
    let bench = Bench::new(8);
    bench.backbones();
    let config = bench.config("pheye", "run", "", "steps = 6\nbatch = 1");
    run_to(&config, Start::New, 4).unwrap();
    let flip = |bytes: &mut Vec<u8>| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    };
    for (file, key) in [
        ("vision/vision.safetensors", "model.encoder: vision/vision.safetensors"),
        ("text/text.safetensors", "model.decoder: text/text.safetensors"),
        ("tokenizer.json", "model.tokenizer: tokenizer.json"),
    ] {
        let expected = [format!("{key}: other contents of the same length")];
        with(&bench.path(file), flip, || assert_eq!(other_files(&bench, &config), expected));
    }
    let manifest = bench.path("m.jsonl");
    with(
        &manifest,
        |bytes| bytes.truncate(bytes.len() - line(7).len()),
        || {
            let changes = other_files(&bench, &config);
            assert!(changes.len() == 1 && changes[0].starts_with("data.train: m.jsonl: "), "{changes:?}");
            assert!(changes[0].contains(" bytes → "), "{changes:?}");
        },
    );
    bench.write("tokenizer_config.json", "{}");
    let added = ["model.tokenizer: tokenizer_config.json: was not there"];
    assert_eq!(other_files(&bench, &config), added);
    fs::remove_file(bench.path("tokenizer_config.json")).unwrap();
    assert!(run(&config, Start::Resume, |_| {}).unwrap().finished);
}

#[test]
fn images_that_changed_are_named() {
    let bench = Bench::new(8);
    let config = bench.config("contrastive", "run", "prefetch = 0", "steps = 6\nbatch = 1");
    run_to(&config, Start::New, 4).unwrap();
    let (mut refused, mut warned) = (0, 0);
    for i in 0..8 {
        let place = format!("m.jsonl, line {}: ", i + 1);
        let path = bench.path(&format!("{i}.png"));
        // Changes a byte of the pixels and keeps the length.
        with(
            &path,
            |bytes| {
                let at = bytes.len() - 20;
                bytes[at] ^= 1;
            },
            || {
                let mut warnings = Vec::new();
                let result = run(&config, Start::Resume, |event| {
                    if let Event::Warning(text) = event {
                        warnings.push(text.to_owned());
                    }
                });
                match result {
                    Err(Error::OtherFiles { changes, .. }) => {
                        assert!(changes.len() == 1 && changes[0].contains(&place), "{changes:?}");
                        assert!(changes[0].ends_with(&format!("{i}.png: changed")), "{changes:?}");
                        refused += 1;
                    }
                    // A changed image that the run has not used yet is only a warning; whether it can be
                    // decoded is not tested here.
                    other => {
                        assert!(warnings[0].contains(&place), "{warnings:?} {other:?}");
                        warned += 1;
                        for step in ["step-000005", "step-000006"] {
                            let _ = fs::remove_dir_all(bench.path("run/checkpoints").join(step));
                        }
                    }
                }
            },
        );
    }
    assert_eq!((refused, warned), (4, 4));
    fs::rename(bench.path("7.png"), bench.path("elsewhere.png")).unwrap();
    let mut told = Vec::new();
    let _ = run(&config, Start::Resume, |event| {
        if let Event::Warning(text) = event {
            told.push(text.to_owned());
        }
    });
    fs::rename(bench.path("elsewhere.png"), bench.path("7.png")).unwrap();
    assert!(told.iter().all(|text| text.contains("7.png: not there any more")), "{told:?}");
}

#[test]
fn another_processor_is_told() {
    let bench = Bench::new(2);
    let config = bench.config("next-token", "run", "", "steps = 3\nbatch = 2");
    run_to(&config, Start::New, 1).unwrap();
    let checkpoints = Checkpoints::open(bench.path("run/checkpoints"), 2).unwrap();
    let loaded = checkpoints.latest().unwrap().unwrap();
    assert!(loaded.state.device.starts_with("cpu with "), "{}", loaded.state.device);
    let elsewhere = State { device: "cpu with other instructions".into(), ..loaded.state };
    let copy = |dir: &Path| {
        for entry in fs::read_dir(&loaded.path).unwrap() {
            let from = entry.unwrap().path();
            if !from.ends_with("state.json") {
                fs::copy(&from, dir.join(from.file_name().unwrap())).unwrap();
            }
        }
        Ok(())
    };
    checkpoints.save(&elsewhere, copy).unwrap();
    let mut warnings = Vec::new();
    run(&config, Start::Resume, |event| {
        if let Event::Warning(text) = event {
            warnings.push(text.to_owned());
        }
    })
    .unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("cpu with other instructions"), "{warnings:?}");
}

#[test]
fn one_checkpoint_too_many_is_removed() {
    let bench = Bench::new(2);
    let config =
        bench.config("next-token", "run", "", "steps = 6\nbatch = 2\ncheckpoint_every = 2\nkeep = 2");
    run(&config, Start::New, |_| {}).unwrap();
    assert_eq!(bench.checkpoints("run"), ["step-000004", "step-000006"]);
    fs::create_dir(bench.path("run/checkpoints/step-000002")).unwrap();
    run(&config, Start::Resume, |_| {}).unwrap();
    assert_eq!(bench.checkpoints("run"), ["step-000004", "step-000006"]);
}

#[test]
fn published_files_that_changed_are_named() {
    let bench = Bench::new(4);
    let rows: Vec<_> =
        (0..4).map(|i| format!("{{\"image_id\": {i}, \"question\": \"q\", \"answer\": \"a{i}\"}}")).collect();
    let file = bench.write("lrv.json", format!("[{}]", rows.join(",")));
    let source = "index = \"index\"\n[[data.source]]\nformat = \"lrv\"\npath = \"lrv.json\"\n\
                  image_name = \"{id}.png\"";
    bench.backbones();
    let config = bench.config("pheye", "run", source, "steps = 6\nbatch = 2");
    run_to(&config, Start::New, 4).unwrap();
    let change = |bytes: &mut Vec<u8>| {
        let at = bytes.len() - 4;
        bytes[at] = b'9';
    };
    with(&file, change, || {
        let expected = ["data.source[0].path: lrv.json: other contents of the same length"];
        assert_eq!(other_files(&bench, &config), expected);
    });
    assert!(run(&config, Start::Resume, |_| {}).unwrap().finished);
    // The same bits as an unbroken run.
    let whole = bench.config("pheye", "whole", source, "steps = 6\nbatch = 2");
    run(&whole, Start::New, |_| {}).unwrap();
    assert_eq!(bench.left("run"), bench.left("whole"));
}
