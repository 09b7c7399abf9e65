//! `pheye verify`: every stage against golden data.

use std::path::PathBuf;
use std::process::ExitCode;

use pheye::eval::Stage;

use super::DeviceArg;

/// Compare every stage of a model with golden data computed by PyTorch
///
/// DIR holds a model and `golden.safetensors`: pixels, media, logits, loss, the gradient of every trained tensor,
/// greedily generated ids and the losses of five training steps. Each line shows the largest error, the largest
/// allowed, and whether it passed. On a GPU the bounds are those of bf16, from `golden_bf16.safetensors`. Exits with 3
/// when a stage did not pass.
#[derive(clap::Args)]
pub struct Args {
    /// Folder with the model and its golden data
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Show every gradient, not only the worst
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let report = pheye::eval::verify(&args.device.open()?, &args.dir)?;
    let code = if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(3) };
    if args.json {
        println!(
            "{}",
            serde_json::to_string(&serde_json::json!({"passed": report.passed(), "stages": report.stages}))?
        );
        return Ok(code);
    }
    println!("{:<14} {:>10} {:>10}", "stage", "error", "allowed");
    let (grads, stages): (Vec<&Stage>, Vec<&Stage>) =
        report.stages.iter().partition(|s| s.name.starts_with("grad."));
    stages.iter().for_each(|s| line(&s.name, s));
    let worst = grads.iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    for s in &grads {
        if args.verbose || !s.passed() {
            line(&s.name, s);
        }
    }
    if let (Some(worst), false) = (worst, args.verbose) {
        println!("{} gradients; nearest to its bound is {}:", grads.len(), worst.name);
        line("gradients", worst);
    }
    let failed = report.stages.iter().filter(|s| !s.passed()).count();
    match failed {
        0 => println!("passed: {} stages", report.stages.len()),
        n => println!("FAILED: {n} of {} stages", report.stages.len()),
    }
    Ok(code)
}

/// The share of its bound that an error takes; what is not a number takes all.
fn ratio(s: &Stage) -> f64 {
    if s.error.is_nan() { f64::INFINITY } else { s.error / s.allowed.max(f64::MIN_POSITIVE) }
}

fn line(name: &str, s: &Stage) {
    let verdict = if s.passed() { "ok" } else { "OUT OF BOUNDS" };
    println!("{name:<14} {:>10.2e} {:>10.2e}  {verdict}", s.error, s.allowed);
}
