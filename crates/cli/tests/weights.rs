//! Weights in bf16 and int8 keep the accuracy, and `pheye bench` times all stages.

mod common;

use common::{ends, top};

#[test]
fn answers_in_bf16_and_int8() {
    let accuracy = |weights: &str| {
        let config = top().join("configs/nano.toml");
        let args = [
            "eval",
            config.to_str().unwrap(),
            "--questions",
            "400",
            "--weights",
            weights,
            "--json",
            "--device",
            "cpu",
        ];
        let json: serde_json::Value = serde_json::from_str(&ends(0, args).out).unwrap();
        json["accuracy"].as_f64().unwrap()
    };
    for weights in ["auto", "bf16", "int8"] {
        assert!(accuracy(weights) >= 0.985, "{weights}: {}", accuracy(weights));
    }
}

#[test]
fn a_small_model_is_timed() {
    let run = |more: &[&str]| {
        let args =
            ["bench", "--preset", "nano", "--prompt", "20", "--device", "cpu", "--json", "--repeat", "2"];
        let out = ends(0, args.iter().chain(more).copied()).out;
        serde_json::from_str::<serde_json::Value>(&out).unwrap()
    };
    for weights in ["f32", "bf16", "int8"] {
        let line = run(&["--weights", weights, "--new", "5"]);
        for stage in ["encode", "cross_kv", "prefill", "decode_token"] {
            assert!(line[stage].as_f64().is_some_and(|s| s > 0.0), "{weights} {stage}: {line}");
        }
    }
    assert!(run(&["--mode", "train"])["step"].as_f64().is_some_and(|s| s > 0.0));
    let again = run(&["--mode", "train", "--recompute-vision", "2", "--recompute-text", "2"]);
    assert!(again["step"].as_f64().is_some_and(|s| s > 0.0));
    let nano = top().join("models/nano");
    let loaded =
        ends(0, ["bench", "--model", nano.to_str().unwrap(), "--prompt", "20", "--device", "cpu", "--json"])
            .out;
    let loaded: serde_json::Value = serde_json::from_str(&loaded).unwrap();
    assert!(["load", "encode"].iter().all(|s| loaded[s].as_f64().is_some_and(|s| s > 0.0)), "{loaded}");
    let long = ends(1, ["bench", "--preset", "nano", "--prompt", "200", "--device", "cpu"]);
    assert!(long.err.contains("--prompt") && long.err.contains("128"), "{}", long.err);
    let unknown = ends(1, ["bench", "--preset", "x3-100"]);
    assert!(unknown.err.contains("x3-100") && unknown.err.contains("x2-672"), "{}", unknown.err);
}
