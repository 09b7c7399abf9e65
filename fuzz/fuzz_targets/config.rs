//! Configurations: JSON as `pheye.json` and as a released `config.json` with its backbones', all else as a training TOML.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use pheye_model::{Config, Conversion, StepShape, Recompute};

fuzz_target!(|data: &[u8]| {
    if !data.starts_with(b"{") {
        let Ok(text) = std::str::from_utf8(data) else { return };
        if let Ok(config) = pheye_train::Config::parse(text, Path::new("run.toml"), PathBuf::new()) {
            let echo = config.echo().expect("what was read can be written");
            let _ = (config.network(), config.differences(&echo));
        }
        return;
    }
    let folder = pheye_fuzz::folder();
    let own = folder.join("pheye.json");
    fs::write(&own, data).expect("the input is written");
    built(&folder);
    fs::remove_file(&own).expect("the input is removed");
    // The released configuration names the backbones that the input says, and finds the input itself there.
    fs::write(folder.join("config.json"), data).expect("the input is written");
    if let Ok(config) = Config::load_named(&folder, &|_| Some(folder.clone())) {
        config.validate().expect("what was loaded is possible");
    }
    for (vision, text) in [(Some(folder.as_path()), None), (None, Some(folder.as_path()))] {
        if let Ok(config) = Config::default().with_backbones(vision, text) {
            let _ = config.counts();
        }
    }
    fs::remove_file(folder.join("config.json")).expect("the input is removed");
});

/// Reads the configuration in `folder`; if a model can have it, counts its parameters and its memory, and builds it over a
/// checkpoint without tensors, which must not fit.
fn built(folder: &Path) {
    let Ok(config) = Config::load(folder) else { return };
    let counts = config.counts().expect("what was loaded is possible");
    assert!(counts.frozen() > 0 && counts.trained() > 0);
    let most = usize::MAX;
    let recompute = Recompute { vision: most, text: most };
    config.memory(StepShape { images: most, tokens: most, recompute, element: 4 }).expect("it has a size");
    let empty = folder.join("model.safetensors");
    if !empty.exists() {
        fs::write(&empty, b"\x02\0\0\0\0\0\0\0{}").expect("the weights are written");
    }
    assert!(Conversion::open(folder, &|_| None, [None, None]).is_err());
}
