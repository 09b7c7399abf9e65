//! The first minutes with the program: alone in an empty folder, and with commands that are wrong.
//!
//! `UPDATE=1 cargo test -p pheye-cli --test newcomer` writes the snapshots in `tests/snapshots` anew: read what changed as
//! someone who meets it for the first time.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Ended, pheye, run, s, top};
use serde_json::Value;

/// The program in an empty folder with an empty environment.
fn alone(folder: &Path, args: &[&str]) -> Command {
    let mut command = pheye(args);
    command.env_clear().current_dir(folder);
    command
}

fn with_input(mut command: Command, input: &[u8]) -> Ended {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The program may end without reading everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap().into()
}

#[test]
fn the_program_answers_alone() {
    let temp = tempfile::tempdir().unwrap();
    let picture = fs::read(top().join("picture.png")).unwrap();
    let built_in = run(alone(temp.path(), &["ask"]));
    assert_eq!((built_in.code, built_in.out.trim()), (Some(0), "yellow"), "{built_in:#?}");
    fs::write(temp.path().join("picture.png"), &picture).unwrap();
    let question = "what color is the shape?";
    let by_file = run(alone(temp.path(), &["ask", "picture.png", question]));
    assert_eq!(by_file.out.trim(), "yellow", "{by_file:#?}");
    // The same picture, and the same question, from standard input.
    assert_eq!(with_input(alone(temp.path(), &["ask", "-", question]), &picture).out, by_file.out);
    let lines = format!("{question}\n\n  {question}  \n");
    let both = with_input(alone(temp.path(), &["ask", "picture.png", "-"]), lines.as_bytes());
    assert_eq!(both.out.matches("yellow").count(), 2, "{both:#?}");
    // Without a question the picture is described.
    assert!(run(alone(temp.path(), &["ask", "picture.png"])).out.trim().len() > 2);
    let names: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["picture.png"], "nothing is written");
}

#[test]
fn nothing_is_said_beside_the_answer_unless_asked() {
    let temp = tempfile::tempdir().unwrap();
    let said = |more: &[&str]| run(alone(temp.path(), &[&["ask"], more].concat())).err;
    assert_eq!(said(&[]), "");
    assert_eq!(said(&["--quiet"]), "");
    let stats = said(&["--stats"]);
    assert!(
        stats.starts_with("encode ") && stats.contains("prefill ") && stats.contains("tokens/s"),
        "{stats}"
    );
    assert!(said(&["-v"]).contains("64 × 64 pixels"));
    assert_eq!(run(alone(temp.path(), &["ask", "-q", "-v"])).code, Some(2));
}

#[test]
fn json_has_times_and_log_probabilities() {
    let temp = tempfile::tempdir().unwrap();
    let line = |more: &[&str]| -> Value {
        serde_json::from_str(&run(alone(temp.path(), &[&["ask", "--json"], more].concat())).out).unwrap()
    };
    let whole = line(&[]);
    assert_eq!(whole["finish"], "end");
    let log_prob = whole["log_prob"].as_f64().unwrap();
    assert!((-1.0..0.0).contains(&log_prob), "{whole}");
    for stage in ["encode", "prefill", "decode"] {
        assert!(whole["seconds"][stage].as_f64().unwrap() > 0.0, "{whole}");
    }
    assert_eq!(line(&["--min-new-tokens", "3", "--max-new-tokens", "3"])["finish"], "length");
    assert_eq!(line(&["--stop", "e"])["finish"], "stop");
    // Beam search has no tokens before its end.
    assert_eq!(line(&["--beams", "2"])["seconds"]["prefill"], Value::Null);
}

#[test]
fn a_dialogue_goes_on_after_a_mistake() {
    let temp = tempfile::tempdir().unwrap();
    let question = "what color is the shape?";
    let long = "what color is the shape? ".repeat(60);
    let lines =
        format!("{question}\n/open nothing.png\n{long}\n/frobnicate\n\n/stats\n{question}\n/quit\nnever\n");
    let ended = with_input(alone(temp.path(), &["chat"]), lines.as_bytes());
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(ended.out, "yellow\nyellow\n");
    for part in ["nothing.png", "the picture stays", "context", "/frobnicate", "tokens/s"] {
        assert!(ended.err.contains(part), "no `{part}` in {ended:#?}");
    }
}

#[test]
fn the_doctor_says_what_is_used_and_hides_secrets() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = alone(temp.path(), &["doctor", "--json"]);
    command.env("HOME", temp.path()).env("HF_TOKEN", "hf_secret").env("PHEYE_GEMM", "ours");
    let ended = run(command);
    let found: Value = serde_json::from_str(&ended.out).unwrap();
    assert!(!ended.out.contains("hf_secret"));
    assert!(found["uses"]["Ok"].is_string() || found["uses"]["Err"].is_string(), "{found}");
    assert!(found["program"]["nano"].as_u64().unwrap() > 1_000_000);
    assert!(found["processor"]["used"].as_u64().unwrap() >= 1);
    let text = run(alone(temp.path(), &["doctor", "--device", "cpu"])).out;
    for part in ["program", "processor", "memory", "GPU", "will use     cpu"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn shells_and_man_know_every_command() {
    let temp = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let out = run(alone(temp.path(), &["completions", shell])).out;
        assert!(["caption", "max-new-tokens"].iter().all(|part| out.contains(part)), "{shell}");
    }
    assert_eq!(run(alone(temp.path(), &["man", "pages"])).code, Some(0));
    let page = fs::read_to_string(temp.path().join("pages/pheye-ask.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("stats"), "{page}");
}

/// Compares with the file `name` in `tests/snapshots`, or writes it.
fn snapshot(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(expected == text, "{name} differs (UPDATE=1 writes it): {differs:?}");
}

/// The commands, as `--help` lists them.
fn commands() -> Vec<String> {
    let help = run(pheye(["--help"])).out;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    list.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn help_reads_well() {
    let mut text = run(pheye(["--help"])).out;
    for command in commands() {
        if command != "help" {
            let help = run(pheye([&command, "-h"])).out;
            assert!(help.lines().all(|line| line.trim_end() == line || line.contains("  ")), "{help}");
            let _ = write!(text, "\n$ pheye {command} -h\n{help}");
        }
    }
    // Options differ between builds.
    if cfg!(feature = "hub") {
        snapshot("help.txt", &text);
    }
}

/// Wrong commands, in a folder with an image, a text, an empty folder, a model, and a config with a typing error.
const WRONG: &[&[&str]] = &[
    &["foo"],
    &["aks", "picture.png"],
    &["data", "foo"],
    &["ask", "nothing.png"],
    &["ask", "text.txt"],
    &["ask", "empty"],
    &["ask", "picture.png", ""],
    &["ask", "-", "-"],
    &["ask", "picture.png", "what?", "--model", "nosuch"],
    &["ask", "picture.png", "what?", "--model", "nope/hub"],
    &["ask", "picture.png", "what?", "--model", "empty"],
    &["ask", "picture.png", "what?", "--model", "picture.png"],
    &["ask", "picture.png", "what?", "--model", "adapter"],
    &["ask", "picture.png", "what?", "--max-new-tokens", "0"],
    &["ask", "picture.png", "what?", "--temperature", "-1"],
    &["ask", "picture.png", "what?", "--beams", "3", "--sample"],
    &["ask", "picture.png", "what?", "--device", "gpu"],
    &["ask", "picture.png", "what?", "--max-megapixels", "0"],
    &["ask", "picture.png", "what?", "--weights", "int4"],
    &["chat", "-"],
    &["caption", "empty", "--out", "captions.jsonl"],
    &["caption", "nothing", "--out", "captions.jsonl"],
    &["caption", "pictures", "--out", "text.txt"],
    &["caption", "pictures", "--out", "captions.jsonl", "--answers", "2", "--beams", "2"],
    &["init", "--model", "nosuch", "--data", "pictures"],
    &["init", "--model", "model", "--data", "nothing"],
    &["init", "--model", "model", "--data", "pictures"],
    &["train", "nothing.toml"],
    &["train", "typing-error.toml"],
    &["train", "text.txt"],
    &["eval", "nothing"],
    &["eval", "textvqa"],
    &["verify", "empty"],
    &["info", "nosuch"],
    &["info", "text.txt"],
    &["info", "x2-672", "--tensors"],
    &["convert", "nosuch", "to"],
    &["bench", "--preset", "nosuch"],
    &["bench", "--model", "nosuch"],
    &["data", "check", "nothing.toml"],
    &["data", "scene-text", "--out", "scenes", "--count", "2", "--min-height", "50", "--max-height", "10"],
    &["plot", "nothing"],
    &["score", "--metric", "caption", "--references", "nothing.json", "--predictions", "nothing.json"],
    &["report", "a=nothing"],
    &["models", "remove", "nope/hub"],
    &["models", "remove", "../../etc"],
];

#[test]
fn wrong_commands_are_answered_in_their_own_words() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    fs::copy(top().join("picture.png"), here.join("picture.png")).unwrap();
    fs::write(here.join("text.txt"), "hello\n").unwrap();
    for folder in ["empty", "adapter", "pictures", "model"] {
        fs::create_dir(here.join(folder)).unwrap();
    }
    fs::write(here.join("adapter/adapter_config.json"), "{}").unwrap();
    fs::copy(top().join("picture.png"), here.join("pictures/a.png")).unwrap();
    for entry in fs::read_dir(top().join("models/nano")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), here.join("model").join(entry.file_name())).unwrap();
    }
    let typing_error = "task = \"pheye\"\n[model]\npreset = \"nano\"\n[train]\nstpes = 3\n";
    fs::write(here.join("typing-error.toml"), typing_error).unwrap();
    let mut text = String::new();
    for args in WRONG {
        let mut command = alone(here, args);
        command.env("HOME", here).env("HF_HUB_OFFLINE", "1").env("RAYON_NUM_THREADS", "1");
        command.stdin(Stdio::null());
        let Ended { code, out, err } = run(command);
        assert!(matches!(code, Some(1 | 2)), "{args:?}: {code:?} {out} {err}");
        let shown: Vec<String> =
            args.iter().map(|arg| if arg.is_empty() { "\"\"".into() } else { (*arg).into() }).collect();
        let folder = s(&here.canonicalize().unwrap()).to_owned();
        let err = err.replace(&folder, "FOLDER").replace(s(here), "FOLDER");
        let _ = writeln!(text, "$ pheye {}\n{}  [{}]\n", shown.join(" "), err.trim_end(), code.unwrap());
    }
    if cfg!(feature = "hub") {
        snapshot("wrong.txt", &text);
    }
}

#[test]
fn a_config_for_any_data_trains() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    let picture = fs::read(top().join("picture.png")).unwrap();
    let model = s(&top().join("models/nano")).to_owned();
    for folder in ["captions", "lines"] {
        fs::create_dir(here.join(folder)).unwrap();
        fs::write(here.join(folder).join("a.png"), &picture).unwrap();
    }
    fs::write(here.join("captions/a.txt"), "a yellow circle").unwrap();
    let line = r#"{"image": "a.png", "instruction": "what color is it?", "output": "yellow"}"#;
    fs::write(here.join("lines/manifest.jsonl"), format!("{line}\n")).unwrap();
    let conversation = r#"[{"id": "1", "image": "a.png", "conversations": [
        {"from": "human", "value": "<image>\nwhat color is it?"}, {"from": "gpt", "value": "yellow"}]}]"#;
    fs::write(here.join("talk.json"), conversation).unwrap();
    for (data, more) in [("captions", &[][..]), ("lines", &[]), ("talk.json", &["--images", "captions"])] {
        let args = [&["init", "--model", &model, "--data", data, "--out", "run"], more].concat();
        let config = run(alone(here, &args));
        assert_eq!(config.code, Some(0), "{data}: {config:#?}");
        fs::write(here.join("run.toml"), &config.out).unwrap();
        let mut train =
            alone(here, &["train", "run.toml", "--overwrite", "--set", "model.frozen_bf16=false"]);
        let trained = run({
            train.env("HOME", here);
            train
        });
        assert_eq!(trained.code, Some(0), "{data}: {trained:#?}\n{}", config.out);
        // The folder of the run is a model.
        let answered =
            run(alone(here, &["ask", "captions/a.png", "what color is the shape?", "--model", "run"]));
        assert_eq!(answered.code, Some(0), "{answered:#?}");
    }
}
