//! The figures of the released sizes, and a help text for every option.

mod common;

use common::{ends, golden, refuses, s};
use serde_json::Value;

#[test]
fn released_sizes() {
    for (name, trained) in [("x4-672", 295_136_192u64), ("x2-672", 578_411_456)] {
        let json: Value = serde_json::from_str(&ends(0, ["info", name, "--json"]).out).unwrap();
        assert_eq!(json["trained"], trained);
        let parts = ["cross_attention", "lora", "connector"].map(|p| json["parameters"][p].as_u64().unwrap());
        assert_eq!(parts.iter().sum::<u64>(), trained);
        assert_eq!(json["image_tokens"], 2570);
    }
    let text = ends(0, ["info", "x4-672"]).out;
    for figure in ["295,136,192", "2570", "vision tower", "language model", "frozen", "to run", "to train"] {
        assert!(text.contains(figure), "no {figure} in\n{text}");
    }
    assert!(ends(0, ["info", "x2-672"]).out.contains("578,411,456"));
}

/// The reader of standard output may close the pipe.
#[cfg(unix)]
#[test]
fn nobody_reads() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let done = common::pheye(["info", "x4-672"]).stdout(writer).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(141) && said.is_empty(), "{}: {said}", done.status);
}

#[test]
fn a_folder() {
    let json: Value = serde_json::from_str(&ends(0, ["info", s(&golden("level1")), "--json"]).out).unwrap();
    assert_eq!(json["tiles"], 1);
    refuses(["info", "x3-672"], &["`x3-672`", "nano", "x4-672"]);
}

#[test]
fn files_of_weights() {
    let file = golden("level1").join("checkpoint.pt");
    let json: Value = serde_json::from_str(&ends(0, ["info", s(&file), "--json"]).out).unwrap();
    let file = &json["files"][0];
    assert_eq!(file["format"], "torch zip");
    let tensors = file["tensors"].as_array().unwrap();
    let embedding = tensors.iter().find(|t| t["name"] == "lang_encoder.model.embed_tokens.weight").unwrap();
    assert_eq!(embedding["dtype"], "F32");
    let elements: u64 = embedding["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
    assert_eq!(embedding["bytes"], 4 * elements);

    // The tensors of a model folder, a folder with weights but no model, and a folder with neither.
    let nano = common::top().join("models/nano");
    let text = ends(0, ["info", s(&nano), "--tensors"]).out;
    assert!(
        text.contains("model.safetensors: safetensors, ") && text.contains("lang_encoder.lm_head.bias"),
        "{text}"
    );
    assert!(ends(0, ["info", s(&nano)]).out.contains("parameters"));
    let weights = tempfile::tempdir().unwrap();
    std::fs::copy(nano.join("model.safetensors"), weights.path().join("b.safetensors")).unwrap();
    std::fs::copy(golden("level1").join("checkpoint.pt"), weights.path().join("a.pt")).unwrap();
    let json: Value = serde_json::from_str(&ends(0, ["info", s(weights.path()), "--json"]).out).unwrap();
    let formats: Vec<_> = json["files"].as_array().unwrap().iter().map(|f| f["format"].clone()).collect();
    assert_eq!(formats, ["torch zip", "safetensors"]);
    refuses(["info", s(&common::top().join("docs"))], &["docs", "no file of weights"]);
    refuses(["info", s(&common::top().join("picture.png"))], &["picture.png", "a PNG image"]);
    refuses(["info", "nano", "--tensors"], &["--tensors", "preset"]);
}

#[test]
fn help() {
    let options: [(&str, &[&str]); 7] = [
        ("train", &["CONFIG", "--resume", "--overwrite", "--steps", "--questions", "--out", "--device"]),
        (
            "ask",
            &[
                "IMAGE",
                "QUESTION",
                "--model",
                "--max-new-tokens",
                "--weights",
                "--max-megapixels",
                "--ignore-orientation",
                "--json",
                "--device",
            ],
        ),
        ("eval", &["CONFIG", "--model", "--weights", "--questions", "--json", "--device"]),
        ("verify", &["DIR", "--verbose", "--json", "--device"]),
        ("info", &["PRESET|DIR", "--json"]),
        (
            "bench",
            &["--preset", "--mode", "--weights", "--prompt", "--new", "--repeat", "--json", "--device"],
        ),
        (
            "convert",
            &[
                "FROM",
                "TO",
                "--extract-lora",
                "--merge-lora",
                "--lora-global",
                "--lora-local",
                "--dtype",
                "--bf16",
                "--shard-size",
                "Examples:",
            ],
        ),
    ];
    let top = ends(0, ["--help"]).out;
    assert!(top.contains("Exit codes"), "{top}");
    for (command, options) in options {
        assert!(top.contains(command), "{top}");
        let help = ends(0, [command, "--help"]).out;
        for option in options {
            assert!(help.contains(option), "{command}: no {option} in\n{help}");
        }
        // Every option has a help text.
        let mut lines = help.lines().skip_while(|l| !l.ends_with("ptions:")).peekable();
        while let Some(line) = lines.next() {
            // Lines that begin with `- ` list the values of an option.
            if line.trim_start().starts_with('-') && !line.trim_start().starts_with("- ") {
                let said = line.trim().contains("  ")
                    || lines.peek().is_some_and(|next| next.starts_with("          "));
                assert!(said, "{command}: {line}");
            }
        }
    }
    assert!(ends(0, ["--version"]).out.starts_with("pheye "));
}

/// The figures of section 2.2 of the paper, and what the program itself computes.
#[test]
fn complexity_is_that_of_the_paper() {
    let shown = ends(0, ["info", "x4-672", "--complexity"]).out;
    for part in ["1.0145x  (paper: 1.02x)", "18.53x  (paper: 18.5x)", "keys and values of  2570 image tokens"]
    {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    let text = ends(0, ["info", "x2-672", "--complexity", "--json"]).out;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!((json["decoder_ratio"].as_f64().unwrap() - 12.066).abs() < 1e-3, "{json}");
    // Twelve blocks of 2570 keys and values of width 2048, against 24 layers of 2305.
    assert_eq!(json["flops"]["image_cache_bytes"], 4 * 12 * 2570 * 2048);
    assert_eq!(json["flops"]["image_cache_bytes_as_prefix"], 4 * 24 * 2305 * 2048);
    ends(0, ["info", "nano", "--complexity", "--text-tokens", "10"]);
}
