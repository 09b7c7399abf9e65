//! How a run treats an earlier run in its folder, and a full disk.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::tensors::Safetensors;
use common::{Bench, Ended, config, ends, refuses, run, s, same, tree};

const RUN: (&str, &str) = ("train", "checkpoint_every = 2\nkeep = 3\nout = \"run\"");

/// A bench whose folder `run` contains a finished run of eight steps, and the config of that run.
fn ended() -> (Bench, std::path::PathBuf) {
    let bench = Bench::new();
    let file = bench.pheye("run.toml", 8, &[RUN]);
    ends(0, ["train", s(&file)]);
    (bench, file)
}

#[test]
fn an_earlier_run_stays() {
    let (bench, file) = ended();
    let before = tree(&bench.path("run"));
    refuses(["train", s(&file)], &[s(&bench.path("run")), "--resume", "--overwrite"]);
    assert_eq!(ends(2, ["train", s(&file), "--resume", "--overwrite"]).out, "");
    same(&tree(&bench.path("run")), &before);
    assert_eq!(bench.checkpoints("run"), ["step-000004", "step-000006", "step-000008"]);

    // A finished run has nothing left to do.
    ends(0, ["train", s(&file), "--resume"]);
    let left = bench.left("run");
    // `--overwrite` gives the same result and removes the files of the earlier run.
    fs::write(bench.path("run/metrics.jsonl"), "{\"step\":1000}\n").unwrap();
    fs::create_dir(bench.path("run/checkpoints/step-000099")).unwrap();
    ends(0, ["train", s(&file), "--overwrite"]);
    same(&bench.left("run"), &left);
}

#[test]
fn one_run_at_a_time_in_a_folder() {
    let (bench, file) = ended();
    let before = tree(&bench.path("run"));
    let other = fs::File::create(bench.path("run/run.lock")).unwrap();
    other.lock().unwrap();
    for how in ["--overwrite", "--resume"] {
        refuses(["train", s(&file), how], &["another run", s(&bench.path("run"))]);
    }
    same(&tree(&bench.path("run")), &before);
    drop(other);
    ends(0, ["train", s(&file), "--overwrite"]);
}

#[test]
fn another_config() {
    let (bench, file) = ended();
    let before = tree(&bench.path("run"));
    let text = fs::read_to_string(&file).unwrap();
    let other = text.replace("lr = 1e-3", "lr = 2e-3\nweight_decay = 0.5").replace("seed = 7", "seed = 8");
    fs::write(
        &file,
        other.replace(
            "num_hidden_layers = 1\nnum_attention_heads = 4",
            "num_hidden_layers = 1\nnum_attention_heads = 8",
        ),
    )
    .unwrap();
    let parts = [
        "step-000008",
        "optim.lr: 0.001 → 0.002",
        "optim.weight_decay: ",
        "train.seed: 7 → 8",
        "model.config.text.num_attention_heads: 4 → 8",
        "train.out",
    ];
    let err = refuses(["train", s(&file), "--resume"], &parts);
    assert!(!err.contains("optim.eps") && !err.contains("data."), "{err}");
    same(&tree(&bench.path("run")), &before);

    // Keys that do not influence the weights may change.
    fs::write(&file, text.replace("keep = 3", "keep = 2\ntensorboard = false")).unwrap();
    ends(0, ["train", s(&file), "--resume"]);
}

#[test]
fn damaged_checkpoints_are_passed_over() {
    let (bench, file) = ended();
    let whole = bench.left("run");
    let dir = bench.path("run/checkpoints");
    let damage = |path: &Path, how: fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(path).unwrap();
        how(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    damage(&dir.join("step-000008/trained.safetensors"), |b| b.truncate(b.len() - 1));
    damage(&dir.join("step-000006/moments.safetensors"), |b| {
        let middle = b.len() / 2;
        b[middle] ^= 1;
    });
    let err = ends(0, ["train", s(&file), "--resume"]).err;
    for part in [
        "not used",
        "step-000008",
        "trained.safetensors has",
        "step-000006",
        "moments.safetensors",
        "steps 4 to 8",
    ] {
        assert!(err.contains(part), "no {part} in\n{err}");
    }
    same(&bench.left("run"), &whole);

    for name in bench.checkpoints("run") {
        damage(&dir.join(name).join("state.json"), |b| b.truncate(b.len() / 2));
    }
    let before = tree(&bench.path("run"));
    refuses(
        ["train", s(&file), "--resume"],
        &["no checkpoint of", "step-000004", "step-000006", "step-000008", "state.json"],
    );
    same(&tree(&bench.path("run")), &before);
}

/// Runs the command with a limit of `kib` blocks on the size of each file. A write beyond it fails, as on a
/// full disk.
#[cfg(unix)]
fn limited(kib: usize, args: &[&str]) -> Ended {
    let mut command = Command::new("sh");
    // The unit of `ulimit -f` is 512 bytes in this shell, 1024 bytes in some others.
    let script = format!("trap '' XFSZ; ulimit -f {kib} || exit 9; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_pheye")]).args(args).env("RAYON_NUM_THREADS", "1");
    run(command)
}

#[cfg(unix)]
#[test]
fn full_disk() {
    let (bench, file) = ended();
    let whole = bench.left("run");
    for step in ["step-000006", "step-000008"] {
        fs::remove_dir_all(bench.path("run/checkpoints").join(step)).unwrap();
    }
    let before = tree(&bench.path("run/checkpoints"));
    let failed = limited(32, &["train", s(&file), "--resume"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.err.contains("error: ") && failed.err.contains(".safetensors"), "{failed:#?}");
    same(&tree(&bench.path("run/checkpoints")), &before);
    ends(0, ["train", s(&file), "--resume"]);
    let mut left = bench.left("run");
    // Only one of the two checkpoints before the resumed one existed and could be kept.
    left.retain(|name, _| whole.contains_key(name));
    same(&left, &whole);

    let to = bench.path("converted");
    let model = bench.path("run/model");
    let failed = limited(32, &["convert", s(&model), s(&to)]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.err.contains("model.safetensors"), "{failed:#?}");
    assert!(!to.exists());
}

#[test]
fn not_finite() {
    let bench = Bench::new();
    // With this learning rate, the weights are about 1e30 after the first step.
    let diverging = [("train", "checkpoint_every = 1\nout = \"run\""), ("optim", "schedule = \"constant\"")];
    let file = bench.pheye("run.toml", 8, &diverging);
    let text = fs::read_to_string(&file).unwrap().replace("lr = 1e-3", "lr = 1e30");
    fs::write(&file, text).unwrap();
    let err = refuses(["train", s(&file)], &["of step 2 is", "data/", ".png", "step-000001"]);
    // The checkpoint can be resumed, and the same error occurs again.
    let again = refuses(["train", s(&file), "--resume"], &["steps 1 to 8"]);
    let last = |text: &str| text.lines().last().unwrap().to_owned();
    assert_eq!(last(&err), last(&again));
    assert_eq!(bench.checkpoints("run"), ["step-000001"]);
}

#[test]
fn a_backbone_that_changed() {
    let (bench, file) = ended();
    let whole = bench.left("run");
    for step in ["step-000006", "step-000008"] {
        fs::remove_dir_all(bench.path("run/checkpoints").join(step)).unwrap();
    }
    let backbone = bench.path("text/model/text.safetensors");
    let good = fs::read(&backbone).unwrap();
    let mut bad = Safetensors::read(&backbone);
    let name = bad.find(&["lm_head.bias"]);
    bad.map(&name, |i, v| if i == 100 { f32::NAN } else { v });
    bad.write(&backbone);
    let before = tree(&bench.path("run/checkpoints"));
    refuses(
        ["train", s(&file), "--resume"],
        &["step-000004", "have changed", "text.safetensors", "--overwrite"],
    );
    same(&tree(&bench.path("run/checkpoints")), &before);
    fs::write(&backbone, good).unwrap();
    ends(0, ["train", s(&file), "--resume"]);
    same(&bench.left("run"), &whole);
}

#[test]
fn poisoned_weight() {
    let (bench, _) = ended();
    let backbone = bench.path("text/model/text.safetensors");
    let mut bad = Safetensors::read(&backbone);
    let name = bad.find(&["lm_head.weight"]);
    bad.map(&name, |_, v| v * f32::INFINITY);
    bad.write(&backbone);
    let fresh = bench.pheye("fresh.toml", 8, &[("train", "out = \"fresh\"")]);
    refuses(["train", s(&fresh)], &["the loss of step 1 is NaN", "the last checkpoint is none"]);
}

#[test]
fn nothing_to_resume() {
    let bench = Bench::new();
    let text = config("next-token", &[("train", "steps = 2\nbatch = 4\nout = \"new\"")]);
    let file = bench.write("new.toml", text);
    let err = ends(0, ["train", s(&file), "--resume"]).err;
    assert!(err.contains("steps 0 to 2"), "{err}");
    assert_eq!(bench.checkpoints("new"), ["step-000002"]);
}

#[test]
fn a_model_over_its_own_tokenizer() {
    let bench = Bench::new();
    let before = fs::read(bench.path("tokenizer.json")).unwrap();
    let text =
        config("next-token", &[("train", "steps = 2\nbatch = 4\nout = \"new\""), ("model", "out = \".\"")]);
    ends(0, ["train", s(&bench.write("new.toml", text))]);
    assert!(fs::read(bench.path("tokenizer.json")).unwrap() == before, "the tokenizer has changed");
}
