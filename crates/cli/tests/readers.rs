//! A run over each published form of data ends with the same bits when it is killed, when its data vanishes and
//! comes back, and when the clock jumps.
#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use common::{Bench, Ended, config, copy_tree, data_set, pheye, s, same, top, until};
use pheye_data::{Format, Source, SourceConfig};

const STEPS: usize = 40;

/// The published file of each form below `tests/data` of the crate `data`, and the file of the answers if it is
/// another.
const FILES: &[(&str, &str, &str)] = &[
    ("conversation", "conversation.json", ""),
    ("mix665k", "llava_v1_5_mix665k.json", ""),
    ("llavar", "llavar.json", ""),
    ("lrv", "filter_cap1.json", ""),
    ("st-vqa", "train_task_3.json", ""),
    ("textvqa", "TextVQA_0.5.1_train.json", ""),
    ("a-okvqa", "aokvqa_v1p0_train.json", ""),
    ("ok-vqa", "OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json"),
    ("gqa", "train_balanced_questions.json", ""),
    ("ocr-vqa", "dataset.json", ""),
    ("vqav2", "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"),
    ("textcaps", "TextCaps_0.1_train.json", ""),
    ("coco-captions", "captions_train2014.json", ""),
];

/// The config of a run over the source of `format`; images are read from disk each time they are seen.
fn written(bench: &Bench, format: &str, file: &str, keys: &str) {
    let source = format!("[[data.source]]\nformat = \"{format}\"\npath = \"data/{file}\"\n{keys}");
    let data = format!("cache_mib = 0\nprefetch = 1\naugment = [\"hflip\"]\n{source}");
    let train = format!("steps = {STEPS}\nbatch = 2\naccumulation = 2\ncheckpoint_every = 3\nout = \"run\"");
    let text = config("pheye", &[("data", &data), ("train", &train)]);
    let text = text.replace("train = [\"data\"]\n", "");
    bench.write("run.toml", text.replace("max_position_embeddings = 64", "max_position_embeddings = 256"));
}

/// Writes an image for each item of the source into `data`, under the name by which the source asks for it.
fn images(data: &Path, format: &str, file: &str, answers: &str) {
    let format: Format = serde_json::from_value(format.into()).unwrap();
    let mut table = SourceConfig::new(format, data.join(file));
    table.annotations = (!answers.is_empty()).then(|| data.join(answers));
    let source = Source::open(&table, None).unwrap();
    for i in 0..source.len() {
        let path = data.join(source.item(i).unwrap().image.unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(i)).unwrap();
    }
}

fn png(i: usize) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let pixel = |x, y| image::Rgb([(30 * i as u32 + 8 * x) as u8, (8 * y) as u8, 128]);
    image::RgbImage::from_fn(24, 24, pixel).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A tar archive of files with contents.
fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, contents) in files {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", contents.len()).as_bytes());
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(contents);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// `pheye train run.toml` with `flags`, without the indices of the user.
fn train(bench: &Bench, flags: &[&str]) -> Command {
    let mut command = pheye(["train", s(&bench.path("run.toml"))].iter().chain(flags));
    command.env("XDG_CACHE_HOME", bench.path("cache"));
    command
}

/// Starts the run and kills it after `step` steps.
fn kill(bench: &Bench, train: Command, step: usize) {
    let mut child = until(bench, train, step);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9), "killed too late");
}

/// Runs to the end, without a checkpoint that could not be used.
fn finish(name: &str, train: Command) {
    let ended = common::run(train);
    assert_eq!(ended.code, Some(0), "{name} {ended:#?}");
    assert!(!ended.err.contains("not used"), "{name} {ended:#?}");
}

/// A whole run, and the same run killed once and robbed of its data once.
fn disturbed(bench: &Bench, format: &str, file: &str, keys: &str) {
    written(bench, format, file, keys);
    finish(format, train(bench, &[]));
    let left = bench.left("run");
    fs::remove_dir_all(bench.path("run")).unwrap();

    kill(bench, train(bench, &[]), 10);
    let child = until(bench, train(bench, &["--resume"]), 20);
    fs::rename(bench.path("data"), bench.path("away")).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    // Containers stay open, so that a run can go on without their names.
    if ended.code != Some(0) {
        assert_eq!(ended.code, Some(1), "{format} {ended:#?}");
        assert!(ended.err.contains("error: ") && ended.err.contains("data/"), "{format} {ended:#?}");
    }
    fs::rename(bench.path("away"), bench.path("data")).unwrap();
    finish(format, train(bench, &["--resume"]));
    same(&bench.left("run"), &left);
    fs::remove_dir_all(bench.path("run")).unwrap();
}

#[test]
fn published_files() {
    let bench = Bench::new();
    let miniatures = top().join("crates/data/tests/data");
    for (format, file, answers) in FILES {
        fs::remove_dir_all(bench.path("data")).unwrap();
        copy_tree(&miniatures, &bench.path("data"));
        images(&bench.path("data"), format, file, answers);
        let keys = match *answers {
            "" => String::new(),
            file => format!("annotations = \"data/{file}\""),
        };
        disturbed(&bench, format, file, &keys);
    }
}

#[test]
fn containers_and_folders() {
    let bench = Bench::new();
    let fresh = || {
        fs::remove_dir_all(bench.path("data")).unwrap();
        data_set(&bench.path("data"), 8);
    };
    fresh();
    disturbed(&bench, "lines", "manifest.jsonl", "");

    fresh();
    for i in 0..8 {
        bench.write(&format!("data/{i}.txt"), format!("shape {i}"));
    }
    disturbed(&bench, "folder", "", "prompt = \"caption\"");

    fresh();
    let member = |i: usize| [(format!("{i}.png"), png(i)), (format!("{i}.txt"), format!("shape {i}").into())];
    for shard in 0..2 {
        let files: Vec<_> = (6 * shard..6 * shard + 6).flat_map(member).collect();
        bench.write(&format!("data/shards/{shard}.tar"), tar(&files));
    }
    disturbed(&bench, "webdataset", "shards", "prompt = \"caption\"");

    copy_tree(&top().join("crates/cli/tests/data/readers"), &bench.path("data"));
    disturbed(&bench, "parquet", "images.parquet", "");

    let ask = |i: usize| {
        let key = format!("LA_IMG_{i:012}");
        format!(
            "\"I{i}\": {{\"instruction\": \"what is {i}?\", \"answer\": \"it is {i}\", \"image_ids\": [\"{key}\"]}}"
        )
    };
    let asked: Vec<_> = (0..12).map(ask).collect();
    bench.write("data/instructions.json", format!("{{\"meta\": {{}}, \"data\": {{{}}}}}", asked.join(", ")));
    disturbed(&bench, "mimic-it", "instructions.json", "images = \"data/mimic\"");
    let image = |i| format!("\"LA_IMG_{i:012}\": \"{}\"", BASE64_STANDARD.encode(png(i)));
    bench.write("data/la.json", format!("{{{}}}", (0..12).map(image).collect::<Vec<_>>().join(", ")));
    disturbed(&bench, "mimic-it", "instructions.json", "images = \"data/la.json\"");
}

/// A library that, loaded before the others, lets the wall clock jump by years in both directions.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *t) {
    static unsigned calls;
    int code = syscall(SYS_clock_gettime, clock, t);
    if (clock == CLOCK_REALTIME) t->tv_sec += (calls++ % 2 ? 1 : -1) * 100000000L;
    return code;
}
"#;

#[cfg(target_os = "linux")]
#[test]
fn a_clock_that_jumps() {
    let bench = Bench::new();
    written(&bench, "lines", "manifest.jsonl", "");
    finish("clock", train(&bench, &[]));
    let left = bench.left("run");
    fs::remove_dir_all(bench.path("run")).unwrap();

    let (source, library) = (bench.write("clock.c", CLOCK), bench.path("clock.so"));
    // The compiler that links Rust programs.
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o", s(&library), s(&source)]).status();
    assert!(built.unwrap().success());
    let jumping = |flags: &[&str]| {
        let mut command = train(&bench, flags);
        command.env("LD_PRELOAD", &library);
        command
    };
    kill(&bench, jumping(&[]), 15);
    finish("clock", jumping(&["--resume"]));
    same(&bench.left("run"), &left);
}
