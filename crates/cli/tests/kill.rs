//! A run that is interrupted at any time and resumed ends with the same bits as an uninterrupted one.
#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::{Duration, SystemTime};

use common::{Bench, Ended, config, ends, pheye, s, same, until};

const STEPS: usize = 120;
const RUN: (&str, &str) = ("train", "checkpoint_every = 2\nkeep = 3\nout = \"run\"");

/// A pseudo-random number generator (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Total number of kills: five, or `PHEYE_KILLS`.
fn kills() -> usize {
    std::env::var("PHEYE_KILLS").map_or(5, |text| text.parse().expect("PHEYE_KILLS is a number"))
}

#[test]
fn killed_again_and_again() {
    let whole = Bench::new();
    let file = whole.pheye("run.toml", STEPS, &[RUN]);
    ends(0, ["train", s(&file)]);
    let left = whole.left("run");
    std::fs::remove_dir_all(whole.path("run")).unwrap();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("PHEYE_KILL_SEED").map_or(seed, |text| text.parse().unwrap());
    println!("PHEYE_KILL_SEED={seed} asks for the same moments again");
    let mut random = Random(seed);
    let mut killed = 0;
    while killed < kills() {
        // Five kills per run, or the number that remains.
        let times = (kills() - killed).min(5);
        killed_and_resumed(&whole.twin(), times, &mut random, &left);
        killed += times;
    }
    println!("{killed} kills");
}

/// Kills a run `times` times, each time during a random step of its first half or during the save after it.
fn killed_and_resumed(bench: &Bench, times: usize, random: &mut Random, left: &BTreeMap<String, Vec<u8>>) {
    let file = bench.pheye("run.toml", STEPS, &[RUN]);
    let mut steps: Vec<usize> = (0..times).map(|_| random.below(STEPS as u64 / 2) as usize).collect();
    steps.sort();
    for (i, step) in steps.into_iter().enumerate() {
        let flags: &[&str] = if i == 0 { &["train", s(&file)] } else { &["train", s(&file), "--resume"] };
        let mut child = until(bench, pheye(flags), step);
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "kill {i} after step {step} came too late");
    }
    let ended = ends(0, ["train", s(&file), "--resume"]);
    assert!(!ended.err.contains("not used"), "{ended:#?}");
    same(&bench.left("run"), left);
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn asked_to_stop() {
    let bench = Bench::new();
    // Checkpoints are so rare that only stopping saves one.
    let lines = [("train", "checkpoint_every = 1000\nout = \"run\"")];
    for task in ["pheye", "contrastive", "next-token"] {
        let (whole, stopped) = (bench.twin(), bench.twin());
        let write = |b: &Bench| match task {
            "pheye" => b.pheye("run.toml", STEPS, &lines),
            task => {
                let train = format!("steps = {STEPS}\nbatch = 4\n{}", lines[0].1);
                b.write("run.toml", config(task, &[("train", &train), ("data", "augment = [\"hflip\"]")]))
            }
        };
        ends(0, ["train", s(&write(&whole))]);
        let file = write(&stopped);
        for (i, name) in ["TERM", "INT"].into_iter().enumerate() {
            let flags: &[&str] = if i == 0 { &["train", s(&file)] } else { &["train", s(&file), "--resume"] };
            let child = until(&stopped, pheye(flags), 5 + 30 * i);
            signal(&child, name);
            let ended = Ended::from(child.wait_with_output().unwrap());
            assert_eq!(ended.code, Some(130), "{task} {name} {ended:#?}");
            let step = stopped.steps("run");
            assert!(step < STEPS, "{task} {name} came too late");
            assert!(
                ended.out.contains(&format!("stopped after step {step}; go on with --resume")),
                "{ended:#?}"
            );
            assert_eq!(stopped.checkpoints("run").last().unwrap(), &format!("step-{step:06}"));
        }
        ends(0, ["train", s(&file), "--resume"]);
        // The interrupted run has additional checkpoints, saved when it was stopped.
        let (mut left, whole) = (stopped.left("run"), whole.left("run"));
        left.retain(|name, _| whole.contains_key(name));
        same(&left, &whole);
    }
}

#[test]
fn any_number_of_threads() {
    let bench = Bench::new();
    let runs = ["1", "3"].map(|threads| {
        let bench = bench.twin();
        let file = bench.pheye("run.toml", 20, &[RUN]);
        let mut command = pheye(["train", s(&file)]);
        command.env("RAYON_NUM_THREADS", threads);
        assert!(command.output().unwrap().status.success());
        bench.left("run")
    });
    same(&runs[0], &runs[1]);
    assert!(fs::metadata(bench.path("vision/model/vision.safetensors")).unwrap().len() > 1000);
}
