//! Closed or full standard output and standard error, and ignored signals, do not stop the work.
#![cfg(unix)]

mod common;

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, Ended, ends, pheye, run, s, same};

const RUN: (&str, &str) = ("train", "checkpoint_every = 2\nkeep = 3\nout = \"run\"");

/// A file whose disk is full.
fn full() -> Stdio {
    Stdio::from(File::options().write(true).open("/dev/full").unwrap())
}

/// A pipe whose reader is closed.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn code(command: &mut Command) -> Option<i32> {
    command.status().unwrap().code()
}

/// The command, started by a shell that first executes `first`.
fn after(first: &str, args: &[&str]) -> Command {
    let command = pheye(args);
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{first}; exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args());
    shell.env("RAYON_NUM_THREADS", "1");
    shell
}

#[test]
fn training_goes_on_without_its_outputs() {
    let whole = Bench::new();
    let file = whole.pheye("run.toml", 8, &[RUN]);
    ends(0, ["train", s(&file)]);
    for (out, err) in [
        (unread as fn() -> Stdio, unread as fn() -> Stdio),
        (full, full),
        (Stdio::null, unread),
        (Stdio::null, full),
        (unread, Stdio::null),
    ] {
        let bench = whole.twin();
        std::fs::remove_dir_all(bench.path("run")).unwrap();
        let file = bench.pheye("run.toml", 8, &[RUN]);
        assert_eq!(code(pheye(["train", s(&file)]).stdout(out()).stderr(err())), Some(0));
        same(&bench.left("run"), &whole.left("run"));
        // The exit codes do not change.
        assert_eq!(code(pheye(["train", s(&file)]).stdout(out()).stderr(err())), Some(1));
        assert_eq!(code(pheye(["train", s(&file), "--frobnicate"]).stdout(out()).stderr(err())), Some(2));
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let model = s(&common::top().join("models/nano")).to_owned();
    let image = s(&common::top().join("picture.png")).to_owned();
    let ask = || pheye(["ask", &image, "what color is the shape?", "--model", &model]);
    assert_eq!(code(ask().stdout(full()).stderr(full())), Some(1));
    assert_eq!(code(ask().stdout(unread()).stderr(full())), Some(141));
    assert_eq!(code(ask().stdout(Stdio::null()).stderr(unread())), Some(0));
}

#[test]
fn a_verdict_is_an_exit_code() {
    let golden = common::golden("level1");
    assert_eq!(code(pheye(["verify", s(&golden)]).stdout(unread()).stderr(unread())), Some(0));
    assert_eq!(code(pheye(["verify", s(&golden)]).stdout(full()).stderr(full())), Some(0));
}

/// Waits until the run has logged three steps.
fn under_way(bench: &Bench, child: &mut Child) {
    let patience = Instant::now() + Duration::from_secs(120);
    while bench.steps("run") < 3 {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn ignored_signals_stay_ignored() {
    let whole = Bench::new();
    let file = whole.pheye("run.toml", 120, &[RUN]);
    ends(0, ["train", s(&file)]);
    for signals in ["HUP", "INT TERM"] {
        let bench = whole.twin();
        std::fs::remove_dir_all(bench.path("run")).unwrap();
        let file = bench.pheye("run.toml", 120, &[RUN]);
        let mut command = after(&format!("trap '' {signals}"), &["train", s(&file)]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        under_way(&bench, &mut child);
        for signal in signals.split(' ') {
            let kill = format!("kill -{signal} {}", child.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signals}");
        same(&bench.left("run"), &whole.left("run"));
    }
}

/// SIGHUP saves the run unless it is ignored, even if both outputs are closed.
#[test]
fn a_hangup_saves() {
    let bench = Bench::new();
    let file = bench.pheye("run.toml", 2000, &[RUN]);
    let mut child = pheye(["train", s(&file)]).stdout(unread()).stderr(unread()).spawn().unwrap();
    under_way(&bench, &mut child);
    let kill = format!("kill -HUP {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(bench.checkpoints("run").last().unwrap(), &format!("step-{:06}", bench.steps("run")));
}

#[test]
fn limits_of_the_shell() {
    let bench = Bench::new();
    let file = bench.pheye("run.toml", 8, &[RUN]);
    // Files of at most 8 blocks.
    let ended = run(after("ulimit -f 8", &["train", s(&file)]));
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert_eq!(ended.err.matches("error: ").count(), 1, "{ended:#?}");
    assert_eq!(ended.err.matches("File too large").count(), 1, "{ended:#?}");
    ends(0, ["train", s(&file), "--resume"]);
    // A stack of 64 KiB.
    let image = s(&common::top().join("picture.png")).to_owned();
    let model = s(&bench.path("run/model")).to_owned();
    let ended = run(after("ulimit -s 64", &["ask", &image, "what color is the shape?", "--model", &model]));
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    // More threads than any machine has processors.
    let mut many = pheye(["ask", &image, "what color is the shape?", "--model", &model]);
    many.env("RAYON_NUM_THREADS", "99999");
    let began = Instant::now();
    assert_eq!(run(many).code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn names_that_are_no_text() {
    let bench = Bench::new();
    let model = bench.trained();
    let name = std::ffi::OsStr::from_bytes(b"caf\xff.png");
    let image = bench.path(".").join(name);
    std::fs::copy(bench.path("data/0.png"), &image).unwrap();
    for flag in ["--json", "--also"] {
        let mut command = pheye(["ask"]);
        command.arg(&image).args(["what color is the shape?", "--model", s(&model), flag]);
        if flag == "--also" {
            command.arg(&image).arg("is there a circle?");
        }
        let ended = run(command);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        assert!(ended.out.contains("caf\u{fffd}.png"), "{ended:#?}");
    }
}

#[test]
fn messages_hold_no_escape_sequences() {
    let bench = Bench::new();
    for args in [
        ["ask", "no\x1b]0;title\x07.png", "what?", "--model", "models/nano"],
        ["ask", "picture.png", "what?", "--model", "no\x1b[31m/such\x07/model"],
    ] {
        let ended = Ended::from(pheye(args).current_dir(common::top()).output().unwrap());
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        assert!(!ended.err.contains(['\x1b', '\x07']) && ended.err.contains("\\u{1b}"), "{ended:#?}");
    }
    let manifest = bench.path("data/manifest.jsonl");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("0.png", "\\u001b[31m\\u009b0m.png");
    std::fs::write(&manifest, text).unwrap();
    let file = bench.pheye("run.toml", 8, &[RUN]);
    let ended = run(pheye(["train", s(&file)]));
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(!ended.err.contains(['\x1b', '\u{9b}']) && ended.err.contains("\\u{1b}[31m"), "{ended:#?}");
}

/// A tokenizer may contain escape sequences, and so may an answer; a terminal must not interpret them.
#[test]
#[cfg(target_os = "linux")]
fn answers_hold_no_escape_sequences_on_a_terminal() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: there is no `script` to make a terminal");
        return;
    }
    let bench = Bench::empty();
    let model = bench.path("model");
    common::copy_tree(&common::top().join("models/nano"), &model);
    let file = model.join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let replace =
        serde_json::json!({"type": "Replace", "pattern": {"String": "y"}, "content": "\u{1b}[31my"});
    tokenizer["decoder"] =
        serde_json::json!({"type": "Sequence", "decoders": [tokenizer["decoder"], replace]});
    std::fs::write(&file, tokenizer.to_string()).unwrap();
    let image = common::top().join("picture.png");
    let args = ["ask", s(&image), "what color is the shape?", "--model", s(&model)];
    // A pipe receives the answer unchanged.
    let plain = ends(0, args).out;
    assert!(plain.contains("\x1b[31my"), "{plain:?}");
    let quoted = |text: &str| format!("'{text}'");
    for more in [&[][..], &["--beams", "2"]] {
        let words: Vec<_> = args.iter().chain(more).map(|word| quoted(word)).collect();
        let line = format!("{} {}", quoted(env!("CARGO_BIN_EXE_pheye")), words.join(" "));
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env("RAYON_NUM_THREADS", "1");
        let ended = run(terminal);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        assert!(ended.out.contains("\\u{1b}[31my"), "{ended:#?}");
        assert!(!ended.out.contains("\x1b[31m"), "{ended:#?}");
    }
}

#[test]
fn a_image_from_a_pipe() {
    let bench = Bench::new();
    let model = bench.trained();
    let mut command = pheye(["ask", "/dev/stdin", "what color is the shape?", "--model", s(&model)]);
    command.stdin(File::open(bench.path("data/0.png")).unwrap());
    let plain = run(command);
    assert_eq!(plain.code, Some(0), "{plain:#?}");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut bytes = Vec::new();
    File::open(bench.path("data/0.png")).unwrap().read_to_end(&mut bytes).unwrap();
    std::io::Write::write_all(&mut writer, &bytes).unwrap();
    drop(writer);
    let mut command = pheye(["ask", "/dev/stdin", "what color is the shape?", "--model", s(&model)]);
    command.stdin(reader);
    assert_eq!(run(command).out, plain.out);
}
