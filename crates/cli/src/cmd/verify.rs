//! `pheye verify`: compares every stage of a model with golden data.

use std::path::PathBuf;
use std::process::ExitCode;

use pheye::eval::Stage;

use super::DeviceArg;
use crate::out::{self, say, tell};

/// Compare every stage of a model with golden data computed by PyTorch
///
/// DIR contains a model and `golden.safetensors`: pixels, media (image tokens), logits, loss, the gradient of
/// every trained tensor, greedily generated ids and the losses of five training steps. The optional
/// `generate.json` adds the ids of beam search, penalties and end tokens, and the probabilities of sampling,
/// all from transformers' generate(). With `--verbose`, every gradient and generation case is
/// listed, not only the worst. Each line shows the largest error, its bound, and whether the stage
/// passed. On a GPU the bounds for bf16 are used, from `golden_bf16.safetensors`. The exit code is 3 when a
/// stage did not pass.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder with the model and its golden data
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
}

/// Stages that are shown as one group: the prefix of their names, the name of the group, and what its members
/// are.
const GROUPS: [(&str, &str, &str); 3] = [
    ("grad.", "gradients", "gradients"),
    ("generate ", "generate", "generation cases, in which every id must be equal"),
    ("sampling ", "sampling", "distributions to sample from"),
];

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let report = pheye::eval::verify(&args.device.open()?, &args.dir)?;
    let code = if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(3) };
    if args.json {
        say!(
            "{}",
            serde_json::to_string(&serde_json::json!({"passed": report.passed(), "stages": report.stages}))?
        );
        return Ok(code);
    }
    tell!("{:<14} {:>10} {:>10}", "stage", "error", "allowed");
    let group = |s: &Stage| GROUPS.iter().position(|(prefix, ..)| s.name.starts_with(prefix));
    report.stages.iter().filter(|s| group(s).is_none()).for_each(|s| line(&s.name, s));
    for (i, (_, name, what)) in GROUPS.iter().enumerate() {
        let members = || report.stages.iter().filter(|s| group(s) == Some(i));
        members().filter(|s| out::verbose() || !s.passed()).for_each(|s| line(&s.name, s));
        let worst = members().max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        if let (Some(worst), false) = (worst, out::verbose()) {
            if worst.error == 0.0 {
                tell!("{name:<14} {:>10} {:>10}  ok, {} {what}", "0", "0", members().count());
            } else {
                line(name, worst);
                tell!("  of {} {what}; this is {}, the nearest to its bound", members().count(), worst.name);
            }
        }
    }
    let failed = report.stages.iter().filter(|s| !s.passed()).count();
    match failed {
        0 => tell!("passed: {} stages", report.stages.len()),
        n => tell!("FAILED: {n} of {} stages", report.stages.len()),
    }
    Ok(code)
}

/// The error as a fraction of its bound; infinity if the error is NaN.
fn ratio(s: &Stage) -> f64 {
    if s.error.is_nan() { f64::INFINITY } else { s.error / s.allowed.max(f64::MIN_POSITIVE) }
}

fn line(name: &str, s: &Stage) {
    let verdict = if s.passed() { "ok" } else { "OUT OF BOUNDS" };
    let number = |x: f64| if x == 0.0 { "0".to_owned() } else { format!("{x:.2e}") };
    tell!("{name:<14} {:>10} {:>10}  {verdict}", number(s.error), number(s.allowed));
}
