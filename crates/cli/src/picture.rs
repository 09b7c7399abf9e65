//! Where an image comes from: a file, standard input, or this program.

use std::ffi::OsStr;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use pheye::image::{DecodeOptions, Rgb8};

/// The options of reading images.
#[derive(clap::Args)]
pub(crate) struct PictureArgs {
    /// Largest image that is decoded, in megapixels
    #[arg(long, value_name = "MP", value_parser = clap::value_parser!(u64).range(1..))]
    max_megapixels: Option<u64>,
    /// Use the image as stored and ignore its EXIF orientation (as the released code does)
    #[arg(long)]
    ignore_orientation: bool,
}

impl PictureArgs {
    pub(crate) fn options(&self) -> DecodeOptions {
        let mut options =
            DecodeOptions { apply_orientation: !self.ignore_orientation, ..DecodeOptions::default() };
        if let Some(megapixels) = self.max_megapixels {
            options.max_pixels = megapixels.saturating_mul(1_000_000);
        }
        options
    }
}

/// An image to ask about.
pub(crate) enum Picture {
    File(PathBuf),
    /// `-`
    StandardInput,
    /// The image in this program, for those who have none at hand.
    #[cfg(feature = "nano")]
    BuiltIn,
}

impl Picture {
    /// The image of a command-line argument; without one, that of this program.
    pub(crate) fn given(path: Option<&Path>) -> anyhow::Result<Picture> {
        match path {
            Some(path) if path.as_os_str() == OsStr::new("-") => Ok(Picture::StandardInput),
            Some(path) => Ok(Picture::File(path.to_owned())),
            #[cfg(feature = "nano")]
            None => Ok(Picture::BuiltIn),
            #[cfg(not(feature = "nano"))]
            None => {
                anyhow::bail!("no image is given, and this program was built without one (feature `nano`)")
            }
        }
    }

    /// Its name in answers and messages; the bytes of a path that are not UTF-8 are replaced.
    pub(crate) fn name(&self) -> String {
        match self {
            Picture::File(path) => path.display().to_string(),
            Picture::StandardInput => "standard input".to_owned(),
            #[cfg(feature = "nano")]
            Picture::BuiltIn => "the built-in picture".to_owned(),
        }
    }

    pub(crate) fn open(&self, options: &DecodeOptions) -> anyhow::Result<Rgb8> {
        Ok(match self {
            Picture::File(path) => pheye::image::open(path, options)?,
            Picture::StandardInput => {
                let name = self.name();
                let bytes = pheye_files::take(stdin().lock(), 0, options.max_bytes).context(name.clone())?;
                ensure!(!bytes.is_empty(), "{name}: it is empty, where an image is expected (`-`)");
                pheye::image::decode(&bytes, &name, options)?
            }
            #[cfg(feature = "nano")]
            Picture::BuiltIn => pheye::image::decode(pheye::nano::PICTURE, &self.name(), options)?,
        })
    }
}

/// Largest text of questions that is read from standard input, in bytes.
const QUESTIONS: u64 = 1 << 20;

/// The questions on standard input, one in a line.
pub(crate) fn questions_from_stdin() -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    let read = stdin().lock().take(QUESTIONS + 1).read_to_string(&mut text);
    let read = read.context("standard input: the questions cannot be read")?;
    ensure!(read as u64 <= QUESTIONS, "standard input: the questions are longer than {QUESTIONS} bytes");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let questions: Vec<String> = lines.map(str::to_owned).collect();
    ensure!(!questions.is_empty(), "standard input: there is no question in it");
    Ok(questions)
}
