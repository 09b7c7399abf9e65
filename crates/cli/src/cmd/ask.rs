//! `pheye ask`: pictures and questions in, answers out.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use pheye::image::DecodeOptions;
use pheye::weights::atomic_write;
use rayon::prelude::*;

use super::generation::GenerationArgs;
use super::{DeviceArg, ModelArg};
use crate::look;
use crate::out::{self, note, say};

/// Ask questions about pictures
///
/// Without --model, the nano model that comes with the source answers: it knows colors and shapes. The most probable word is
/// taken each time; --beams searches further, --temperature draws by chance. Examples:
///
///   pheye ask picture.png "what color is the shape?"
///   pheye ask picture.png "what shape is it?" "is it red?" --also other.png "is it blue?"
///   pheye ask photo.jpg "Describe the image." --beams 5 --no-repeat-ngram 3
///   pheye ask photo.jpg "Describe the image." --temperature 0.7 --top-p 0.9 --seed 1 --answers 3
///
/// `pheye ask photo.jpg "What does the sign say?" --model miguelcarv/Pheye-x4-672` downloads a released model into the
/// cache that all Hugging Face libraries share (~/.cache/huggingface), and continues a download that was cut. HF_HOME,
/// HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured. What is in the cache needs no network.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The picture: PNG, JPEG or WebP; /dev/stdin reads it from standard input
    #[arg(value_name = "PICTURE")]
    picture: PathBuf,
    /// The question or instruction; several are answered together, and the picture is looked at once
    #[arg(value_name = "QUESTION", required = true)]
    questions: Vec<String>,
    /// A further picture and a question about it, answered together with the others; may be given several times
    #[arg(long, num_args = 2, value_names = ["PICTURE", "QUESTION"])]
    also: Vec<OsString>,
    #[command(flatten)]
    model: ModelArg,
    /// Largest picture that is decoded, in megapixels
    #[arg(long, value_name = "MP")]
    max_megapixels: Option<u64>,
    /// Take the picture as stored, whatever orientation its EXIF data asks for (as the released code does)
    #[arg(long)]
    ignore_orientation: bool,
    /// Draw where the model looks for each word of its answers: DIR/look-1.svg for the first answer, and so on. It shows the
    /// share of the cross-attention on each tile, the mean over all heads and blocks; for models that see tiles
    #[arg(long, value_name = "DIR")]
    look: Option<PathBuf>,
    /// Print JSON, an object a line for each answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    generation: GenerationArgs,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut decode =
        DecodeOptions { apply_orientation: !args.ignore_orientation, ..DecodeOptions::default() };
    if let Some(megapixels) = args.max_megapixels {
        decode.max_pixels = megapixels.saturating_mul(1_000_000);
    }
    let how = args.generation.config()?;
    // Questions one after another, each with the number of its picture.
    let also = args.also.as_chunks().0.iter().map(|[picture, question]| {
        let question = question.to_str().context("--also: the question is not UTF-8")?;
        Ok((Path::new(picture), question))
    });
    let also = also.collect::<anyhow::Result<Vec<_>>>()?;
    let files: Vec<&Path> =
        [&*args.picture].into_iter().chain(also.iter().map(|(picture, _)| *picture)).collect();
    let first = args.questions.iter().map(|q| (0, &q[..]));
    let (about, questions): (Vec<usize>, Vec<&str>) =
        first.chain(also.iter().enumerate().map(|(i, (_, question))| (i + 1, *question))).unzip();

    // Side by side; before the model, which may take a while to load, so that a file that is no picture is told at once.
    let pictures: Vec<_> = files.par_iter().map(|f| pheye::image::open(f, &decode)).collect();
    let pictures = pictures.into_iter().collect::<Result<Vec<_>, _>>()?;
    how.validate()?;
    let cx = args.device.open()?;
    let mut assistant = args.model.load(&cx)?;
    assistant.move_to(&cx.device)?;
    let preprocess = assistant.preprocess();
    if let Some(dir) = &args.look {
        ensure!(
            preprocess.level > 1,
            "--look needs a model that sees tiles; this one sees the whole picture alone"
        );
        std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
    }
    let tiles: Vec<_> = pictures.par_iter().map(|p| preprocess.pixels(p)).collect();
    let tiles: Vec<_> = tiles.iter().collect();

    // A person at a terminal sees the answer grow; a program gets it whole, and so do answers that come side by side.
    let one = questions.len() * how.num_return_sequences == 1;
    let live = one && how.num_beams == 1 && !args.json && std::io::stdout().is_terminal();
    let mut begun = false;
    let mut on_text = |_: usize, piece: &str| {
        let piece = if begun { piece } else { piece.trim_start() };
        begun |= !piece.is_empty();
        out::write(format_args!("{piece}"));
    };
    let on_text = live.then_some(&mut on_text as &mut pheye::OnText);
    questions.iter().try_for_each(|question| assistant.prompt(question).map(drop))?;
    let seen = assistant.see(&cx, &tiles)?;
    let answers = assistant.ask_seen(&cx, &seen, &questions, &about, &how, on_text)?;
    if let Some(dir) = &args.look {
        for (i, answer) in answers.iter().enumerate() {
            let question = i / how.num_return_sequences;
            let looks = assistant.look(&cx, &seen, about[question], questions[question], answer)?;
            let svg = look::svg(&pictures[about[question]], questions[question], &looks, preprocess.level)?;
            let file = dir.join(format!("look-{}.svg", i + 1));
            atomic_write(&file, |out| out.write_all(svg.as_bytes()))?;
            note!("{}: where the model looked", file.display());
        }
    }
    if live {
        say!("");
        return Ok(ExitCode::SUCCESS);
    }
    for (i, answers) in answers.chunks(how.num_return_sequences).enumerate() {
        // A name that is not UTF-8 is shown as nearly as text can.
        let (picture, question) = (files[about[i]].display().to_string(), questions[i]);
        if !one && !args.json {
            say!("{}{picture}: {question}", if i == 0 { "" } else { "\n" });
        }
        for answer in answers {
            match args.json {
                true => say!(
                    "{}",
                    serde_json::json!({
                        "picture": picture, "question": question, "answer": answer.text, "tokens": answer.ids.len()
                    })
                ),
                false => say!("{}", answer.text),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
