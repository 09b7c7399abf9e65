//! `pheye ask`: one picture, one question, one answer.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use pheye::image::DecodeOptions;
use pheye::model::Options;

use super::{DeviceArg, ModelArg};

/// Ask a question about a picture
///
/// Without --model, the nano model that comes with the source answers: it knows colors and shapes. Example:
/// `pheye ask picture.png "what color is the shape?"`.
///
/// `pheye ask photo.jpg "What does the sign say?" --model miguelcarv/Pheye-x4-672` downloads a released model into the
/// cache that all Hugging Face libraries share (~/.cache/huggingface), and continues a download that was cut. HF_HOME,
/// HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured. What is in the cache needs no network.
#[derive(clap::Args)]
pub struct Args {
    /// The picture: PNG, JPEG or WebP
    #[arg(value_name = "PICTURE")]
    picture: PathBuf,
    /// The question or instruction
    #[arg(value_name = "QUESTION")]
    question: String,
    #[command(flatten)]
    model: ModelArg,
    /// Longest answer, in tokens
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_new_tokens: usize,
    /// Keep weights in bf16: half the memory
    #[arg(long)]
    bf16: bool,
    /// Largest picture that is decoded, in megapixels
    #[arg(long, value_name = "MP")]
    max_megapixels: Option<u64>,
    /// Take the picture as stored, whatever orientation its EXIF data asks for (as the released code does)
    #[arg(long)]
    ignore_orientation: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut decode =
        DecodeOptions { apply_orientation: !args.ignore_orientation, ..DecodeOptions::default() };
    if let Some(megapixels) = args.max_megapixels {
        decode.max_pixels = megapixels.saturating_mul(1_000_000);
    }
    let picture = pheye::image::open(&args.picture, &decode)?;
    let cx = args.device.open()?;
    let mut assistant =
        super::load(&args.model.locate()?, if args.bf16 { Options::BF16 } else { Options::default() })?;
    assistant.move_to(&cx.device)?;
    let tiles = assistant.preprocess().pixels(&picture);

    // A person at a terminal sees the answer grow; a program gets it whole.
    let live = !args.json && std::io::stdout().is_terminal();
    let mut begun = false;
    let on_text = |_: usize, piece: &str| {
        if live {
            let piece = if begun { piece } else { piece.trim_start() };
            begun |= !piece.is_empty();
            print!("{piece}");
            // A closed pipe shows at the last line.
            let _ = std::io::stdout().flush();
        }
    };
    let question = args.question.as_str();
    let answer =
        assistant.ask(&cx, &[&tiles], &[question], &[0], args.max_new_tokens, on_text)?.swap_remove(0);
    if args.json {
        let json =
            serde_json::json!({"question": question, "answer": answer.text, "tokens": answer.ids.len()});
        println!("{json}");
    } else if live {
        println!();
    } else {
        println!("{}", answer.text);
    }
    Ok(ExitCode::SUCCESS)
}
