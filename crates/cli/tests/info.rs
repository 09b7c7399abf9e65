//! Figures of the released sizes, and help that names every option.

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

/// What reads the output may stop before its end.
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
fn help() {
    let options: [(&str, &[&str]); 7] = [
        ("train", &["CONFIG", "--resume", "--over", "--steps", "--questions", "--out", "--device"]),
        (
            "ask",
            &[
                "PICTURE",
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
        // Every option says what it does.
        let mut lines = help.lines().skip_while(|l| !l.ends_with("ptions:")).peekable();
        while let Some(line) = lines.next() {
            // Values of an option are bullets.
            if line.trim_start().starts_with('-') && !line.trim_start().starts_with("- ") {
                let said = line.trim().contains("  ")
                    || lines.peek().is_some_and(|next| next.starts_with("          "));
                assert!(said, "{command}: {line}");
            }
        }
    }
    assert!(ends(0, ["--version"]).out.starts_with("pheye "));
}
