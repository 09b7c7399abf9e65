//! One module per subcommand.

pub(crate) mod ask;
pub(crate) mod baselines;
pub(crate) mod bench;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod generation;
pub(crate) mod info;
mod model;
pub(crate) mod plan;
pub(crate) mod plot;
pub(crate) mod report;
pub(crate) mod runs;
pub(crate) mod score;
mod tensors;
pub(crate) mod train;
pub(crate) mod verify;

pub(crate) use model::{ModelArg, locate};

use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use pheye::ops::Cx;
use pheye::tensor::Device;

/// The option `--device`.
#[derive(clap::Args)]
pub(crate) struct DeviceArg {
    /// Where to compute: `cpu`, `cuda`, `cuda:1`, `auto` for the fastest available, or `emulator`, which
    /// checks the GPU kernels on the CPU (needs a build with `--features emulator`)
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
}

impl DeviceArg {
    /// The device as it was given.
    pub(crate) fn name(&self) -> &str {
        &self.device
    }

    /// A context on the device.
    pub(crate) fn open(&self) -> anyhow::Result<Cx> {
        let device: Device = self.device.parse().context("--device")?;
        Ok(Cx::new(device))
    }
}

/// The folder of the nano model of this repository: `models/nano` in the working directory, in one of its
/// parents, or in the source tree that this program was built from.
pub(crate) fn shipped_model() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let candidates = here.ancestors().chain(built.ancestors()).map(|dir| dir.join("models/nano"));
    let found = candidates.into_iter().find(|dir| dir.join(pheye::model::CONFIG_FILE).exists());
    found
        .context("the nano model was not found (models/nano in the source); name a model folder with --model")
}

/// Parses the value of an option as an integer of at least 1.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().map(NonZeroUsize::get).map_err(|_| "an integer from 1 is needed".to_owned())
}

/// Simplifies `configs/../runs/nano` to `runs/nano`, for messages.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut tidy, part| {
        match (part, tidy.components().next_back()) {
            (Component::ParentDir, Some(Component::Normal(_))) => _ = tidy.pop(),
            _ => tidy.push(part),
        }
        tidy
    })
}
