//! Watching runs: `plot`, `runs`, evaluations during training, and the reference of the config's keys.

mod common;

use std::fs;
use std::path::Path;

use common::{Bench, ends, pheye, refuses, run, s, same, top};

/// Writes a small run by hand: `steps` lines of metrics and timing.
fn by_hand(dir: &Path, steps: u64, loss: impl Fn(f64) -> f64) {
    fs::create_dir_all(dir).unwrap();
    let (mut metrics, mut timing) = (String::new(), String::new());
    for step in 1..=steps {
        let loss = loss(step as f64);
        metrics +=
            &format!("{{\"step\":{step},\"loss\":{loss},\"lr\":0.001,\"grad_norm\":1.5,\"tokens\":64.0}}\n");
        if step % 10 == 0 {
            metrics += &format!("{{\"step\":{step},\"accuracy\":{}}}\n", 1.0 - loss / 4.0);
        }
        timing += &format!(
            "{{\"step\":{step},\"seconds\":0.5,\"waiting_seconds\":0.01,\"tokens\":64,\"samples\":16}}\n"
        );
    }
    fs::write(dir.join("metrics.jsonl"), metrics).unwrap();
    fs::write(dir.join("timing.jsonl"), timing).unwrap();
}

fn curves(bench: &Bench) {
    by_hand(&bench.path("runs/first"), 60, |x| 3.0 / x.sqrt());
    by_hand(&bench.path("runs/second"), 40, |x| 2.0 / x.sqrt() + 0.2);
}

#[test]
fn plots_have_titled_axes_and_a_legend() {
    let bench = Bench::empty();
    curves(&bench);
    let [first, second] = ["first", "second"].map(|name| bench.path("runs").join(name));
    let out = bench.path("two.svg");
    ends(0, ["plot", s(&first), s(&second), "--out", s(&out)]);
    let svg = fs::read_to_string(&out).unwrap();
    for text in ["step", "loss (nats)", "accuracy (%)", "first", "second", "60", "80"] {
        assert!(svg.contains(&format!("\n{text}\n")), "no {text} in {svg}");
    }
    let of = |x: &str, metric: &str, text: &str| {
        ends(0, ["plot", s(&first), "--out", s(&out), "--x", x, "--metric", metric]);
        let svg = fs::read_to_string(&out).unwrap();
        assert!(svg.contains(&format!("\n{text}\n")), "no {text} in {svg}");
    };
    // 60 steps of 64 tokens, 16 samples and half a second.
    of("tokens", "loss", "3500");
    of("samples", "lr,waiting", "800");
    of("samples", "tokens_per_second", "tokens/s");
    of("seconds", "loss", "time (s)");
    let png = bench.path("two.png");
    ends(0, ["plot", s(&first), s(&second), "--out", s(&png), "--smooth", "9"]);
    let image = image::open(&png).unwrap().to_rgb8();
    assert_eq!(image.dimensions(), (1440, 1280));
    let near = |rgb: [u8; 3]| image.pixels().filter(|p| (0..3).all(|i| p[i].abs_diff(rgb[i]) < 8)).count();
    // Both curves and dark text.
    for rgb in [[0x0a, 0x5d, 0xc2], [0xd1, 0x49, 0x1c], [0x1f, 0x23, 0x28]] {
        assert!(near(rgb) > 300, "{rgb:?}: {}", near(rgb));
    }
}

#[test]
fn what_cannot_be_plotted_is_named() {
    let bench = Bench::empty();
    curves(&bench);
    let first = bench.path("runs/first");
    let out = bench.path("plot.svg");
    let plot = |run: &Path, more: &[&str], parts: &[&str]| {
        let args: Vec<&str> = ["plot", s(run), "--out", s(&out)].iter().chain(more).copied().collect();
        refuses(args, parts);
        assert!(!out.exists());
    };
    plot(&bench.path("nowhere"), &[], &["nowhere"]);
    plot(&bench.path("runs"), &[], &["runs is not the folder of a run: it has no metrics.jsonl"]);
    plot(&first.join("metrics.jsonl"), &[], &["is not the folder of a run"]);
    plot(&first, &["--metric", "los"], &["--metric los", "grad_norm, loss, lr"]);
    let young = bench.write("young/run.lock", "");
    plot(young.parent().unwrap(), &[], &["young: the run has not logged a step yet"]);
    bench.write("young/metrics.jsonl", "{\"step\":1,\"lo");
    plot(young.parent().unwrap(), &[], &["young: the run has not logged a step yet"]);
    let old = bench.write("old/metrics.jsonl", "{\"step\":1,\"loss\":1.0}\n{\"step\":2,\"loss\":0.5}\n");
    plot(old.parent().unwrap(), &["--x", "seconds"], &["old: it has no timing.jsonl"]);
    bench.write("bad/metrics.jsonl", "{\"step\":1,\"loss\":1.0}\n{\"st\n{\"step\":2,\"loss\":0.5}\n");
    plot(&bench.path("bad"), &[], &["metrics.jsonl, line 2: "]);
    refuses(["plot", s(&first), "--out", s(&bench.path("plot.pdf"))], &["plot.pdf", ".svg or .png"]);
    // A last line that is half written is left out.
    let metrics = first.join("metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, text + "{\"step\":61,\"lo").unwrap();
    ends(0, ["plot", s(&first), "--out", s(&out)]);
}

#[test]
fn runs_are_listed_with_their_state() {
    let bench = Bench::new();
    let config = |out: &str| format!("checkpoint_every = 2\nout = \"{out}\"");
    let file = bench.pheye("run.toml", 4, &[("train", &config("runs/done"))]);
    ends(0, ["train", s(&file)]);
    let file = bench.pheye("cut.toml", 6, &[("train", &config("runs/deep/cut"))]);
    ends(0, ["train", s(&file)]);
    fs::remove_dir_all(bench.path("runs/deep/cut/checkpoints/step-000006")).unwrap();
    by_hand(&bench.path("runs/hand"), 20, |x| 1.0 / x);
    by_hand(&bench.path("runs/live"), 10, |_| 1.0);
    let lock = fs::File::create(bench.path("runs/live/run.lock")).unwrap();
    lock.lock().unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    lock.set_modified(later).unwrap();
    let state = bench.path("runs/deep/cut").join("checkpoints");
    let before = common::tree(&bench.path("runs"));
    let listed = |dir: &Path| -> Vec<serde_json::Value> {
        serde_json::from_str(&ends(0, ["runs", s(dir), "--json"]).out).unwrap()
    };
    let find = |name: &str| listed(&bench.path("runs")).into_iter().find(|run| run["name"] == name).unwrap();
    let shape = |name: &str| {
        let run = find(name);
        (run["state"].as_str().unwrap().to_owned(), run["step"].as_u64(), run["steps"].as_u64())
    };
    assert_eq!(shape("done"), ("finished".into(), Some(4), Some(4)));
    assert_eq!(shape("deep/cut"), ("interrupted".into(), Some(4), Some(6)));
    assert_eq!(shape("hand"), ("interrupted".into(), Some(20), None));
    assert_eq!(shape("live"), ("running".into(), Some(10), None));
    let done = find("done");
    assert_eq!((done["task"].as_str(), done["accuracy"].as_f64()), (Some("pheye"), None));
    assert!(done["bytes"].as_u64().unwrap() > 10_000 && done["loss"].as_f64().unwrap() > 0.0, "{done}");
    assert_eq!(find("hand")["accuracy"], 1.0 - 0.05 / 4.0);
    // The last written run is the first.
    assert_eq!(listed(&bench.path("runs"))[0]["name"], "live");
    same(&common::tree(&bench.path("runs")), &before);

    fs::write(state.join("step-000004/state.json"), "{").unwrap();
    assert_eq!(find("deep/cut")["state"], "damaged");
    let text = ends(0, ["runs", s(&bench.path("runs"))]).out;
    for part in ["done ", "finished, 4 steps", "running, step 10", "damaged: checkpoint", "just written"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert_eq!(listed(&bench.path("runs/done"))[0]["state"], "finished");
    assert!(ends(0, ["runs", s(&bench.path("data"))]).out.starts_with("no runs in "));
    refuses(["runs", s(&bench.path("nowhere"))], &["nowhere", "cannot be read"]);
}

#[test]
fn the_last_evaluation_in_training_is_that_of_the_model() {
    let bench = Bench::new();
    let lines = [
        (
            "train",
            "checkpoint_every = 2\nout = \"run\"\n[eval]\nevery = 2\nquestions = 11\nshow = 2\nbatch = 3",
        ),
        ("data", "test = [\"data\"]"),
    ];
    let file = bench.pheye("run.toml", 5, &lines);
    let ended = ends(0, ["train", s(&file)]);
    assert!(ended.err.contains("of 11 test questions answered right"), "{ended:#?}");
    let metrics = fs::read_to_string(bench.path("run/metrics.jsonl")).unwrap();
    let accuracy: Vec<f64> = metrics
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["accuracy"].as_f64())
        .collect();
    assert_eq!(accuracy.len(), 3, "{metrics}");
    let model = bench.path("run/model");
    let measured = ends(0, ["eval", s(&file), "--model", s(&model), "--json"]).out;
    let measured: serde_json::Value = serde_json::from_str(&measured).unwrap();
    assert_eq!(measured["accuracy"].as_f64(), accuracy.last().copied());
    let events: Vec<u8> = common::tree(&bench.path("run/tensorboard")).into_values().flatten().collect();
    let holds = |part: &[u8]| events.windows(part.len()).filter(|window| *window == part).count();
    assert_eq!((holds(b"\x89PNG\r\n"), holds(b"answers/text_summary")), (6, 3));
    let plot = fs::read_to_string(bench.path("run/loss.svg")).unwrap();
    assert!(plot.contains("accuracy (%)"));
}

#[test]
fn a_config_is_changed_from_the_command_line() {
    let bench = Bench::new();
    let file = bench.pheye("run.toml", 4, &[("train", "out = \"run\"")]);
    let set = ["--set", "train.steps=2", "--set", "optim.lr=5e-4", "--set", "train.out=other"];
    let train = |more: &[&str]| -> Vec<String> {
        ["train", s(&file)].iter().chain(&set).chain(more).map(|a| (*a).to_owned()).collect()
    };
    ends(0, train(&[]));
    assert_eq!(bench.checkpoints("other"), ["step-000002"]);
    ends(0, train(&["--resume"]));
    refuses(train(&["--resume", "--set", "optim.lr=6e-4"]), &["optim.lr: 0.0005 → 0.0006"]);
    refuses(train(&["--set", "optim.lrr=1"]), &["--set optim.lrr: there is no such key", "`optim.lr`"]);
    let ended = ends(2, ["train", s(&file), "--set", "optim.lr"]);
    assert!(ended.err.contains("KEY=VALUE is needed"), "{ended:#?}");
}

/// `UPDATE=1 cargo test -p pheye-cli --test watch` writes both files again.
#[test]
fn the_reference_of_the_keys_is_what_the_code_says() {
    for (option, file) in [("--keys", "docs/config.md"), ("--schema", "docs/config.schema.json")] {
        let made = ends(0, ["train", option]).out;
        let file = top().join(file);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &made).unwrap();
        }
        let found = fs::read_to_string(&file).unwrap_or_default();
        assert!(found == made, "{} is out of date: run this test with UPDATE=1", file.display());
    }
    let ended = run(pheye(["train"]));
    assert_eq!(ended.code, Some(2), "{ended:#?}");
}

/// Every key of the configs of this repository is in the schema, which their first line names.
#[test]
fn configs_keep_to_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&ends(0, ["train", "--schema"]).out).unwrap();
    let configs = common::tree(&top().join("configs"));
    for (name, text) in configs.into_iter().filter(|(name, _)| name.ends_with(".toml")) {
        let text = String::from_utf8(text).unwrap();
        let up = "../".repeat(1 + name.matches('/').count());
        assert!(text.starts_with(&format!("#:schema {up}docs/config.schema.json\n")), "{text}");
        let (mut table, mut network) = (&schema, false);
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if line.starts_with('[') {
                // The keys of the network are checked when it is read.
                network = line.starts_with("[model.config]");
                if network {
                    continue;
                }
                let names = line.trim_matches(['[', ']']).split('.');
                table = names.fold(&schema, |table, name| {
                    let kind = &table["properties"][name];
                    let kind = if kind["items"].is_object() { &kind["items"] } else { kind };
                    let name = kind["$ref"].as_str().or_else(|| kind["allOf"][0]["$ref"].as_str());
                    let name = name.unwrap_or_else(|| panic!("no {line} in the schema"));
                    &schema["definitions"][name.rsplit('/').next().unwrap()]
                });
            } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !network) {
                assert!(table["properties"].get(key).is_some(), "no {key} in the schema");
            }
        }
    }
}

#[test]
fn a_plan_says_what_a_run_takes() {
    let nano = top().join("configs/nano.toml");
    let plan = |set: &[&str]| -> serde_json::Value {
        let sets = set.iter().flat_map(|value| ["--set", *value]);
        let args = ["train", s(&nano), "--plan", "--json", "--rate", "1e10"].into_iter().chain(sets);
        serde_json::from_str(&ends(0, args.collect::<Vec<_>>()).out).unwrap()
    };
    let run = plan(&[]);
    // Two epochs of 4,000 images, sixteen a step.
    let counts = ["epoch", "samples", "steps", "step_samples", "image_tokens"];
    assert_eq!(counts.map(|key| run[key].as_u64().unwrap()), [4000, 8000, 500, 16, 85]);
    // f32: frozen weights; trained weights, gradients and two moments.
    assert_eq!(run["memory"]["frozen"], 4 * 357_849);
    assert_eq!(run["memory"]["trained"], 16 * 211_072);
    let flops = run["flops"].as_f64().unwrap();
    assert!((run["seconds"].as_f64().unwrap() - flops / 1e10).abs() < 1e-6);
    // The same samples in smaller micro-batches: the same work, smaller activations.
    let parts = plan(&["train.batch=4", "train.accumulation=4"]);
    assert_eq!(parts["step_samples"], 16);
    assert!((parts["flops"].as_f64().unwrap() / flops - 1.0).abs() < 0.01);
    let activations = |plan: &serde_json::Value| plan["memory"]["activations"].as_u64().unwrap();
    assert!(activations(&parts) * 3 < activations(&run));
    // What is trained decides about memory and work.
    let all = plan(&["train.trainable=[\"*\", \"!*.lora_*\"]"]);
    assert_eq!(all["memory"]["frozen"], 4 * 59_392);
    assert!(all["flops"].as_f64().unwrap() > flops);
    let text = top().join("configs/nano-text.toml");
    let refused = ends(1, ["train", s(&text), "--plan"]);
    assert!(
        refused.err.contains("--plan works for task `pheye` only, and this is task `next-token`"),
        "{}",
        refused.err
    );
}
