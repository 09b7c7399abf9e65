//! `pheye caption`: a caption for each image of a folder, in a file that grows.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use pheye::data::Store;
use pheye::eval::Error;
use pheye::eval::grown::{self, Grown, complete_lines};
use pheye::image::{DecodeOptions, EXTENSIONS, Tiles};
use pheye::model::GenerationConfig;
use pheye::ops::Cx;
use pheye::{Answer, Assistant};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::generation::GenerationArgs;
use super::{DeviceArg, ModelArg};
use crate::out::{note, tell};
use crate::picture::PictureArgs;
use crate::progress::Progress;

/// Write a caption for each image of a folder
///
/// The images are those of a folder with its sub-folders, a zip or tar archive, or Parquet files, in the order of
/// their names. FILE gets a line of JSON for each: `image`, `caption`, `tokens` (how many) and `log_prob` (in nats), or
/// `image` and `error` if an image cannot be read, in which case the exit code is 1 at the end.
///
/// A command that was interrupted is continued by the same command, and ends with the same bytes as an uninterrupted
/// one. FILE.settings.json keeps what the captions depend on, so that other options are refused. Examples:
///
///   pheye caption photos --out captions.jsonl
///   pheye caption photos.zip --out captions.jsonl --prompt "What is written here?" --model miguelcarv/Pheye-x4-672
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The images: a folder, a zip or tar archive, or Parquet files
    #[arg(value_name = "DIR")]
    pictures: PathBuf,
    /// The file to write, as JSON lines
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What is asked about each image; by default for a description
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Images per batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = super::at_least_one)]
    batch: usize,
    /// Start again, replacing an existing FILE
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    decode: PictureArgs,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    generation: GenerationArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let how = args.generation.config()?;
    ensure!(how.num_return_sequences == 1, "--answers is not for captions: each picture has one");
    let store = Store::open(&args.pictures)?;
    let names = pictures(&store)?;
    ensure!(
        !names.is_empty(),
        "{}: no picture in it; {} are known",
        args.pictures.display(),
        EXTENSIONS.join(", ")
    );
    let prompt = args.prompt.as_deref().unwrap_or_else(|| args.model.description(false));
    let settings = Map::from_iter([
        ("images".to_owned(), json!(names.len())),
        ("prompt".to_owned(), json!(prompt)),
        ("batch".to_owned(), json!(args.batch)),
        ("generation".to_owned(), json!(format!("{how:?}"))),
        ("decode".to_owned(), json!(format!("{:?}", args.decode.options()))),
        ("model".to_owned(), args.model.fingerprint()?),
    ]);
    if args.overwrite {
        for path in [args.out.clone(), beside(&args.out)] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("{}: cannot be replaced", path.display()));
                }
                _ => {}
            }
        }
    }
    let (mut out, done, mut broken) = take_up(&args.out, &settings, &names, args.batch)?;
    let cx = args.device.open()?;
    let assistant = args.model.load(&cx)?;
    assistant.prompt(prompt)?;
    if done > 0 {
        note!("{}: {done} of {} pictures are done", args.out.display(), names.len());
    }
    let mut bar = Progress::new(names.len() as u64, "pictures");
    bar.at(done as u64);
    let asking = Asking { cx: &cx, assistant: &assistant, how, decode: args.decode.options(), prompt };
    let mut at = done;
    for batch in names[done..].chunks(args.batch) {
        let lines = asking.captions(&store, batch)?;
        broken += lines.iter().filter(|line| line.get("error").is_some()).count();
        out.add(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
        at += batch.len();
        bar.at(at as u64);
    }
    bar.finish();
    tell!("{}: {} captions", args.out.display(), names.len() - broken);
    ensure!(
        broken == 0,
        "{broken} of {} pictures could not be read; {} says why (`error`)",
        names.len(),
        args.out.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// The names of the images in `store`, sorted.
fn pictures(store: &Store) -> anyhow::Result<Vec<String>> {
    let mut names = store.names()?;
    let known = |name: &String| {
        let end = Path::new(name).extension().and_then(|end| end.to_str()).unwrap_or_default();
        EXTENSIONS.contains(&end.to_ascii_lowercase().as_str())
    };
    // In Parquet files the names are row numbers, without an ending.
    if names.iter().any(known) {
        names.retain(known);
    }
    names.sort();
    Ok(names)
}

/// How captions are made.
struct Asking<'a> {
    cx: &'a Cx,
    assistant: &'a Assistant,
    how: GenerationConfig,
    decode: DecodeOptions,
    prompt: &'a str,
}

impl Asking<'_> {
    /// The lines of a batch of images.
    fn captions(&self, store: &Store, names: &[String]) -> anyhow::Result<Vec<Value>> {
        let preprocess = self.assistant.preprocess();
        let read = |name: &String| -> Result<Tiles, pheye::data::Error> {
            Ok(preprocess.pixels(&store.image(name, &self.decode)?))
        };
        let tiles: Vec<_> = names.par_iter().map(read).collect();
        let readable: Vec<&Tiles> = tiles.iter().flatten().collect();
        let (questions, about) = (vec![self.prompt; readable.len()], Vec::from_iter(0..readable.len()));
        let mut answers = Vec::new();
        if !readable.is_empty() {
            let seen = self.assistant.see(self.cx, &readable)?;
            let found = self.assistant.ask_seen(self.cx, &seen, &questions, &about, &self.how, None)?;
            let log_probs = self.assistant.log_probs(self.cx, &seen, &questions, &about, &found)?;
            answers = found.into_iter().zip(log_probs).collect();
        }
        let mut answers = answers.into_iter();
        let line = |(name, tiles): (&String, &Result<Tiles, pheye::data::Error>)| match tiles {
            Err(error) => json!({"image": name, "error": pheye_files::chain(error)}),
            Ok(_) => {
                let (Answer { text, ids, .. }, log_prob) = answers
                    .next()
                    .unwrap_or_else(|| unreachable!("there is an answer for each readable picture"));
                json!({"image": name, "caption": text, "tokens": ids.len(), "log_prob": log_prob})
            }
        };
        Ok(names.iter().zip(&tiles).map(line).collect())
    }
}

/// The file beside `out` with what the captions depend on.
fn beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".settings.json");
    out.with_file_name(name)
}

/// Opens the file of captions, or takes up one that was interrupted, after its last complete batch. Returns how many images
/// are done, and how many of them were broken.
fn take_up(
    out: &Path,
    settings: &Map<String, Value>,
    names: &[String],
    batch: usize,
) -> anyhow::Result<(Grown, usize, usize)> {
    let (shown, beside) = (out.display(), beside(out));
    let advice = "choose another --out, or replace it with --overwrite";
    ensure!(!out.exists() || beside.exists(), "{shown} exists and is not from this command; {advice}");
    grown::settings(&beside, settings).map_err(|error| match error {
        Error::Settings { key, .. } => {
            anyhow::anyhow!("{shown} was begun with another `{key}` (see {}); {advice}", beside.display())
        }
        other => other.into(),
    })?;
    let lines = complete_lines(out)?;
    ensure!(lines.len() <= names.len(), "{shown} has {} lines, for {} images", lines.len(), names.len());
    let done = if lines.len() == names.len() { lines.len() } else { lines.len() / batch * batch };
    let mut broken = 0;
    for (i, (line, name)) in lines.iter().zip(names).take(done).enumerate() {
        let line: Value = serde_json::from_slice(line).with_context(|| format!("{shown}: line {}", i + 1))?;
        ensure!(line["image"] == **name, "{shown}: line {} is not about {name}", i + 1);
        broken += usize::from(line.get("error").is_some());
    }
    Ok((Grown::after(out, &lines[..done])?, done, broken))
}
