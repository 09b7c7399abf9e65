//! `pheye ask`: answers questions about images.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use pheye::{Answer, Finish};
use rayon::prelude::*;
use serde_json::json;

use super::generation::{GenerationArgs, Stats};
use super::{DeviceArg, ModelArg};
use crate::look;
use crate::out::{self, detail, note, say};
use crate::picture::{Picture, PictureArgs, questions_from_stdin};

/// Ask questions about images
///
/// Without --model, the nano model that is part of this program answers. Without a question, the image is described;
/// without an image, a built-in one is asked about. By default, decoding is greedy: the most probable token is taken at
/// each step. --beams turns on beam search, --temperature sampling. Examples:
///
///   pheye ask picture.png "what color is the shape?"
///   pheye ask picture.png "what shape is it?" "is it red?" --also other.png "is it blue?"
///   curl -s https://example.org/photo.jpg | pheye ask - "what is in the image?"
///   pheye ask photo.jpg - < questions.txt
///   pheye ask photo.jpg "Describe the image." --beams 5 --no-repeat-ngram 3
///   pheye ask photo.jpg "Describe the image." --temperature 0.7 --top-p 0.9 --seed 1 --answers 3
///
/// `pheye ask photo.jpg "What does the sign say?" --model miguelcarv/Pheye-x4-672` downloads a released model
/// into the cache of the Hugging Face libraries (~/.cache/huggingface) and resumes an interrupted download.
/// HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read. Cached files need no network.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The image: PNG, JPEG, WebP, GIF (its first frame) or BMP; `-` reads it from standard input
    #[arg(value_name = "IMAGE")]
    image: Option<PathBuf>,
    /// The question or instruction; several are answered in one batch, and the image is encoded once. `-` reads
    /// questions from standard input, one in a line
    #[arg(value_name = "QUESTION")]
    questions: Vec<String>,
    /// Another image and a question about it, answered in the same batch; may be given several times. Each question is
    /// about one image: the model was not trained on several at once
    #[arg(long, num_args = 2, value_names = ["IMAGE", "QUESTION"])]
    also: Vec<OsString>,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    pictures: PictureArgs,
    /// Draw where the model looks for each token of its answers: a heat map of the cross-attention weights over the
    /// image, averaged over all heads and blocks, as DIR/look-1-1.png for the first token of the first answer and so
    /// on, and DIR/look.html, a page to step through them
    #[arg(long, value_name = "DIR")]
    look: Option<PathBuf>,
    /// Print JSON, one object per line for each answer: `image`, `question`, `answer`, `tokens` (how many), `finish`
    /// (`end`, `stop` or `length`), and with Pheye `log_prob` (of the answer with its end token, in nats) and `seconds`
    /// (`encode`, `prefill`, `decode`; of the whole batch)
    #[arg(long)]
    json: bool,
    /// Print times to standard error: encoding the images, prefill of the prompts, tokens per second
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    generation: GenerationArgs,
}

pub(crate) fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    let decode = args.pictures.options();
    let how = args.generation.config()?;
    // The additional questions follow the first image's questions; each has the index of its image.
    let also = args.also.as_chunks().0.iter().map(|[image, question]| {
        let question = question.to_str().context("--also: the question is not UTF-8")?;
        Ok((Picture::given(Some(Path::new(image)))?, question))
    });
    let also = also.collect::<anyhow::Result<Vec<_>>>()?;
    if args.questions.is_empty() {
        args.questions.push(args.model.description(args.image.is_none()).to_owned());
    }
    let first = Picture::given(args.image.as_deref())?;
    let pictures: Vec<&Picture> =
        std::iter::once(&first).chain(also.iter().map(|(image, _)| image)).collect();
    let piped = pictures.iter().filter(|picture| matches!(picture, Picture::StandardInput)).count();
    if args.questions == ["-"] {
        ensure!(
            piped == 0,
            "`-` is given for an image and for the questions, but standard input is only one"
        );
        args.questions = questions_from_stdin()?;
    }
    ensure!(piped <= 1, "`-` is given for {piped} images, but standard input is only one");
    let about = std::iter::repeat_n(0, args.questions.len()).chain(1..=also.len());
    let about: Vec<usize> = about.collect();
    let questions = args.questions.iter().map(String::as_str);
    let questions: Vec<&str> = questions.chain(also.iter().map(|(_, question)| *question)).collect();

    // Images are decoded in parallel, and before the model is loaded, so that an unreadable image is reported
    // at once.
    let images: Vec<_> = pictures.par_iter().map(|picture| picture.open(&decode)).collect();
    let images = images.into_iter().collect::<Result<Vec<_>, _>>()?;
    for (picture, image) in pictures.iter().zip(&images) {
        detail!("{}: {} × {} pixels", picture.name(), image.width, image.height);
    }
    let asked = Asked { names: pictures.iter().map(|picture| picture.name()).collect(), questions, about };
    how.validate()?;
    let cx = args.device.open()?;
    detail!("computing on {}, {} threads", cx.device, rayon::current_num_threads());
    if let Some(captioner) = args.model.captioner(&cx)? {
        ensure!(
            args.look.is_none() && !args.stats,
            "--look and --stats are for Pheye: the systems that it is compared with have neither"
        );
        let preprocess = captioner.preprocess();
        let tiles: Vec<_> = images.par_iter().map(|p| preprocess.pixels(p)).collect();
        let tiles: Vec<_> = tiles.iter().collect();
        let answers = captioner.ask(&cx, &tiles, &asked.questions, &asked.about, &how)?;
        match args.json {
            true => asked.json(&answers, how.num_return_sequences, |_| json!({})),
            false => asked.text(&answers, how.num_return_sequences),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let assistant = args.model.load(&cx)?;
    let preprocess = assistant.preprocess();
    if let Some(dir) = &args.look {
        std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot be created", dir.display()))?;
    }
    let tiles: Vec<_> = images.par_iter().map(|p| preprocess.pixels(p)).collect();
    let tiles: Vec<_> = tiles.iter().collect();

    // Only a single greedy or sampled answer on a terminal is streamed. Pipes, JSON, beam search and several
    // answers get complete texts.
    let each = how.num_return_sequences;
    let one = asked.questions.len() * each == 1;
    let live = one && how.num_beams == 1 && !args.json && std::io::stdout().is_terminal();
    let mut stream = Stream::default();
    let mut on_text = |_: usize, piece: &str| stream.piece(piece);
    let on_text = live.then_some(&mut on_text as &mut pheye::OnText);
    asked.questions.iter().try_for_each(|question| assistant.prompt(question).map(drop))?;
    let began = Instant::now();
    let seen = assistant.see(&cx, &tiles)?;
    let encode = began.elapsed();
    let (answers, times) = assistant.ask_timed(&cx, &seen, &asked.questions, &asked.about, &how, on_text)?;
    let stats = Stats { encode, times, tokens: answers.iter().map(|answer| answer.ids.len()).sum() };
    if live {
        say!("");
    } else if args.json {
        // One question for each answer.
        let several = |i: usize| std::iter::repeat_n(i, each);
        let of: Vec<usize> = (0..asked.questions.len()).flat_map(several).collect();
        let questions: Vec<&str> = of.iter().map(|i| asked.questions[*i]).collect();
        let about: Vec<usize> = of.iter().map(|i| asked.about[*i]).collect();
        let log_probs = assistant.log_probs(&cx, &seen, &questions, &about, &answers)?;
        asked.json(&answers, each, |i| json!({"log_prob": log_probs[i], "seconds": stats.json()}));
    } else {
        asked.text(&answers, each);
    }
    if let Some(dir) = &args.look {
        let mut looked = Vec::new();
        for (i, answer) in answers.iter().enumerate() {
            let question = i / each;
            let (image, question) = (asked.about[question], asked.questions[question]);
            let looks = assistant.look(&cx, &seen, image, question, answer)?;
            looked.push(look::Answered { image: &images[image], question, looks });
        }
        look::write(dir, &looked)?;
        note!("{}: where the model looked", dir.join("look.html").display());
    }
    if args.stats {
        note!("{}", stats.line());
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an answer while it is written, without the white space before it.
#[derive(Default)]
pub(super) struct Stream {
    begun: bool,
}

impl Stream {
    pub(super) fn piece(&mut self, piece: &str) {
        let piece = if self.begun { piece } else { piece.trim_start() };
        self.begun |= !piece.is_empty();
        out::write(format_args!("{piece}"));
    }
}

/// The questions, which are about the images `about`.
struct Asked<'a> {
    names: Vec<String>,
    questions: Vec<&'a str>,
    about: Vec<usize>,
}

impl Asked<'_> {
    /// Prints the answers, `each` to a question.
    fn text(&self, answers: &[Answer], each: usize) {
        for (i, (question, group)) in self.questions.iter().zip(answers.chunks(each)).enumerate() {
            if answers.len() > 1 {
                say!("{}{}: {question}", if i == 0 { "" } else { "\n" }, self.names[self.about[i]]);
            }
            group.iter().for_each(|answer| say!("{}", answer.text));
        }
    }

    /// Prints the answers as JSON, with the keys of `more(i)` for answer i.
    fn json(&self, answers: &[Answer], each: usize, more: impl Fn(usize) -> serde_json::Value) {
        for (i, answer) in answers.iter().enumerate() {
            let question = i / each;
            let mut line = json!({
                "image": self.names[self.about[question]],
                "question": self.questions[question],
                "answer": answer.text,
                "tokens": answer.ids.len(),
                "finish": match answer.finish {
                    Finish::End => "end",
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                },
            });
            if let (Some(line), Some(more)) = (line.as_object_mut(), more(i).as_object_mut()) {
                line.append(more);
            }
            say!("{line}");
        }
    }
}
