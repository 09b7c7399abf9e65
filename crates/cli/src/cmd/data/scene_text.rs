//! `pheye data scene-text`: writes a data set of synthetic images with words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use pheye_scene::{Generator, Options, Scene};
use rayon::prelude::*;

use super::target::Target;
use crate::out::{note, tell};
use crate::progress::Progress;
use crate::signals;

/// Make images with words in them, with questions, answers, captions and boxes
///
/// Each image shows one to three words, numbers or codes over a photograph, a texture or plain colors, some on
/// sign boards. The heights of the letters are log-uniform from --min-height to --max-height. Image N is a
/// function of --seed, N and the options, so that a longer data set begins with the images of a shorter one.
///
/// A line of manifest.jsonl has the questions with their answers (qa), a caption, the kinds of the questions
/// (kinds), the boxes of the answers (boxes: x, y, width, height in pixels, or null), and the words with their
/// boxes, heights, angles, fonts and colors (words).
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder to write, or zip archive if the name ends in `.zip`
    #[arg(long, value_name = "DIR_OR_ZIP")]
    out: PathBuf,
    /// Number of images, at most a million
    #[arg(long, value_name = "N")]
    count: u64,
    /// Seed of the images
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Side of the square images in pixels, 32 to 1024
    #[arg(long, value_name = "PIXELS", default_value_t = 144)]
    size: usize,
    /// Smallest height of a glyph body in pixels: of `x` in words with lower-case letters, of `H` in others
    #[arg(long, value_name = "PIXELS", default_value_t = 7.0)]
    min_height: f32,
    /// Largest height of a glyph body in pixels; by default 28 in images of 144 pixels, in proportion for
    /// others
    #[arg(long, value_name = "PIXELS")]
    max_height: Option<f32>,
    /// Largest number of words in an image, 1 to 3
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_words: usize,
    /// Only level words in black over white, with no more questions than what is written: first lessons in
    /// reading
    #[arg(long)]
    plain: bool,
    /// Use the .ttf and .otf fonts of this folder instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    fonts: Option<PathBuf>,
    /// Use the PNG, JPEG and WebP images of this folder instead of the built-in photographs and textures
    #[arg(long, value_name = "DIR")]
    backgrounds: Option<PathBuf>,
    /// Use the words of this text file instead of the built-in ones
    #[arg(long, value_name = "FILE")]
    words: Option<PathBuf>,
    /// Write JPEG files of this quality, 1 to 100, instead of PNG files
    #[arg(long, value_name = "QUALITY", value_parser = clap::value_parser!(u8).range(1..=100))]
    jpeg: Option<u8>,
    /// Also write the first 48 images side by side to this PNG file
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Replace an existing data set
    #[arg(long)]
    overwrite: bool,
}

const EXAMPLES: &str = "\
Examples:
  pheye data scene-text --out train.zip --count 20000 --seed 1
  pheye data scene-text --out test.zip --count 1000 --seed 2 --fonts other-fonts --backgrounds other-photographs
  pheye data scene-text --out look --count 48 --sheet look.png";

/// The largest number of images; their names have six digits.
const MOST: u64 = 1_000_000;
/// The number of images in memory at once.
const CHUNK: u64 = 256;

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    ensure!((1..=MOST).contains(&args.count), "--count: {}; it must be from 1 to {MOST}", args.count);
    if let Some(sheet) = args.sheet.as_ref().filter(|sheet| sheet.exists()) {
        ensure!(args.overwrite, "{}: it exists; --overwrite replaces it", sheet.display());
    }
    let generator = Generator::new(&options(&args)).map_err(|error| match error {
        pheye_scene::Error::Option { option, message } => anyhow::anyhow!("--{option}: {message}"),
        other => other.into(),
    })?;
    let began = Instant::now();
    let mut target = Target::create(&args.out, args.overwrite)?;
    remove_when_stopped(target.staging())?;
    let mut bar = Progress::new(args.count, "images");
    let (mut sheet, mut questions, mut begin) = (Vec::new(), 0, 0);
    while begin < args.count {
        let end = args.count.min(begin + CHUNK);
        let made: Vec<_> = (begin..end).into_par_iter().map(|i| make(&generator, i, args.jpeg)).collect();
        for (i, made) in (begin..end).zip(made) {
            let (scene, bytes) = made?;
            let name = format!("{i:06}.{}", if args.jpeg.is_some() { "jpg" } else { "png" });
            target.add(&name, &bytes, &scene.line(&name))?;
            questions += scene.qa.len();
            if sheet.len() < SHEET.0 * SHEET.1 {
                sheet.push(scene.image.pixels);
            }
        }
        bar.at(end);
        begin = end;
    }
    target.finish()?;
    bar.finish();
    if let Some(path) = &args.sheet {
        write_sheet(path, &sheet, args.size)?;
    }
    let rate = args.count as f64 / began.elapsed().as_secs_f64();
    tell!("{}: {} images, {questions} questions, {rate:.0} images/s", args.out.display(), args.count);
    Ok(ExitCode::SUCCESS)
}

fn options(args: &Args) -> Options {
    Options {
        seed: args.seed,
        size: args.size,
        min_height: args.min_height,
        max_height: args.max_height,
        max_words: args.max_words,
        plain: args.plain,
        fonts: args.fonts.clone(),
        backgrounds: args.backgrounds.clone(),
        words: args.words.clone(),
    }
}

/// Scene `i` and its image as a file.
fn make(generator: &Generator, i: u64, jpeg: Option<u8>) -> pheye_scene::Result<(Scene, Vec<u8>)> {
    let scene = generator.scene(i);
    let bytes = match jpeg {
        Some(quality) => scene.jpeg(quality)?,
        None => scene.png()?,
    };
    Ok((scene, bytes))
}

fn remove_when_stopped(staging: &Path) -> anyhow::Result<()> {
    let staging = staging.to_owned();
    let stop = move || {
        let _ = std::fs::remove_dir_all(&staging);
        note!("interrupted; nothing was written");
        std::process::exit(130);
    };
    signals::on_stop(stop).context("the signal handler could not be installed")
}

/// Columns and rows of a contact sheet.
const SHEET: (usize, usize) = (8, 6);
/// Pixels between its images.
const GUTTER: usize = 4;

/// Writes the images, `size` by `size` RGB pixels each, side by side on a gray sheet.
fn write_sheet(path: &Path, images: &[Vec<u8>], size: usize) -> anyhow::Result<()> {
    let (columns, rows) = (SHEET.0.min(images.len()), images.len().div_ceil(SHEET.0));
    let (width, height) = (columns * (size + GUTTER) + GUTTER, rows * (size + GUTTER) + GUTTER);
    let mut pixels = vec![96; 3 * width * height];
    for (i, image) in images.iter().enumerate() {
        let (x, y) = (GUTTER + i % SHEET.0 * (size + GUTTER), GUTTER + i / SHEET.0 * (size + GUTTER));
        for (row, line) in image.chunks_exact(3 * size).enumerate() {
            pixels[3 * ((y + row) * width + x)..][..line.len()].copy_from_slice(line);
        }
    }
    pheye::weights::atomic_write(path, |out| {
        let mut encoder = png::Encoder::new(out, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&pixels)?;
        writer.finish().map_err(Into::into)
    })?;
    Ok(())
}
