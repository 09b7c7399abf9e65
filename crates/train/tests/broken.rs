//! Unusable data: it is skipped and counted, or the run is saved and the error names the location.

mod common;

use std::fs;

use common::{Bench, line, run, run_to};
use pheye_files::chain;
use pheye_train::{Error, Event, Start};

const SKIP: &str = "on_broken = \"skip\"";

/// Eight images: 2 and 5 are empty files, and the texts of 6 are too long.
fn bench() -> Bench {
    let bench = Bench::new(8);
    for i in [2, 5] {
        bench.write(&format!("{i}.png"), "");
    }
    let long = "x".repeat(80);
    let qa = format!("{{\"image\": \"6.png\", \"qa\": [[\"?\", \"{long}\"]], \"caption\": \"{long}\"}}\n");
    let lines: Vec<_> = (0..8).map(|i| if i == 6 { qa.clone() } else { line(i) }).collect();
    bench.write("m.jsonl", lines.concat());
    bench
}

#[test]
fn what_is_left_out_is_counted_and_a_resumed_run_ends_the_same() {
    let bench = bench();
    bench.backbones_of(&Bench::new(4));
    for (task, accumulation) in [("pheye", 1), ("pheye", 3), ("contrastive", 1), ("next-token", 2)] {
        let train = format!("steps = 11\nbatch = 1\naccumulation = {accumulation}\ncheckpoint_every = 2");
        let whole = bench.config(task, "whole", SKIP, &train);
        let mut told = Vec::new();
        let outcome = run(&whole, Start::Over, |event| {
            if let Event::Skipped { why, total } = event {
                told.push(why.to_owned());
                assert_eq!(total, told.len() as u64);
            }
        })
        .unwrap();
        assert!(outcome.finished && told.len() >= 2, "{task}: {told:?}");
        assert_eq!((outcome.skipped, &outcome.reasons[..]), (told.len() as u64, &told[..told.len().min(5)]));
        let named = |parts: &[&str]| told.iter().any(|why| parts.iter().all(|part| why.contains(part)));
        assert!(named(&["m.jsonl, line 7", "tokens with the prompt, at most 64 fit"]), "{told:?}");
        if task != "next-token" {
            assert!(named(&["m.jsonl, line 3", "2.png", "empty"]), "{told:?}");
        }
        let left = bench.left("whole");
        let metrics = String::from_utf8(left["metrics.jsonl"].clone()).unwrap();
        assert!(metrics.trim_end().ends_with(&format!("\"skipped\":{}.0}}", told.len())), "{metrics}");

        // Stopped after every step, and resumed.
        let broken = bench.config(task, "broken", SKIP, &train);
        run_to(&broken, Start::Over, 1).unwrap();
        for step in 2..11 {
            assert!(!run_to(&broken, Start::Resume, step).unwrap().finished);
        }
        let resumed = run(&broken, Start::Resume, |_| {}).unwrap();
        assert_eq!((resumed.skipped, resumed.reasons), (outcome.skipped, outcome.reasons));
        assert_eq!(bench.left("broken"), left, "{task}");
    }
}

#[test]
fn nothing_left_is_an_error() {
    let bench = Bench::new(3);
    (0..3).for_each(|i| drop(bench.write(&format!("{i}.png"), "")));
    let config = bench.config("contrastive", "run", SKIP, "steps = 4\nbatch = 2");
    let error = run(&config, Start::New, |_| {}).unwrap_err();
    assert!(matches!(error, Error::NothingUsable { samples: 6, .. }), "{error}");
    assert!(error.to_string().contains(".png"), "{error}");

    // A text of a single token has no target.
    bench.write("m.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
    for data in ["", SKIP] {
        let config = bench.config("next-token", "texts", data, "steps = 4\nbatch = 1");
        let error = run(&config, Start::New, |_| {}).unwrap_err();
        assert!(matches!(error, Error::NothingUsable { samples: 4, .. }), "{error}");
    }
}

#[test]
fn a_text_of_nothing_to_learn_is_named() {
    let bench = Bench::new(1);
    bench.write("m.jsonl", "{\"text\": \"\"}\n{\"text\": \"some words\"}\n");
    let config = bench.config("next-token", "run", "", "steps = 2\nbatch = 2");
    let error = chain(&run(&config, Start::New, |_| {}).unwrap_err());
    assert!(error.contains("m.jsonl, line 1: a text has no token to learn"), "{error}");
    let config = bench.config("next-token", "run", SKIP, "steps = 2\nbatch = 2");
    assert_eq!(run(&config, Start::New, |_| {}).unwrap().skipped, 2);
}

/// An image that is missing, damaged, and then restored.
#[test]
fn a_run_that_stops_is_saved_and_goes_on() {
    let bench = Bench::new(6);
    for (prefetch, train) in [(0, "steps = 14\nbatch = 1"), (2, "steps = 6\nbatch = 1\naccumulation = 2")] {
        let data = format!("prefetch = {prefetch}");
        let whole = bench.config("contrastive", "whole", &data, train);
        run(&whole, Start::Over, |_| {}).unwrap();

        let config = bench.config("contrastive", "broken", &data, train);
        let good = fs::read(bench.path("4.png")).unwrap();
        // Missing from the start, and removed while the run is in progress.
        fs::remove_file(bench.path("4.png")).unwrap();
        let halted = |start| match run(&config, start, |_| {}) {
            Err(error @ Error::Halted { .. }) => chain(&error),
            // The image was needed for the first step.
            Err(error @ Error::Data(_)) => chain(&error),
            other => panic!("{other:?}"),
        };
        for start in [Start::Over, Start::Resume] {
            let error = halted(start);
            for part in ["m.jsonl, line 5: ", "4.png: cannot be read: "] {
                assert!(error.contains(part), "{error}");
            }
        }
        fs::write(bench.path("4.png"), &good).unwrap();
        let gone = bench.path("3.png");
        let other = fs::read(&gone).unwrap();
        let stopped = run(&config, Start::Resume, |event| {
            if matches!(event, Event::Step(report) if report.step == 3) {
                fs::remove_file(&gone).unwrap();
            }
        });
        let error = chain(&stopped.unwrap_err());
        assert!(error.contains("is saved as") && error.contains("--resume"), "{error}");
        assert!(error.contains("m.jsonl, line 4: "), "{error}");
        fs::write(&gone, other).unwrap();
        assert!(run(&config, Start::Resume, |_| {}).unwrap().finished);
        assert_eq!(bench.left("broken"), bench.left("whole"));
    }
}
