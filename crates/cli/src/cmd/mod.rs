//! One module per subcommand.

pub(crate) mod ask;
pub(crate) mod baselines;
pub(crate) mod bench;
pub(crate) mod caption;
pub(crate) mod chat;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod generation;
pub(crate) mod info;
pub(crate) mod init;
mod model;
#[cfg(feature = "hub")]
pub(crate) mod models;
pub(crate) mod plan;
pub(crate) mod plot;
pub(crate) mod report;
pub(crate) mod runs;
pub(crate) mod score;
pub(crate) mod shell;
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
