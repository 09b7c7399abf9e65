//! Which model a command uses: the nano model in the program, a folder, or a name on the Hugging Face hub.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::ValueEnum;
use pheye::baselines::is_baseline;
use pheye::model::Options;
use pheye::ops::Cx;
use pheye::tensor::Device;
use pheye::train::Config;
use pheye::{Assistant, Captioner, ModelFiles};

use crate::numbers::short;
use crate::out::{detail, note};
use crate::progress::Loading;

/// The options that select the model.
#[derive(clap::Args)]
pub(crate) struct ModelArg {
    /// The model: a folder in this project's layout or the released one (for `ask` also a system of `pheye baselines`),
    /// or a name on the Hugging Face hub such as `miguelcarv/Pheye-x4-672` (`OWNER/NAME@REVISION` for a revision other
    /// than `main`), which is downloaded once. By default the nano model that is part of this program
    #[arg(long = "model", value_name = "DIR|OWNER/NAME")]
    model: Option<String>,
    /// Data type of the weights in memory; on a GPU, matrices are always bf16
    #[arg(long, value_enum, default_value_t = Weights::Auto)]
    weights: Weights,
}

/// Data type of the weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Weights {
    /// Bf16 for a model of more than a gigabyte, f32 for a smaller one
    Auto,
    /// 32-bit floating point
    F32,
    /// Half the memory, a significand of 8 bits
    Bf16,
    /// Bf16, and int8 with one scale per row for the weights of linear layers: the fastest on a CPU, a
    /// quarter of the memory of f32
    Int8,
}

/// With `auto`, a model whose files exceed this number of bytes is kept in bf16.
const LARGE: u64 = 1_000_000_000;

/// What is asked about an image when no question is given.
pub(crate) const DESCRIBE: &str = "Describe the image.";

impl ModelArg {
    /// What is asked when no question is given; `built_in` says that the image is that of this program.
    pub(crate) fn description(&self, built_in: bool) -> &'static str {
        #[cfg(feature = "nano")]
        if self.model.is_none() {
            return if built_in { pheye::nano::QUESTION } else { pheye::nano::DESCRIBE };
        }
        let _ = built_in;
        DESCRIBE
    }

    /// Loads the model with its tokenizer onto the device of `cx`. A progress bar appears if loading takes long.
    pub(crate) fn load(&self, cx: &Cx) -> anyhow::Result<Assistant> {
        let mut assistant = self.read(cx)?;
        assistant.move_to(&cx.device)?;
        Ok(assistant)
    }

    fn read(&self, cx: &Cx) -> anyhow::Result<Assistant> {
        let Some(model) = &self.model else { return self.nano(cx) };
        let files = locate(model)?;
        if is_baseline(&files.folder) {
            bail!(
                "{}: a system of the paper's Appendix B; `ask`, `info` and `verify` take it",
                files.folder.display()
            );
        }
        let options = self.options(cx, size(&files.folder))?;
        let (mut bar, began) = (Loading::new(), Instant::now());
        let assistant = Assistant::load_located(&files, options, |done, all| bar.at(done, all))?;
        drop(bar);
        detail!("{}: loaded in {}", files.folder.display(), short(began.elapsed().as_secs_f64()));
        assistant.model.remarks().iter().for_each(|remark| note!("note: {remark}"));
        Ok(assistant)
    }

    /// The nano model that is part of this program.
    #[cfg(feature = "nano")]
    fn nano(&self, cx: &Cx) -> anyhow::Result<Assistant> {
        let bytes = pheye::nano::WEIGHTS.len() as u64;
        Ok(Assistant::nano(self.options(cx, bytes)?)?)
    }

    #[cfg(not(feature = "nano"))]
    fn nano(&self, _: &Cx) -> anyhow::Result<Assistant> {
        bail!("{NO_MODEL}")
    }

    /// How weights of `bytes` bytes are kept in memory.
    fn options(&self, cx: &Cx, bytes: u64) -> anyhow::Result<Options> {
        Ok(match self.weights {
            Weights::F32 => Options::default(),
            Weights::Bf16 => Options::BF16,
            Weights::Int8 if matches!(cx.device, Device::Gpu(_)) => {
                bail!("--weights int8 is for `--device cpu`: the kernels of a GPU take bf16")
            }
            Weights::Int8 => Options::INT8,
            Weights::Auto if bytes > LARGE => Options::BF16,
            Weights::Auto => Options::default(),
        })
    }

    /// The model if it is one of the systems that Pheye is compared with, moved to the device of `cx`.
    pub(crate) fn captioner(&self, cx: &Cx) -> anyhow::Result<Option<Captioner>> {
        let Some(folder) = self.model.as_ref().map(Path::new).filter(|folder| is_baseline(folder)) else {
            return Ok(None);
        };
        let options = match self.weights {
            Weights::Int8 => bail!("--weights int8 is for Pheye"),
            Weights::Bf16 => Options::BF16,
            Weights::Auto if size(folder) > LARGE => Options::BF16,
            Weights::F32 | Weights::Auto => Options::default(),
        };
        let mut bar = Loading::new();
        let mut captioner = Captioner::load(folder, options, |done, all| bar.at(done, all))?;
        drop(bar);
        captioner.move_to(&cx.device)?;
        Ok(Some(captioner))
    }
}

impl ModelArg {
    /// The length and CRC-32 of each of the model's files, and the data type of its weights in memory: what an
    /// evaluation that is continued compares.
    pub(crate) fn fingerprint(&self) -> anyhow::Result<serde_json::Value> {
        let mut prints = match &self.model {
            Some(model) => prints(&locate(model)?.folder)?,
            None => nano_prints()?,
        };
        let weights = self.weights.to_possible_value();
        prints.insert("weights".into(), weights.map(|value| value.get_name().to_owned()).into());
        Ok(prints.into())
    }
}

/// The nano model is not part of every build.
#[cfg(not(feature = "nano"))]
const NO_MODEL: &str =
    "this program was built without the nano model (feature `nano`): name a model with --model";

/// Lengths and CRC-32 by the names of files.
type Prints = serde_json::Map<String, serde_json::Value>;

#[cfg(feature = "nano")]
fn nano_prints() -> anyhow::Result<Prints> {
    let files = pheye::nano::files().into_iter();
    files.map(|(name, bytes)| Ok((name.to_owned(), print(bytes)?))).collect()
}

#[cfg(not(feature = "nano"))]
fn nano_prints() -> anyhow::Result<Prints> {
    bail!("{NO_MODEL}")
}

/// Those of the model's files in `folder`.
fn prints(folder: &Path) -> anyhow::Result<Prints> {
    let mut prints = Prints::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let known =
            path.extension().is_some_and(|end| ["json", "safetensors", "bin"].iter().any(|e| end == *e));
        if known && path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let print = std::fs::File::open(&path).and_then(print);
            prints.insert(name, print.with_context(|| format!("{}: cannot be read", path.display()))?);
        }
    }
    Ok(prints)
}

/// The length and CRC-32 of a file.
fn print(mut file: impl std::io::Read) -> std::io::Result<serde_json::Value> {
    let (mut hasher, mut buffer, mut length) = (crc32fast::Hasher::new(), vec![0; 1 << 16], 0u64);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(serde_json::json!([length, hasher.finalize()])),
            n => {
                hasher.update(&buffer[..n]);
                length += n as u64;
            }
        }
    }
}

/// Total size in bytes of the files in `folder`. Files that cannot be read count as 0.
fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|f| std::fs::metadata(f.path()).ok()).map(|m| m.len()).sum()
}

/// Locates the files of `model`, a folder or a name on the hub.
#[cfg(feature = "hub")]
pub(crate) fn locate(model: &str) -> anyhow::Result<ModelFiles> {
    use pheye::hub::{Client, Settings};

    let hub = Client::new(Settings::from_env()?);
    let mut shown = crate::progress::Download::default();
    Ok(pheye::hub::locate(&hub, model, &mut |progress| shown.event(progress))?)
}

/// Locates the models that `config` names by their names on the hub. Missing files are downloaded, with a
/// progress bar.
#[cfg(feature = "hub")]
pub(crate) fn locate_in(config: &mut Config) -> anyhow::Result<()> {
    use pheye::hub::{Client, Name, Settings};

    let named = |(key, path): (&'static str, &Path)| {
        let name = path.to_str()?;
        // A file that does not exist is reported as such.
        let file = path
            .extension()
            .is_some_and(|end| ["json", "safetensors", "bin", "pt"].iter().any(|e| end == *e));
        Name::unless_folder(name).filter(|_| !file)?;
        Some((key, name.to_owned()))
    };
    let names: Vec<_> = config.not_found().into_iter().filter_map(named).collect();
    if names.is_empty() {
        return Ok(());
    }
    let hub = Client::new(Settings::from_env()?);
    let mut shown = crate::progress::Download::default();
    for (key, name) in names {
        let find = if key == "model.init" { pheye::hub::locate } else { pheye::hub::locate_backbone };
        let files = find(&hub, &name, &mut |progress| shown.event(progress));
        let files = files.with_context(|| format!("{key} = \"{name}\""))?;
        config.located.insert(name, files.folder);
        config.located.extend(files.named);
    }
    Ok(())
}

/// Without hub support, the models are folders.
#[cfg(not(feature = "hub"))]
pub(crate) fn locate_in(_: &mut Config) -> anyhow::Result<()> {
    Ok(())
}

/// Locates the files of the folder `model`. This build has no hub support.
#[cfg(not(feature = "hub"))]
pub(crate) fn locate(model: &str) -> anyhow::Result<ModelFiles> {
    let named = model.matches('/').count() == 1 && !std::path::Path::new(model).exists();
    anyhow::ensure!(
        !named,
        "there is no folder {model}, and this build cannot download models (build it with `--features hub`)"
    );
    Ok(ModelFiles::folder(model))
}
