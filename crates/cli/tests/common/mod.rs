//! Shared by the tests of the command: running it, training runs of about a second, and files to damage.
#![allow(dead_code)] // each test program uses a part of this module

pub(crate) mod tensors;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The root of the repository.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn golden(case: &str) -> PathBuf {
    top().join("tests/golden").join(case)
}

/// The command with one compute thread, because the tests themselves run in parallel.
pub(crate) fn pheye<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pheye"));
    command.args(args).env("RAYON_NUM_THREADS", "1");
    command
}

/// The exit code and output of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ended {
    fn from(o: Output) -> Ended {
        let text = |bytes| String::from_utf8(bytes).expect("output is text");
        let ended = Ended { code: o.status.code(), out: text(o.stdout), err: text(o.stderr) };
        assert!(!ended.err.contains("panicked"), "{ended:#?}");
        ended
    }
}

pub(crate) fn run(mut command: Command) -> Ended {
    command.output().expect("the command starts").into()
}

/// Runs the command, which must exit with `code`.
#[track_caller]
pub(crate) fn ends<S: AsRef<std::ffi::OsStr>>(code: i32, args: impl IntoIterator<Item = S>) -> Ended {
    let ended = run(pheye(args));
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    ended
}

/// Runs the command, which must fail with an error that contains all of `parts`.
#[track_caller]
pub(crate) fn refuses<S: AsRef<std::ffi::OsStr>>(
    args: impl IntoIterator<Item = S>,
    parts: &[&str],
) -> String {
    let ended = ends(1, args);
    assert!(ended.err.contains("error: "), "{ended:#?}");
    for part in parts {
        assert!(ended.err.contains(part), "no `{part}` in:\n{}", ended.err);
    }
    ended.err
}

pub(crate) fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The contents of every file below `dir`, by path.
pub(crate) fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(top: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(top, &path, files);
            } else {
                files.insert(path.strip_prefix(top).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(dir, dir, &mut files);
    files
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for (name, bytes) in tree(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Writes a data set of images with questions and captions into `dir`.
pub(crate) fn data_set(dir: &Path, images: usize) {
    fs::create_dir_all(dir).unwrap();
    let colors =
        [("red", [220, 30, 30]), ("blue", [30, 40, 220]), ("green", [20, 160, 60]), ("black", [10, 10, 10])];
    let mut manifest = String::new();
    for i in 0..images {
        let (color, rgb) = colors[i % colors.len()];
        let (left, size) = (2 + i as u32 % 5, 8 + i as u32);
        let image = image::RgbImage::from_fn(32, 32, |x, y| {
            let inside = (left..left + size).contains(&x) && (4..4 + size).contains(&y);
            image::Rgb(if inside { rgb } else { [240, 240, 230] })
        });
        image.save(dir.join(format!("{i}.png"))).unwrap();
        let line = serde_json::json!({
            "image": format!("{i}.png"),
            "qa": [["what color is the shape?", color], ["is there a circle?", "no"], ["is a red shape present?", "yes"]],
            "caption": format!("a {color} rectangle"),
        });
        manifest += &format!("{line}\n");
    }
    fs::write(dir.join("manifest.jsonl"), manifest).unwrap();
}

/// The network of the runs below: every part of Pheye, in the smallest size.
pub(crate) const NETWORK: &str = include_str!("../../../train/tests/common/network.toml");

/// The text of a config; `extra` are lines with the name of their table, such as `("train", "keep = 3")`.
pub(crate) fn config(task: &str, extra: &[(&str, &str)]) -> String {
    let lines = |table: &str| {
        let lines: Vec<_> = extra.iter().filter(|(t, _)| *t == table).map(|(_, line)| *line).collect();
        lines.join("\n")
    };
    let backbones = match task {
        "pheye" => "encoder = \"vision/model/vision.safetensors\"\ndecoder = \"text/model/text.safetensors\"",
        _ => "",
    };
    format!(
        "task = \"{task}\"\n[model]\npreset = \"nano\"\ntokenizer = \"tokenizer.json\"\n{backbones}\n{}\n{NETWORK}\n\
         [data]\ntrain = [\"data\"]\n{}\n[optim]\nlr = 1e-3\n{}\n[train]\n{}\n",
        lines("model"),
        lines("data"),
        lines("optim"),
        lines("train"),
    )
}

/// A folder with data, a tokenizer and backbones that `pheye train` produced.
pub(crate) struct Bench {
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Bench {
    pub(crate) fn empty() -> Bench {
        let temporary = tempfile::tempdir().unwrap();
        Bench { dir: temporary.path().to_owned(), _temporary: Some(temporary) }
    }

    pub(crate) fn new() -> Bench {
        Bench::empty().filled()
    }

    /// The same in the folder `dir`, which is emptied first.
    pub(crate) fn at(dir: PathBuf) -> Bench {
        if dir.exists() {
            fs::remove_dir_all(&dir).unwrap();
        }
        Bench { dir, _temporary: None }.filled()
    }

    /// Data and a tokenizer, without backbones.
    pub(crate) fn small() -> Bench {
        let bench = Bench::empty();
        data_set(&bench.path("data"), 8);
        fs::copy(top().join("models/nano/tokenizer.json"), bench.path("tokenizer.json")).unwrap();
        bench
    }

    fn filled(self) -> Bench {
        let bench = self;
        data_set(&bench.path("data"), 8);
        fs::copy(top().join("models/nano/tokenizer.json"), bench.path("tokenizer.json")).unwrap();
        for (name, task) in [("vision", "contrastive"), ("text", "next-token")] {
            let lines = format!("steps = 4\nbatch = 4\ncheckpoint_every = 2\nout = \"{name}\"");
            let file = bench.write(&format!("{name}.toml"), config(task, &[("train", &lines)]));
            ends(0, ["train", s(&file)]);
        }
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The config of a Pheye run with every source of randomness: sample order, questions, augmentation,
    /// dropout.
    pub(crate) fn pheye(&self, name: &str, steps: usize, extra: &[(&str, &str)]) -> PathBuf {
        let lines = format!("steps = {steps}\nbatch = 2\naccumulation = 2\nseed = 7");
        let mut all =
            vec![("train", lines.as_str()), ("data", "questions = 2\naugment = [\"hflip\", \"shift:3\"]")];
        all.extend(extra);
        self.write(name, config("pheye", &all))
    }

    /// A copy of the folder elsewhere, for a run whose files can be compared with this one's: configs hold
    /// relative paths.
    pub(crate) fn twin(&self) -> Bench {
        let twin = Bench::empty();
        copy_tree(&self.dir, &twin.dir);
        twin
    }

    /// The files of the run in the folder `run` that must not depend on interruptions: model, checkpoints,
    /// metrics. Durations differ from run to run.
    pub(crate) fn left(&self, run: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = tree(&self.path(run));
        files.retain(|name, _| !name.starts_with("tensorboard") && name != "timing.jsonl");
        files
    }

    /// Names of the checkpoints in the folder `run`, oldest first.
    pub(crate) fn checkpoints(&self, run: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(run).join("checkpoints")) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Number of steps that the run in the folder `run` has logged so far.
    pub(crate) fn steps(&self, run: &str) -> usize {
        let text = fs::read(self.path(run).join("metrics.jsonl")).unwrap_or_default();
        text.iter().filter(|b| **b == b'\n').count()
    }

    /// Trains for four steps in the folder `run` and returns the folder of the model.
    pub(crate) fn trained(&self) -> PathBuf {
        let file = self.pheye("run.toml", 4, &[("train", "out = \"run\"")]);
        ends(0, ["train", s(&file)]);
        self.path("run/model")
    }
}

/// Starts `train`, a run in the folder `run`, and waits until it has logged `step` steps.
pub(crate) fn until(bench: &Bench, mut train: Command, step: usize) -> Child {
    let mut child = train.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(120);
    while bench.steps("run") < step {
        assert!(child.try_wait().unwrap().is_none(), "ended before step {step}");
        assert!(Instant::now() < patience, "step {step} is not reached");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Asserts that both have the same files with the same contents; names those that differ without printing
/// their contents.
#[track_caller]
pub(crate) fn same(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>) {
    let names: Vec<_> = a.keys().collect();
    assert_eq!(names, b.keys().collect::<Vec<_>>());
    let differ: Vec<_> = names.iter().filter(|n| a[**n] != b[**n]).collect();
    assert!(differ.is_empty(), "{differ:?} differ");
}
