//! `pheye caption`: a caption for each image of a folder, in a file that grows.

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use pheye::data::Store;
use pheye::image::{DecodeOptions, EXTENSIONS, Tiles};
use pheye::model::GenerationConfig;
use pheye::ops::Cx;
use pheye::{Answer, Assistant};
use rayon::prelude::*;
use serde_json::{Value, json};

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

/// The largest file of captions that is continued, in bytes.
const LIMIT: u64 = 4 << 30;

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
    let settings = json!({
        "pictures": names.len(),
        "prompt": prompt,
        "batch": args.batch,
        "generation": format!("{how:?}"),
        "decode": format!("{:?}", args.decode.options()),
        "model": args.model.fingerprint()?,
    });
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
    let (mut out, done, mut broken) = Captions::open(&args.out, &settings, &names, args.batch)?;
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
        out.add(&lines)?;
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

/// The file of captions.
struct Captions {
    path: PathBuf,
    file: File,
}

/// The file beside `out` with what the captions depend on.
fn beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".settings.json");
    out.with_file_name(name)
}

impl Captions {
    /// Creates the file, or takes up one that was interrupted, after its last complete batch. Returns how many images
    /// are done, and how many of them were broken.
    fn open(
        out: &Path,
        settings: &Value,
        names: &[String],
        batch: usize,
    ) -> anyhow::Result<(Captions, usize, usize)> {
        let shown = out.display();
        let beside = beside(out);
        if out.exists() && !beside.exists() {
            bail!(
                "{shown} exists and is not from this command; choose another --out, or replace it with --overwrite"
            );
        }
        if beside.exists() {
            let then = pheye_files::read_text(&beside, pheye_files::Kind::Regular, LIMIT);
            let then = then.with_context(|| beside.display().to_string())?;
            let then: Value = serde_json::from_str(&then).with_context(|| beside.display().to_string())?;
            let differs =
                settings.as_object().into_iter().flatten().find(|(key, now)| then.get(key) != Some(now));
            if let Some((key, _)) = differs {
                bail!(
                    "{shown} was begun with another `{key}` (see {}); choose another --out, or replace it with \
                     --overwrite",
                    beside.display()
                );
            }
        } else {
            let text = serde_json::to_string_pretty(settings)? + "\n";
            pheye::weights::atomic_write(&beside, |out| out.write_all(text.as_bytes()))?;
        }
        let file = File::options().create(true).read(true).write(true).truncate(false).open(out);
        let mut file = file.with_context(|| format!("{shown}: cannot be written"))?;
        let bytes = pheye_files::read(out, pheye_files::Kind::Regular, LIMIT);
        let bytes = bytes.with_context(|| format!("{shown}: cannot be read"))?;
        // A line that does not end was being written.
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let whole = lines.iter().take_while(|line| line.ends_with(b"\n")).count();
        ensure!(whole <= names.len(), "{shown} has {whole} lines, for {} pictures", names.len());
        let done = if whole == names.len() { whole } else { whole / batch * batch };
        let mut broken = 0;
        for (i, (line, name)) in lines.iter().zip(names).take(done).enumerate() {
            let line: Value =
                serde_json::from_slice(line).with_context(|| format!("{shown}: line {}", i + 1))?;
            ensure!(line["image"] == **name, "{shown}: line {} is not about {name}", i + 1);
            broken += usize::from(line.get("error").is_some());
        }
        let keep: usize = lines[..done].iter().map(|line| line.len()).sum();
        let cut = file.set_len(keep as u64).and_then(|()| file.seek(SeekFrom::End(0)));
        cut.with_context(|| format!("{shown}: cannot be written"))?;
        Ok((Captions { path: out.to_owned(), file }, done, broken))
    }

    /// Adds lines, which are on the disk when this returns.
    fn add(&mut self, lines: &[Value]) -> anyhow::Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("{}: cannot be written", self.path.display()))
    }
}
