//! Configurations: JSON as `pheye.json` and as a released `config.json` with its backbones', all else as a training TOML.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use pheye_model::Config;

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
    counted(&folder);
    fs::remove_file(&own).expect("the input is removed");
    // The released configuration names the backbones that the input says, and finds the input itself there.
    fs::write(folder.join("config.json"), data).expect("the input is written");
    if let Ok(config) = Config::load_named(&folder, &|_| Some(folder.clone())) {
        let _ = config.validate();
    }
    fs::remove_file(folder.join("config.json")).expect("the input is removed");
});

/// Reads the configuration in `folder`, and if a model can have it, counts its parameters.
fn counted(folder: &Path) {
    let Ok(config) = Config::load(folder) else { return };
    // Counting goes through each layer, so a billion of them would take its time.
    let layers = config.vision.num_hidden_layers.max(config.text.num_hidden_layers);
    if config.validate().is_ok() && layers <= 1000 {
        let _ = config.counts();
    }
}
