//! `pheye train`: a training run from its config, then its accuracy and a few answered images.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;
use pheye::Assistant;
use pheye::data::Manifest;
use pheye::model::Options;
use pheye::train::{Config, Interrupt, Set, Start, Task, reference, schema, train};

use super::eval::{measure, pick, sentence, write};
use super::{DeviceArg, tidy};
use crate::numbers::{counted, duration};
use crate::out::{note, say, tell, warning};
use crate::training::Training;
use crate::{plot, show, signals};

/// The folder of the checkpoints in that of a run.
const CHECKPOINTS: &str = "checkpoints";

/// Train a model as specified by a config file
///
/// Shows progress, saves checkpoints and metrics (JSON lines and TensorBoard events) in the run's folder, and
/// ends with the accuracy on the test questions and a few answered images. Ctrl-C saves and stops; `--resume`
/// continues with the same bits as an uninterrupted run. Example: `pheye train configs/nano.toml`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Config of the run, a TOML file
    #[arg(value_name = "CONFIG", required_unless_present_any = ["keys", "schema"])]
    config: Option<PathBuf>,
    /// Set a key of the config, as in `--set optim.lr=1e-4`; may be repeated
    ///
    /// The value is TOML; a word that is not TOML is a string. Paths are relative to the folder of the config,
    /// and `train.steps` and `train.epochs` replace each other.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Set>,
    /// Continue from the last checkpoint of the run
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Start again, replacing an earlier run in the same folder
    #[arg(long, alias = "over")]
    overwrite: bool,
    /// Take N steps instead of the number in the config
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Ask only the first N test questions at the end
    #[arg(long, value_name = "N", value_parser = super::at_least_one)]
    questions: Option<usize>,
    /// Folder of the run, instead of the config's
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print all keys of a config in Markdown, with their types, defaults and meanings
    #[arg(long, exclusive = true)]
    keys: bool,
    /// Print the JSON schema of a config, with which editors check and complete it
    #[arg(long, exclusive = true)]
    schema: bool,
    /// Print what the run will take (samples, steps, tokens, operations, memory, time) and do not start it
    #[arg(long, conflicts_with_all = ["resume", "overwrite"])]
    plan: bool,
    /// With `--plan`: operations per second for the time, instead of a measured rate, as in 2e14
    #[arg(long, value_name = "FLOPS", requires = "plan", value_parser = positive)]
    rate: Option<f64>,
    /// With `--plan`: print JSON
    #[arg(long, requires = "plan")]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| "a positive number is needed, such as 2e14".to_owned())
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(file) = &args.config else {
        let page = if args.keys { reference() } else { serde_json::to_string_pretty(&schema())? + "\n" };
        say!("{}", page.trim_end());
        return Ok(ExitCode::SUCCESS);
    };
    let mut config = Config::load_with(file, &args.set)?;
    if let Some(steps) = args.steps {
        (config.train.steps, config.train.epochs) = (Some(steps), None);
    }
    if let Some(out) = &args.out {
        config.train.out = std::path::absolute(out)?;
    }
    super::model::locate_in(&mut config)?;
    if args.plan {
        super::plan::show(&args.device.open()?, &config, args.json, args.rate)?;
        return Ok(ExitCode::SUCCESS);
    }
    let start = match (args.resume, args.overwrite) {
        (true, _) => Start::Resume,
        (_, true) => Start::Over,
        _ => Start::New,
    };
    let cx = args.device.open()?;
    let stop = Interrupt::default();
    let training = Arc::new(AtomicBool::new(true));
    let (handler, saving) = (stop.clone(), training.clone());
    let on_signal = move || {
        // A second signal exits without waiting for the step to end. After training, everything has been
        // saved.
        if handler.stopped() || !saving.load(Ordering::SeqCst) {
            std::process::exit(130);
        }
        handler.stop();
        note!("saving, then stopping; a second signal stops at once");
    };
    signals::on_stop(on_signal).context("the signal handler could not be installed")?;

    // A missing test set is reported now, not after the training.
    for test in &config.data.test {
        Manifest::open(config.resolve(test)).context("data.test")?;
    }
    let out = config.resolve(&config.train.out);
    if args.resume && !out.join(CHECKPOINTS).is_dir() {
        warning!("there is no checkpoint in {}: the run begins at its first step", tidy(&out).display());
    }
    let began = Instant::now();
    let mut progress = Training::new();
    let (encode, evaluate) = (pheye::encoder(&config)?, pheye::evaluator(&config)?);
    let outcome = train(&cx, &config, encode, evaluate, start, &stop, |event| progress.event(event))?;
    training.store(false, Ordering::SeqCst);
    let taken = outcome.step - progress.finish();
    if outcome.skipped > 0 {
        tell!("skipped (data.on_broken = \"skip\"): {} images and texts", outcome.skipped);
        outcome.reasons.iter().for_each(|why| tell!("  {why}"));
    }
    if !outcome.finished {
        tell!("stopped after step {}; go on with --resume", outcome.step);
        return Ok(ExitCode::from(130));
    }
    let steps = |n| counted(n, "step");
    match taken {
        0 => tell!("all {} were trained before", steps(outcome.step)),
        _ if taken < outcome.step => {
            tell!(
                "trained {} of {} in {}",
                taken,
                steps(outcome.step),
                duration(began.elapsed().as_secs_f64())
            );
        }
        _ => tell!("trained {} in {}", steps(taken), duration(began.elapsed().as_secs_f64())),
    }
    plot::losses(&out)?;
    if let Some(model) = &outcome.model {
        tell!("model: {}", tidy(model).display());
        if config.task == Task::Pheye && !config.data.test.is_empty() {
            report(file, args.questions, &config, &cx, &out, model)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn report(
    file: &Path,
    questions: Option<usize>,
    config: &Config,
    cx: &pheye::ops::Cx,
    out: &Path,
    model: &Path,
) -> anyhow::Result<()> {
    let mut assistant = Assistant::load(model, Options::default())?;
    assistant.move_to(&cx.device)?;
    let (accuracy, sets) = measure(cx, config, file, &assistant, questions)?;
    let shown = pick(&sets, config.eval.show)?;
    show::print(&shown, crate::out::colored());
    let sheet = out.join("answers.svg");
    write(&sheet, &show::svg(&shown))?;
    tell!("answered images: {}", tidy(&sheet).display());
    tell!("{}", sentence(&accuracy));
    Ok(())
}
