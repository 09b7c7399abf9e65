//! With a frozen vision tower, an image is encoded once, and the run is the same as if it were encoded each time.

mod common;

use common::{Bench, run};
use pheye_train::{Event, Start};

fn trained(bench: &Bench, out: &str, data: &str, train: &str, start: Start) -> Vec<u8> {
    let train =
        format!("steps = 6\nbatch = 2\ncheckpoint_every = 3\ntrainable = [\"*cross_attn_layers*\"]\n{train}");
    let config = bench.config("pheye", out, data, &train);
    run(&config, start, |_: Event| {}).unwrap();
    std::fs::read(bench.path(out).join("model/model.safetensors")).unwrap()
}

#[test]
fn kept_features_change_nothing() {
    let bench = Bench::new(4);
    bench.backbones();
    // Four images, two of them a step: every image is seen three times. Dropout has no adapter to act on.
    let kept = trained(&bench, "kept", "", "", Start::Over);
    assert_eq!(kept, trained(&bench, "small", "features_mib = 0\n", "lora_dropout = 0.0", Start::Over));
    // Resumed in the middle, without the features of the first half.
    let last = bench.path("kept/checkpoints/step-000006");
    std::fs::remove_dir_all(last).unwrap();
    assert_eq!(kept, trained(&bench, "kept", "", "", Start::Resume));
}
