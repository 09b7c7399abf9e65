//! Runs that take only a moment, with bytes as tokens.
#![allow(dead_code)] // each test program uses its part

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pheye_data::{Encode, Encoded, Example, Store};
use pheye_ops::Cx;
use pheye_train::{Config, Error, Event, Interrupt, Outcome, Start, train};

/// The smallest network that the tests can use.
const NETWORK: &str = include_str!("network.toml");

/// The root of the repository.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A temporary folder with images `0.png`, `1.png`, …, and the configs of the runs on them.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(images: usize) -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        let store = Store::open(top().join("data/easy-vqa/test.zip")).unwrap();
        for i in 0..images {
            bench.write(&format!("{i}.png"), store.read(&format!("images/{i}.png")).unwrap());
        }
        bench.write("tokenizer.json", "any");
        let lines: Vec<_> = (0..images).map(line).collect();
        bench.write("m.jsonl", lines.concat());
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The config of a run in the folder `out`. `data` and `train` are lines of these tables.
    pub(crate) fn config(&self, task: &str, out: &str, data: &str, train: &str) -> Config {
        let backbones = match task {
            "pheye" => "encoder = \"vision/vision.safetensors\"\ndecoder = \"text/text.safetensors\"",
            _ => "",
        };
        let text = format!(
            "task = \"{task}\"\n[model]\npreset = \"nano\"\ntokenizer = \"tokenizer.json\"\n{backbones}\n{NETWORK}\n\
             [data]\ntrain = [\"m.jsonl\"]\ncache_mib = 0\n{data}\n[optim]\nlr = 1e-3\n\
             [train]\nout = \"{out}\"\nseed = 3\n{train}\n"
        );
        Config::load(self.write("run.toml", text)).unwrap()
    }

    /// Trains the backbones for the task `pheye`.
    pub(crate) fn backbones(&self) {
        for (task, name) in [("contrastive", "vision"), ("next-token", "text")] {
            let mut config = self.config(task, "backbone", "", "steps = 1\nbatch = 2");
            config.model.out = Some(name.into());
            run(&config, Start::Over, |_| {}).unwrap();
        }
    }

    /// Trains backbones on the data of `other` and copies them here.
    pub(crate) fn backbones_of(&self, other: &Bench) {
        other.backbones();
        for name in ["vision/vision.safetensors", "text/text.safetensors"] {
            self.write(name, fs::read(other.path(name)).unwrap());
        }
    }

    /// The contents of the files of the model and the metrics of the run in the folder `out`, by name.
    pub(crate) fn left(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let model = self.path(out).join("model");
        let files = fs::read_dir(model).unwrap().map(|entry| entry.unwrap().path());
        let files = files.chain([self.path(out).join("metrics.jsonl")]);
        files.map(|f| (f.file_name().unwrap().to_str().unwrap().into(), fs::read(f).unwrap())).collect()
    }

    /// Names of the checkpoints in the folder `out`.
    pub(crate) fn checkpoints(&self, out: &str) -> Vec<String> {
        let names = fs::read_dir(self.path(out).join("checkpoints")).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The manifest line of image `i`, with texts for every task.
pub(crate) fn line(i: usize) -> String {
    format!(
        "{{\"image\": \"{i}.png\", \"qa\": [[\"what {i}?\", \"shape {i}\"]], \"caption\": \"a shape {i}\"}}\n"
    )
}

pub(crate) fn encoder() -> Box<Encode> {
    Box::new(|text| {
        let (before, learnt) = match text {
            Example::Question(question, answer) => (question, answer),
            Example::Text(text) => ("", text),
        };
        let ids = before.bytes().chain(learnt.bytes()).map(u32::from).collect();
        Ok(Encoded { ids, loss_from: before.len() })
    })
}

/// Runs `config` and calls `on` with each event.
pub(crate) fn run(config: &Config, start: Start, on: impl FnMut(Event)) -> Result<Outcome, Error> {
    train(&Cx::cpu(), config, encoder(), None, start, &Interrupt::default(), on)
}

/// Runs `config` and stops it after step `last`.
pub(crate) fn run_to(config: &Config, start: Start, last: u64) -> Result<Outcome, Error> {
    let stop = Interrupt::default();
    let raise = stop.clone();
    let on = move |event: Event| {
        if matches!(event, Event::Step(report) if report.step == last) {
            raise.stop();
        }
    };
    train(&Cx::cpu(), config, encoder(), None, start, &stop, on)
}
