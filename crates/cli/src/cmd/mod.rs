//! One file a subcommand.

pub mod ask;
pub mod bench;
pub mod convert;
pub mod eval;
pub mod generation;
pub mod info;
mod model;
mod tensors;
pub mod train;
pub mod verify;

pub use model::{ModelArg, locate};

use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use pheye::ops::Cx;
use pheye::tensor::Device;

/// Where to compute.
#[derive(clap::Args)]
pub struct DeviceArg {
    /// Where to compute: `cpu`, `cuda`, `cuda:1`, `auto` for the fastest there is, or `emulator`, which checks the GPU
    /// kernels on the CPU, in a build that has it (`--features emulator`)
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
}

impl DeviceArg {
    /// A context on that device.
    pub fn open(&self) -> anyhow::Result<Cx> {
        let device: Device = self.device.parse().context("--device")?;
        Ok(Cx::new(device))
    }
}

/// The folder of the nano model that comes with the source: below the working folder or one above it, or where this
/// program was built.
pub fn shipped_model() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let candidates = here.ancestors().chain(built.ancestors()).map(|dir| dir.join("models/nano"));
    let found = candidates.into_iter().find(|dir| dir.join(pheye::model::CONFIG_FILE).exists());
    found
        .context("the nano model was not found (models/nano in the source); name a model folder with --model")
}

/// A count for an option: an integer from 1.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().map(NonZeroUsize::get).map_err(|_| "an integer from 1 is needed".to_owned())
}

/// `configs/../runs/nano` as `runs/nano`, for a person to read.
pub fn tidy(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut tidy, part| {
        match (part, tidy.components().next_back()) {
            (Component::ParentDir, Some(Component::Normal(_))) => _ = tidy.pop(),
            _ => tidy.push(part),
        }
        tidy
    })
}
