//! `pheye ask`: answers questions about images.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use pheye::image::DecodeOptions;
use rayon::prelude::*;

use super::generation::GenerationArgs;
use super::{DeviceArg, ModelArg};
use crate::look;
use crate::out::{self, note, say};

/// Ask questions about images
///
/// Without --model, the nano model of this repository answers; it knows colors and shapes. By default,
/// decoding is greedy: the most probable token is taken at each step. --beams turns on beam search,
/// --temperature sampling. Examples:
///
///   pheye ask picture.png "what color is the shape?"
///   pheye ask picture.png "what shape is it?" "is it red?" --also other.png "is it blue?"
///   pheye ask photo.jpg "Describe the image." --beams 5 --no-repeat-ngram 3
///   pheye ask photo.jpg "Describe the image." --temperature 0.7 --top-p 0.9 --seed 1 --answers 3
///
/// `pheye ask photo.jpg "What does the sign say?" --model miguelcarv/Pheye-x4-672` downloads a released model
/// into the cache of the Hugging Face libraries (~/.cache/huggingface) and resumes an interrupted download.
/// HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read. Cached files need no network.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The image: PNG, JPEG, WebP, GIF or BMP; /dev/stdin reads it from standard input
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The question or instruction; several are answered in one batch, and the image is encoded once
    #[arg(value_name = "QUESTION", required = true)]
    questions: Vec<String>,
    /// Another image and a question about it, answered in the same batch; may be given several times
    #[arg(long, num_args = 2, value_names = ["IMAGE", "QUESTION"])]
    also: Vec<OsString>,
    #[command(flatten)]
    model: ModelArg,
    /// Largest image that is decoded, in megapixels
    #[arg(long, value_name = "MP")]
    max_megapixels: Option<u64>,
    /// Use the image as stored and ignore its EXIF orientation (as the released code does)
    #[arg(long)]
    ignore_orientation: bool,
    /// Draw where the model looks for each token of its answers: a heat map of the cross-attention weights over the
    /// image, averaged over all heads and blocks, as DIR/look-1-1.png for the first token of the first answer and so
    /// on, and DIR/look.html, a page to step through them
    #[arg(long, value_name = "DIR")]
    look: Option<PathBuf>,
    /// Print JSON, one object per line for each answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    generation: GenerationArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut decode =
        DecodeOptions { apply_orientation: !args.ignore_orientation, ..DecodeOptions::default() };
    if let Some(megapixels) = args.max_megapixels {
        decode.max_pixels = megapixels.saturating_mul(1_000_000);
    }
    let how = args.generation.config()?;
    // The additional questions follow the first image's questions; each has the index of its image.
    let also = args.also.as_chunks().0.iter().map(|[image, question]| {
        let question = question.to_str().context("--also: the question is not UTF-8")?;
        Ok((Path::new(image), question))
    });
    let also = also.collect::<anyhow::Result<Vec<_>>>()?;
    let files: Vec<&Path> = [&*args.image].into_iter().chain(also.iter().map(|(image, _)| *image)).collect();
    let first = args.questions.iter().map(|q| (0, &q[..]));
    let (about, questions): (Vec<usize>, Vec<&str>) =
        first.chain(also.iter().enumerate().map(|(i, (_, question))| (i + 1, *question))).unzip();

    // Images are decoded in parallel, and before the model is loaded, so that an unreadable image is reported
    // at once.
    let images: Vec<_> = files.par_iter().map(|f| pheye::image::open(f, &decode)).collect();
    let images = images.into_iter().collect::<Result<Vec<_>, _>>()?;
    how.validate()?;
    let cx = args.device.open()?;
    if let Some(captioner) = args.model.captioner(&cx)? {
        ensure!(
            args.look.is_none(),
            "--look is for Pheye: the systems that it is compared with have no such maps"
        );
        let preprocess = captioner.preprocess();
        let tiles: Vec<_> = images.par_iter().map(|p| preprocess.pixels(p)).collect();
        let tiles: Vec<_> = tiles.iter().collect();
        let answers = captioner.ask(&cx, &tiles, &questions, &about, &how)?;
        let one = answers.len() == 1;
        print(&files, &questions, &about, &answers, (how.num_return_sequences, one, args.json));
        return Ok(ExitCode::SUCCESS);
    }
    let mut assistant = args.model.load(&cx)?;
    assistant.move_to(&cx.device)?;
    let preprocess = assistant.preprocess();
    if let Some(dir) = &args.look {
        std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot be created", dir.display()))?;
    }
    let tiles: Vec<_> = images.par_iter().map(|p| preprocess.pixels(p)).collect();
    let tiles: Vec<_> = tiles.iter().collect();

    // Only a single greedy or sampled answer on a terminal is streamed. Pipes, JSON, beam search and several
    // answers get complete texts.
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
        let mut looked = Vec::new();
        for (i, answer) in answers.iter().enumerate() {
            let question = i / how.num_return_sequences;
            let (image, question) = (about[question], questions[question]);
            let looks = assistant.look(&cx, &seen, image, question, answer)?;
            looked.push(look::Answered { image: &images[image], question, looks });
        }
        look::write(dir, &looked)?;
        note!("{}: where the model looked", dir.join("look.html").display());
    }
    if live {
        say!("");
        return Ok(ExitCode::SUCCESS);
    }
    print(&files, &questions, &about, &answers, (how.num_return_sequences, one, args.json));
    Ok(ExitCode::SUCCESS)
}

/// Prints the answers to each question; `one` says that there is only one.
fn print(
    files: &[&Path],
    questions: &[&str],
    about: &[usize],
    answers: &[pheye::Answer],
    (each, one, json): (usize, bool, bool),
) {
    for (i, answers) in answers.chunks(each).enumerate() {
        // `display` replaces the bytes of a path that are not UTF-8.
        let (image, question) = (files[about[i]].display().to_string(), questions[i]);
        if !one && !json {
            say!("{}{image}: {question}", if i == 0 { "" } else { "\n" });
        }
        for answer in answers {
            match json {
                true => say!(
                    "{}",
                    serde_json::json!({
                        "image": image, "question": question, "answer": answer.text, "tokens": answer.ids.len()
                    })
                ),
                false => say!("{}", answer.text),
            }
        }
    }
}
