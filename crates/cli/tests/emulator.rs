//! Pheye with the GPU kernels on the emulator: training, resuming, asking, and running out of memory.
#![cfg(feature = "emulator")]

mod common;

use common::{Bench, ends, refuses, s, same};
use serde_json::Value;

const STEPS: usize = 4;

fn losses(bench: &Bench, run: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(bench.path(run).join("metrics.jsonl")).unwrap();
    let loss = |line: &str| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap();
    text.lines().map(loss).collect()
}

#[test]
fn training_gives_the_same_bits_in_every_order_and_after_a_resume() {
    let bench = Bench::new();
    let file = |out: &str, more: &str| {
        let lines = format!("checkpoint_every = 2\nlora_dropout = 0.1\nout = \"{out}\"\n{more}");
        bench.pheye(&format!("{out}.toml"), STEPS, &[("train", &lines)])
    };
    for (out, device) in [
        ("cpu", "cpu"),
        ("forward", "emulator"),
        ("reversed", "emulator:reversed"),
        ("shuffled", "emulator:shuffled=5"),
    ] {
        ends(0, ["train", s(&file(out, "")), "--device", device]);
    }
    let result = |out: &str| {
        let mut files = bench.left(out);
        // The config contains the name of the folder, so it is not compared.
        files.retain(|name, _| name.ends_with(".safetensors") || name.ends_with("metrics.jsonl"));
        assert!(!files.is_empty(), "{out} left nothing");
        files
    };
    same(&result("forward"), &result("reversed"));
    same(&result("forward"), &result("shuffled"));
    // Recomputing activations does not change any bit.
    ends(0, ["train", s(&file("again", "recompute = { vision = 9, text = 9 }")), "--device", "emulator"]);
    same(&result("forward"), &result("again"));
    // Activations are bf16 here and f32 on the CPU; the losses must agree within 1 %.
    for (gpu, cpu) in losses(&bench, "forward").into_iter().zip(losses(&bench, "cpu")) {
        assert!((gpu - cpu).abs() < 0.01 * cpu, "{gpu} on the emulator, {cpu} on the CPU");
    }
    // Resume from the checkpoint before the last.
    let steps = bench.checkpoints("forward");
    std::fs::remove_dir_all(bench.path("forward").join("checkpoints").join(steps.last().unwrap())).unwrap();
    let whole = result("reversed");
    ends(0, ["train", s(&bench.path("forward.toml")), "--resume", "--device", "emulator"]);
    same(&result("forward"), &whole);
    let model = bench.path("forward").join("model");
    let image = common::top().join("picture.png");
    let asked = |device| {
        ends(0, ["ask", s(&image), "what color is the shape?", "--model", s(&model), "--device", device]).out
    };
    assert_eq!(asked("emulator"), asked("emulator:reversed"));
}

#[test]
fn too_little_memory_is_an_error_with_what_would_fit() {
    let bench = Bench::new();
    let file = bench.pheye("run.toml", 1, &[("train", "out = \"run\"")]);
    // First with too little memory for the weights, then with enough for the weights but too little for a
    // step.
    let few = refuses(["train", s(&file), "--device", "emulator:memory=10000"], &["out of GPU memory"]);
    assert!(few.contains("9.8 KiB") || few.contains("of 10000 are free"), "{few}");
    let mut found = false;
    for memory in (1..40).map(|i| i * 250_000) {
        let ended = common::run(common::pheye([
            "train",
            s(&file),
            "--overwrite",
            "--device",
            &format!("emulator:memory={memory}"),
        ]));
        if ended.code == Some(0) {
            assert!(
                found,
                "a step fits into {memory} bytes, but no smaller memory was enough for the weights"
            );
            return;
        }
        found |= ended.err.contains("a step of 2 images") && ended.err.contains("takes about");
    }
    panic!("no memory is enough");
}

#[test]
fn devices_that_are_not_there_are_errors_with_advice() {
    let image = common::top().join("picture.png");
    let ask = |device| refuses(["ask", s(&image), "what?", "--device", device], &[]);
    assert!(ask("emulator:sideways").contains("emulator:reversed"));
    assert!(ask("gpu").contains("`cuda`"));
}
