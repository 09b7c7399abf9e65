//! `pheye chat`: questions about one image, typed one after the other.

use std::io::{BufRead, IsTerminal, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use pheye::image::DecodeOptions;
use pheye::model::GenerationConfig;
use pheye::ops::Cx;
use pheye::{Assistant, Seen};

use super::ask::Stream;
use super::generation::{GenerationArgs, Stats};
use super::{DeviceArg, ModelArg};
use crate::out::{self, note, say};
use crate::picture::{Picture, PictureArgs};

/// Ask about an image in a dialogue
///
/// The image is encoded once; each question is answered by itself, as the model was trained: it does not remember the
/// questions before. Without an image, a built-in one is asked about. Lines from a pipe are questions too, and each is
/// answered with a line. In the dialogue:
///
///   /open FILE   goes on with another image
///   /stats       shows times after each answer, or no more
///   /help        lists these
///   /quit        ends, as Ctrl-D does
///
/// Examples:
///
///   pheye chat photo.jpg --model miguelcarv/Pheye-x4-672
///   pheye chat photo.jpg < questions.txt
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The image: PNG, JPEG, WebP, GIF (its first frame) or BMP
    #[arg(value_name = "IMAGE")]
    picture: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    pictures: PictureArgs,
    /// Show times after each answer: encoding the image, prefill of the prompt, tokens per second
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    generation: GenerationArgs,
}

const COMMANDS: &str = "/open FILE another picture; /stats times; /help this; /quit the end";

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.picture.as_deref() == Some(Path::new("-")) {
        anyhow::bail!("`-`: the questions come from standard input, so that the picture cannot");
    }
    let (how, decode) = (args.generation.config()?, args.pictures.options());
    let picture = Picture::given(args.picture.as_deref())?;
    // An unreadable picture is reported before the model is loaded.
    picture.open(&decode)?;
    let cx = args.device.open()?;
    let assistant = args.model.load(&cx)?;
    let mut chat = Chat { cx: &cx, assistant: &assistant, how, decode, stats: args.stats };
    let (mut seen, mut encoded) = chat.see(&picture)?;

    let typed = stdin().is_terminal();
    if typed {
        note!("{}: ask away ({COMMANDS})", picture.name());
    }
    let mut lines = stdin().lock().lines();
    loop {
        if typed {
            out::write(format_args!("> "));
        }
        let Some(line) = lines.next().transpose()? else { break };
        let line = line.trim();
        match line.split_once(char::is_whitespace).unwrap_or((line, "")) {
            ("", _) => {}
            ("/quit" | "/exit", _) => return Ok(ExitCode::SUCCESS),
            ("/help", _) => note!("{COMMANDS}"),
            ("/stats", _) => chat.stats = !chat.stats,
            ("/open", "") => note!("/open: which file?"),
            ("/open", file) => match chat.see(&Picture::File(file.trim().into())) {
                Ok(next) => (seen, encoded) = next,
                Err(error) => note!("{}; the picture stays", pheye_files::chain(error.as_ref())),
            },
            (command, _) if command.starts_with('/') => note!("{command}: there is {COMMANDS}"),
            _ => chat.answer(&seen, encoded, line)?,
        }
    }
    if typed {
        say!("");
    }
    Ok(ExitCode::SUCCESS)
}

struct Chat<'a> {
    cx: &'a Cx,
    assistant: &'a Assistant,
    how: GenerationConfig,
    decode: DecodeOptions,
    stats: bool,
}

impl Chat<'_> {
    /// The encoded image, and how long encoding took.
    fn see(&self, picture: &Picture) -> anyhow::Result<(Seen, std::time::Duration)> {
        let tiles = self.assistant.preprocess().pixels(&picture.open(&self.decode)?);
        let began = Instant::now();
        let seen = self.assistant.see(self.cx, &[&tiles])?;
        Ok((seen, began.elapsed()))
    }

    /// Prints the answer to a question. A question that cannot be asked does not end the dialogue.
    fn answer(&self, seen: &Seen, encode: std::time::Duration, question: &str) -> anyhow::Result<()> {
        if let Err(error) = self.assistant.prompt(question) {
            note!("{}", pheye_files::chain(&error));
            return Ok(());
        }
        let mut stream = Stream::default();
        let mut on_text = |_: usize, piece: &str| stream.piece(piece);
        let streams = self.how.num_beams == 1 && self.how.num_return_sequences == 1;
        let on_text = streams.then_some(&mut on_text as &mut pheye::OnText);
        let (answers, times) =
            self.assistant.ask_timed(self.cx, seen, &[question], &[0], &self.how, on_text)?;
        if streams {
            say!("");
        } else {
            answers.iter().for_each(|answer| say!("{}", answer.text));
        }
        if self.stats {
            let tokens = answers.iter().map(|answer| answer.ids.len()).sum();
            note!("{}", Stats { encode, times, tokens }.line());
        }
        Ok(())
    }
}
