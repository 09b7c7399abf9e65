//! Checkpoints after damage, failed writes and kills.

use std::fs;
use std::path::{Path, PathBuf};

use pheye_train::{Checkpoints, Config, Error, State};

fn state(step: u64) -> State {
    State {
        step,
        samples: step * 16,
        tokens: 7,
        best: Some((0.1 + 0.2, 3)),
        config: serde_json::Value::Null,
        ..State::default()
    }
}

fn write(dir: &Path) -> pheye_train::Result<()> {
    fs::write(dir.join("trained.safetensors"), vec![1; 1000]).unwrap();
    fs::write(dir.join("moments.safetensors"), vec![2; 2000]).unwrap();
    Ok(())
}

fn full_disk(dir: &Path) -> pheye_train::Result<()> {
    fs::write(dir.join("trained.safetensors"), vec![1; 10]).unwrap();
    Err(Error::Write { path: dir.into(), source: std::io::ErrorKind::StorageFull.into() })
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn saved(keep: usize, steps: &[u64]) -> (tempfile::TempDir, Checkpoints, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path().join("checkpoints"), keep).unwrap();
    let paths = steps.iter().map(|s| checkpoints.save(&state(*s), write).unwrap()).collect();
    (dir, checkpoints, paths)
}

#[test]
fn the_last_n_stay_and_the_newest_is_found() {
    let (dir, checkpoints, _) = saved(2, &[5, 10, 15]);
    assert_eq!(names(&dir.path().join("checkpoints")), ["step-000010", "step-000015"]);
    let latest = checkpoints.latest().unwrap().unwrap();
    assert_eq!(latest.state, state(15));
    assert!(latest.skipped.is_empty() && latest.path.ends_with("step-000015"));
    assert!(saved(1, &[]).1.latest().unwrap().is_none());
}

#[test]
fn damage_of_any_kind_is_skipped_with_its_reason() {
    type Harm = fn(&Path);
    let harms: [(Harm, &str); 5] = [
        (|p| fs::write(p.join("trained.safetensors"), [1; 999]).unwrap(), "999 bytes instead of 1000"),
        (
            |p| fs::write(p.join("moments.safetensors"), [3; 2000]).unwrap(),
            "moments.safetensors have changed",
        ),
        (|p| fs::remove_file(p.join("trained.safetensors")).unwrap(), "trained.safetensors: "),
        (|p| fs::remove_file(p.join("state.json")).unwrap(), "state.json: "),
        (|p| fs::write(p.join("state.json"), "{").unwrap(), "state.json: "),
    ];
    for (harm, reason) in harms {
        let (_dir, checkpoints, paths) = saved(3, &[1, 2]);
        harm(&paths[1]);
        let latest = checkpoints.latest().unwrap().unwrap();
        assert_eq!((latest.state.step, latest.skipped.len()), (1, 1));
        assert!(
            latest.skipped[0].contains(reason) && latest.skipped[0].contains("step-000002"),
            "{:?}",
            latest.skipped
        );
        harm(&paths[0]);
        assert!(matches!(checkpoints.latest(), Err(Error::AllDamaged { reasons, .. }) if reasons.len() == 2));
    }
}

#[test]
fn a_flipped_bit_of_the_state_is_noticed() {
    let (_dir, checkpoints, paths) = saved(3, &[1, 2]);
    let path = paths[1].join("state.json");
    let good = fs::read(&path).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&good).unwrap()["step"], 2);
    for bit in (0..8 * good.len()).step_by(37) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bad).unwrap();
        let latest = checkpoints.latest().unwrap().unwrap();
        assert_eq!((latest.state.step, latest.skipped.len()), (1, 1), "bit {bit}");
        assert!(latest.skipped[0].contains("state.json: it"), "{:?}", latest.skipped);
    }
    fs::write(&path, good).unwrap();
    assert_eq!(checkpoints.latest().unwrap().unwrap().state.step, 2);
}

#[test]
fn a_step_is_that_of_its_folder_and_old_states_are_named() {
    let (_dir, checkpoints, paths) = saved(3, &[1, 2]);
    fs::rename(&paths[1], paths[1].with_file_name("step-000009")).unwrap();
    let latest = checkpoints.latest().unwrap().unwrap();
    assert!(latest.skipped[0].contains("it is of step 2"), "{:?}", latest.skipped);
    fs::remove_dir_all(paths[1].with_file_name("step-000009")).unwrap();

    fs::write(paths[0].join("state.json"), "{\"step\": 1, \"samples\": 16, \"files\": {}}").unwrap();
    let error = checkpoints.latest().unwrap_err().to_string();
    assert!(error.contains("an earlier version wrote it"), "{error}");
}

#[test]
fn a_failed_save_leaves_everything_as_it_was() {
    let (dir, checkpoints, _) = saved(1, &[1]);
    let error = checkpoints.save(&state(2), full_disk).unwrap_err();
    assert!(matches!(error, Error::Write { .. }));
    checkpoints.save(&state(1), full_disk).unwrap_err();
    assert_eq!(names(&dir.path().join("checkpoints")), ["step-000001"]);
    assert_eq!(checkpoints.latest().unwrap().unwrap().state, state(1));
}

#[test]
fn saving_a_step_again_replaces_it() {
    let (dir, checkpoints, _) = saved(2, &[1]);
    let again = State { tokens: 99, ..state(1) };
    checkpoints.save(&again, write).unwrap();
    assert_eq!(checkpoints.latest().unwrap().unwrap().state, again);
    assert_eq!(names(&dir.path().join("checkpoints")), ["step-000001"]);
}

#[test]
fn what_a_killed_run_left_is_cleared_up() {
    let (dir, checkpoints, paths) = saved(2, &[1, 2]);
    let dir = dir.path().join("checkpoints");
    // As left by a run killed while writing step 3, and between the two renames that replace step 2.
    fs::create_dir(dir.join(".partial-step-000003")).unwrap();
    full_disk(&dir.join(".partial-step-000003")).unwrap_err();
    fs::rename(&paths[1], dir.join(".replaced-step-000002")).unwrap();
    assert_eq!(checkpoints.latest().unwrap().unwrap().state.step, 1);
    let checkpoints = Checkpoints::open(&dir, 2).unwrap();
    assert_eq!(checkpoints.latest().unwrap().unwrap().state.step, 2);
    assert_eq!(names(&dir), ["step-000001", "step-000002"]);
}

#[test]
fn a_damaged_later_checkpoint_does_not_push_out_good_ones() {
    let (_dir, checkpoints, paths) = saved(1, &[20]);
    fs::write(paths[0].join("state.json"), "").unwrap();
    checkpoints.save(&state(10), write).unwrap();
    assert_eq!(checkpoints.latest().unwrap().unwrap().state.step, 10);
}

#[test]
fn another_config_is_refused_with_the_keys_that_differ() {
    let text = "task = 'pheye'\n[model]\n[data]\ntrain = ['a.zip']\n[train]\nsteps = 9\n";
    let parse = |text: &str| Config::parse(text, Path::new("run.toml"), PathBuf::new()).unwrap();
    let (_dir, checkpoints, _) = saved(2, &[]);
    let config = parse(text);
    checkpoints.save(&State { config: config.echo().unwrap(), ..state(3) }, write).unwrap();
    assert_eq!(checkpoints.resume(&config).unwrap().unwrap().state.step, 3);
    let error = checkpoints.resume(&parse(&(text.to_string() + "seed = 4\n"))).unwrap_err();
    assert!(
        matches!(&error, Error::OtherConfig { differences, .. } if differences == &["train.seed: 0 → 4"])
    );
    assert!(error.to_string().contains("train.seed: 0 → 4"));
}
