//! `pheye data check`: reads every sample of a run once.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use pheye::data::{Check, CheckOptions, Faults, OnBroken, Summary, check};
use pheye::train::{Config, max_tokens, mixture};

use crate::out::say;
use crate::progress::Progress;

/// Read every sample of a training config once, before a run does
///
/// Says what is used of each source and what is not, and finds missing images, texts that do not fit into the
/// context, and questions that an image has twice. Exits with 1 if a run would stop. Example:
/// `pheye data check configs/nano.toml --images`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Config of the run, a TOML file
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Decode every image, too, instead of only looking whether it is there
    #[arg(long)]
    images: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(&args.config)?;
    crate::cmd::model::locate_in(&mut config)?;
    let shape = config.shape()?;
    let mixture = mixture(&config)?;
    let options = CheckOptions { images: args.images, max_tokens: max_tokens(&config, &shape) };
    // Longer texts are counted, not refused.
    config.data.max_tokens = Some(usize::MAX);
    let encode = pheye::encoder(&config)?;
    let bar = Mutex::new(Progress::new(mixture.len() as u64, "items"));
    let on = |done, _| bar.lock().unwrap_or_else(|e| e.into_inner()).at(done);
    let found = check(&mixture, &*encode, options, &on);
    bar.into_inner().unwrap_or_else(|e| e.into_inner()).finish();
    if args.json {
        say!("{}", serde_json::to_string(&found)?);
    } else {
        say!("{}", report(&found, args.images));
    }
    let stops = found.stops() && config.data.on_broken == OnBroken::Stop;
    Ok(if stops { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn report(found: &Check, images: bool) -> String {
    let mut text = String::new();
    found.sources.iter().for_each(|summary| source(&mut text, summary));
    let mut line = |line: String| _ = writeln!(text, "{line}");
    line(format!("{} texts about {} images", found.texts, found.images));
    let mut faults = |name: &str, faults: &Faults| {
        line(format!("{name}: {}", faults.count));
        faults.first.iter().for_each(|first| line(format!("  {first}")));
    };
    faults("images that are missing", &found.missing);
    if images {
        faults("images that cannot be decoded", &found.broken);
    }
    faults("rows and texts that cannot be used", &found.unusable);
    faults("texts that are too long", &found.too_long);
    faults("texts that an image has twice", &found.duplicates);
    let _ = write!(text, "{}", lengths(found));
    text
}

fn source(text: &mut String, summary: &Summary) {
    let Summary { path, format, rows, samples, parts, left_out } = summary;
    let _ = writeln!(
        text,
        "{} ({}): {rows} rows, {samples} samples an epoch",
        pheye_files::quoted(&path.display().to_string()),
        format.name()
    );
    for part in parts {
        let _ = writeln!(
            text,
            "  {:<14} {:>9} items {:>9} turns {:>9} samples a pass {:>9} an epoch",
            part.name, part.items, part.turns, part.pass, part.samples
        );
    }
    for (why, left) in left_out {
        let _ = writeln!(text, "  left out: {why}: {} (first: {})", left.count, left.first);
    }
}

/// The histogram of lengths.
fn lengths(found: &Check) -> String {
    let (tokens, mut from) = (&found.tokens, 0);
    let counted: u64 = tokens.counts.iter().sum();
    let mean = tokens.total as f64 / counted.max(1) as f64;
    let mut text = format!("tokens with the prompt: {mean:.1} on average, {} at most", tokens.longest);
    for (i, count) in tokens.counts.iter().enumerate() {
        let range = match tokens.bounds.get(i) {
            Some(to) => format!("{from:>5} to {to:>4}"),
            None => format!("{from:>5} and more"),
        };
        if *count > 0 {
            let _ = write!(text, "\n  {range:<14} {count:>9}");
        }
        from = tokens.bounds.get(i).map_or(from, |to| to + 1);
    }
    text
}
