//! Which model a command means: the shipped one, a folder, or a name on the Hugging Face hub.

use std::path::Path;

use anyhow::bail;
use clap::ValueEnum;
use pheye::model::Options;
use pheye::ops::Cx;
use pheye::tensor::Device;
use pheye::{Assistant, ModelFiles};

use crate::out::note;
use crate::progress::Loading;

/// The model that a command works with.
#[derive(clap::Args)]
pub struct ModelArg {
    /// The model: a folder in this project's layout or the released one, or a name on the Hugging Face hub such as
    /// `miguelcarv/Pheye-x4-672` (`OWNER/NAME@REVISION` for another than `main`), which is downloaded once
    #[arg(long = "model", value_name = "DIR|OWNER/NAME")]
    model: Option<String>,
    /// How the weights are kept in memory; on a GPU matrices are bf16 whatever this says
    #[arg(long, value_enum, default_value_t = Weights::Auto)]
    weights: Weights,
}

/// How weights are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Weights {
    /// Bf16 for a model of more than a gigabyte, f32 for a smaller one
    Auto,
    /// Single precision
    F32,
    /// Half the memory, rounded to 8 bits
    Bf16,
    /// Bf16, and int8 with a factor for each row in the weights of linears: the fastest on a CPU, a quarter of the memory of f32
    Int8,
}

/// From this size of its files on, a model is kept in bf16.
const LARGE: u64 = 1_000_000_000;

impl ModelArg {
    /// The model with its tokenizer, with a bar while a large one loads.
    pub fn load(&self, cx: &Cx) -> anyhow::Result<Assistant> {
        let files = self.locate()?;
        let options = match self.weights {
            Weights::F32 => Options::default(),
            Weights::Bf16 => Options::BF16,
            Weights::Int8 if matches!(cx.device, Device::Gpu(_)) => {
                bail!("--weights int8 is for `--device cpu`: the kernels of a GPU take bf16")
            }
            Weights::Int8 => Options::INT8,
            Weights::Auto if size(&files.folder) > LARGE => Options::BF16,
            Weights::Auto => Options::default(),
        };
        let mut bar = Loading::new();
        let assistant = Assistant::load_located(&files, options, |done, all| bar.at(done, all))?;
        drop(bar);
        assistant.model.remarks().iter().for_each(|remark| note!("note: {remark}"));
        Ok(assistant)
    }

    /// Where its files are; downloads those that are missing, with a progress bar.
    pub fn locate(&self) -> anyhow::Result<ModelFiles> {
        match &self.model {
            Some(model) => locate(model),
            None => Ok(ModelFiles::folder(super::shipped_model()?)),
        }
    }
}

/// Bytes of all files in `folder`; of those that cannot be read none.
fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|f| std::fs::metadata(f.path()).ok()).map(|m| m.len()).sum()
}

/// Where the files of `model` are, a folder or a name on the hub.
#[cfg(feature = "hub")]
pub fn locate(model: &str) -> anyhow::Result<ModelFiles> {
    use pheye::hub::{Client, Settings};

    let hub = Client::new(Settings::from_env()?);
    let mut shown = crate::progress::Download::default();
    Ok(pheye::hub::locate(&hub, model, &mut |progress| shown.event(progress))?)
}

/// Where the files of `model` are: this build has no hub.
#[cfg(not(feature = "hub"))]
pub fn locate(model: &str) -> anyhow::Result<ModelFiles> {
    let named = model.matches('/').count() == 1 && !std::path::Path::new(model).exists();
    anyhow::ensure!(
        !named,
        "there is no folder {model}, and this build cannot download models (build it with `--features hub`)"
    );
    Ok(ModelFiles::folder(model))
}
