//! Every stage of the golden folders of Appendix B passes. Other folders of the same form are tried with
//! `PHEYE_GOLDEN_B=FOLDER`, which names the folder that holds them.

use std::path::PathBuf;

use pheye_eval::verify;
use pheye_ops::Cx;

fn folders() -> Vec<PathBuf> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden_b").into();
    let all: PathBuf = std::env::var_os("PHEYE_GOLDEN_B").map_or(own, PathBuf::from);
    let folders = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = folders.filter(|path| path.join("golden.safetensors").exists()).collect();
    folders.sort();
    folders
}

fn passes(cx: &Cx) {
    let folders = folders();
    let own = std::env::var_os("PHEYE_GOLDEN_B").is_none();
    assert!(folders.len() >= if own { 8 } else { 1 }, "{folders:?}");
    for folder in folders {
        let name = folder.file_name().unwrap().to_owned();
        let report = verify(cx, &folder).unwrap();
        let failed: Vec<_> = report.stages.iter().filter(|s| !s.passed()).collect();
        assert!(failed.is_empty(), "{name:?}: {failed:#?}");
        for stage in ["features", "media", "logits", "loss_sum", "greedy", "train_losses"] {
            assert!(report.stages.iter().any(|s| s.name == stage), "{name:?} has no {stage}");
        }
        assert!(report.stages.iter().any(|s| s.name.starts_with("grad.")), "{name:?}");
    }
}

#[test]
fn golden_folders_pass() {
    passes(&Cx::cpu());
}

#[cfg(feature = "emulator")]
#[test]
fn golden_folders_pass_on_the_emulator() {
    passes(&Cx::new("emulator".parse().unwrap()));
}
