//! Which model a command means: the shipped one, a folder, or a name on the Hugging Face hub.

use pheye::Located;

/// The model that a command works with.
#[derive(clap::Args)]
pub struct ModelArg {
    /// The model: a folder in this project's layout or the released one, or a name on the Hugging Face hub such as
    /// `miguelcarv/Pheye-x4-672` (`OWNER/NAME@REVISION` for another than `main`), which is downloaded once
    #[arg(long = "model", value_name = "DIR|OWNER/NAME")]
    model: Option<String>,
}

impl ModelArg {
    /// Where its files are; downloads those that are missing, with a progress bar.
    pub fn locate(&self) -> anyhow::Result<Located> {
        match &self.model {
            Some(model) => locate(model),
            None => Ok(Located::folder(super::shipped_model()?)),
        }
    }
}

/// Where the files of `model` are, a folder or a name on the hub.
#[cfg(feature = "hub")]
pub fn locate(model: &str) -> anyhow::Result<Located> {
    use pheye::hub::{Client, Settings};

    let hub = Client::new(Settings::from_env()?);
    let mut shown = crate::progress::Download::default();
    Ok(pheye::hub::locate(&hub, model, &mut |progress| shown.event(progress))?)
}

/// Where the files of `model` are: this build has no hub.
#[cfg(not(feature = "hub"))]
pub fn locate(model: &str) -> anyhow::Result<Located> {
    let named = model.matches('/').count() == 1 && !std::path::Path::new(model).exists();
    anyhow::ensure!(
        !named,
        "there is no folder {model}, and this build cannot download models (build it with `--features hub`)"
    );
    Ok(Located::folder(model))
}
