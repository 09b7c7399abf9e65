//! What a run tells about itself: evaluations, spikes, durations, and what becomes of them when it is resumed
//! or when its folder is removed.

mod common;

use std::fs;

use common::{Bench, encoder, run, run_to};
use pheye_ops::Cx;
use pheye_train::{Answered, Config, Error, Evaluate, Evaluation, Event, Interrupt, Outcome, Start, train};
use serde_json::Value;

/// An accuracy that depends on the model: a value of its encoding of a grey image.
fn evaluate() -> Box<Evaluate> {
    Box::new(|cx, model| {
        let (side, level) = (model.config().vision.image_size, model.config().connector.level);
        let view = vec![0.5; 3 * side * side];
        let pixels = pheye_model::stack(side, &[(&view, &view.repeat(level * level))])?;
        let accuracy = f64::from(model.encode(cx, &pixels, 1)?.to_vec_f32()?[0]).abs();
        let (question, answer, expected) = ("what?".into(), "a".into(), "b".into());
        let shown = vec![Answered { question, answer, expected, png: vec![1; 9], width: 3, height: 2 }];
        Ok(Evaluation { accuracy, questions: 1, shown })
    })
}

fn evaluated(config: &Config, start: Start, last: u64) -> Result<Outcome, Error> {
    let stop = Interrupt::default();
    let raise = stop.clone();
    let on = move |event: Event| {
        if matches!(event, Event::Step(report) if report.step == last) {
            raise.stop();
        }
    };
    train(&Cx::cpu(), config, encoder(), Some(evaluate()), start, &stop, on)
}

fn lines(bench: &Bench, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(bench.path(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_resumed_run_evaluates_as_an_unbroken_one() {
    let bench = Bench::new(6);
    bench.backbones();
    let config = |out: &str, every: u64| {
        let mut config =
            bench.config("pheye", out, "test = [\"m.jsonl\"]", "steps = 7\nbatch = 2\ncheckpoint_every = 2");
        config.eval.every = every;
        config
    };
    evaluated(&config("whole", 3), Start::New, 0).unwrap();
    // Stopped after a step with an evaluation, and after one without.
    for last in [3, 5] {
        evaluated(&config("broken", 3), Start::Resume, last).unwrap();
    }
    evaluated(&config("broken", 3), Start::Resume, 0).unwrap();
    assert_eq!(bench.left("whole"), bench.left("broken"));
    let accuracy: Vec<_> = lines(&bench, "whole/metrics.jsonl")
        .into_iter()
        .filter_map(|v| Some((v["step"].as_u64()?, v["accuracy"].as_f64()?)))
        .collect();
    assert_eq!(accuracy.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [3, 6, 7]);
    assert!(accuracy[0].1 != accuracy[1].1, "{accuracy:?}");

    // An evaluation changes nothing in the model.
    evaluated(&config("without", 0), Start::New, 0).unwrap();
    let mut without = bench.left("without");
    let mut whole = bench.left("whole");
    assert!(without.remove("metrics.jsonl") != whole.remove("metrics.jsonl"));
    assert_eq!(without, whole);
}

#[test]
fn a_failed_evaluation_saves_the_run_and_is_named() {
    let bench = Bench::new(4);
    bench.backbones();
    let mut config = bench.config("pheye", "run", "test = [\"m.jsonl\"]", "steps = 4\nbatch = 2");
    config.eval.every = 3;
    let fails: Box<Evaluate> = Box::new(|_, _| Err("7.png: gone".into()));
    let ended = train(&Cx::cpu(), &config, encoder(), Some(fails), Start::New, &Interrupt::default(), |_| {});
    let text = pheye_files::chain(&ended.unwrap_err());
    for part in ["stopped before step 4", "step-000003", "the evaluation after step 3: 7.png: gone"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(bench.checkpoints("run"), ["step-000003"]);
}

/// With a factor below 1, so that steps without a real spike exceed it.
#[test]
fn a_spike_names_its_samples_and_survives_a_resume() {
    let bench = Bench::new(6);
    let config = |out: &str| {
        bench.config(
            "contrastive",
            out,
            "",
            "steps = 30\nbatch = 3\nlora_dropout = 0\ncheckpoint_every = 1\nspike = 0.8",
        )
    };
    let mut told = Vec::new();
    let on = |event: Event| {
        if let Event::Spike(s) = event {
            assert!(s.norm > 0.8 * s.median);
            told.push((s.step, s.samples.to_vec()));
        }
    };
    run(&config("whole"), Start::New, on).unwrap();
    let spikes = lines(&bench, "whole/spikes.jsonl");
    assert!(!spikes.is_empty() && spikes.len() == told.len(), "{told:?}");
    for (line, (step, samples)) in spikes.iter().zip(&told) {
        assert_eq!(line["step"].as_u64(), Some(*step));
        assert_eq!(line["samples"], serde_json::json!(samples));
        assert!(samples.len() == 3 && samples.iter().all(|name| name.ends_with(".png")), "{samples:?}");
        // The median of the steps before, as the metrics have them.
        let metrics = lines(&bench, "whole/metrics.jsonl");
        let mut norms: Vec<f64> =
            metrics[..*step as usize - 1].iter().map(|m| m["grad_norm"].as_f64().unwrap()).collect();
        norms.sort_by(f64::total_cmp);
        assert_eq!(line["median"].as_f64(), Some(norms[norms.len() / 2]));
    }
    // Interrupted just before a spike, and just after it.
    let first = told[0].0;
    for last in [first - 1, first] {
        run_to(&config("broken"), Start::Resume, last).unwrap();
    }
    run(&config("broken"), Start::Resume, |_| {}).unwrap();
    for file in ["spikes.jsonl", "metrics.jsonl"] {
        let read = |out: &str| fs::read(bench.path(out).join(file)).unwrap();
        assert!(read("whole") == read("broken"), "{file}");
    }
    // 0 logs none.
    let mut none = config("none");
    none.train.spike = 0.0;
    run(&none, Start::New, |_| {}).unwrap();
    assert!(lines(&bench, "none/spikes.jsonl").is_empty());
}

#[test]
fn durations_are_beside_the_metrics() {
    let bench = Bench::new(5);
    let config = |out: &str| {
        bench.config("contrastive", out, "prefetch = 0", "steps = 4\nbatch = 2\ncheckpoint_every = 2")
    };
    let mut reports = Vec::new();
    let on = |event: Event| reports.extend(if let Event::Step(report) = event { Some(report) } else { None });
    run(&config("run"), Start::New, on).unwrap();
    for (line, report) in lines(&bench, "run/timing.jsonl").iter().zip(&reports) {
        let value = |name: &str| line[name].as_f64().unwrap();
        assert_eq!((value("step"), value("samples")), (report.step as f64, 2.0));
        assert_eq!((value("tokens"), value("seconds")), (2.0, report.seconds));
        // Without a thread for the batches, making them is waiting.
        // The last step has its batch from the step before, and prepares none.
        let waited = (value("waiting_seconds") > 0.0) == (report.step < 4);
        assert!(waited && value("waiting_seconds") < value("seconds"), "{line}");
        assert!(cfg!(not(target_os = "linux")) || value("peak_resident_bytes") > 1e6, "{line}");
    }
    let metrics = fs::read_to_string(bench.path("run/metrics.jsonl")).unwrap();
    assert!(!metrics.contains("seconds") && !metrics.contains("bytes"), "{metrics}");

    // Steps that are taken again after a resume are in the file once.
    run_to(&config("run"), Start::Over, 3).unwrap();
    fs::remove_dir_all(bench.path("run/checkpoints/step-000003")).unwrap();
    run(&config("run"), Start::Resume, |_| {}).unwrap();
    let steps: Vec<_> = lines(&bench, "run/timing.jsonl").iter().map(|l| l["step"].as_u64()).collect();
    assert_eq!(steps, [Some(1), Some(2), Some(3), Some(4)]);
}

#[cfg(unix)]
#[test]
fn a_removed_run_folder_is_written_again() {
    let bench = Bench::new(5);
    let config =
        |out: &str| bench.config("contrastive", out, "", "steps = 6\nbatch = 2\ncheckpoint_every = 2");
    run(&config("whole"), Start::New, |_| {}).unwrap();
    run(&config("removed"), Start::New, |event| {
        if matches!(event, Event::Step(report) if report.step == 3) {
            fs::remove_dir_all(bench.path("removed")).unwrap();
        }
    })
    .unwrap();
    assert_eq!(bench.left("whole"), bench.left("removed"));
    assert_eq!(bench.checkpoints("removed"), ["step-000004", "step-000006"]);
    assert_eq!(lines(&bench, "removed/timing.jsonl").len(), 6);
    let events = fs::read_dir(bench.path("removed/tensorboard")).unwrap().count();
    assert_eq!(events, 1);
}
