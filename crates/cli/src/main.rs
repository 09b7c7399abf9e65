//! The `pheye` command: train, ask, evaluate and verify models.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cmd;
mod look;
mod numbers;
mod out;
mod plot;
mod progress;
mod show;
mod signals;
mod training;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Pheye, a small vision-language model that reads fine detail: train it, ask it, check it.
///
/// New here? `pheye ask picture.png "what color is the shape?"` asks the nano model of this repository, and
/// `pheye train configs/nano.toml` trains one like it in a few minutes.
#[derive(Parser)]
#[command(
    name = "pheye",
    version,
    after_help = "Exit codes: 0 success; 1 failure (the reason is on standard error); 2 wrong usage; \
                  3 `verify` found a stage out of bounds; 130 interrupted, with everything saved (unless by a second Ctrl-C); \
                  141 standard output was closed before the whole result was written."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(cmd::train::Args),
    Ask(cmd::ask::Args),
    Eval(cmd::eval::Args),
    Verify(cmd::verify::Args),
    Info(cmd::info::Args),
    Convert(cmd::convert::Args),
    Bench(cmd::bench::Args),
    Data(cmd::data::Args),
    Runs(cmd::runs::Args),
    Plot(cmd::plot::Args),
    Score(cmd::score::Args),
    Report(cmd::report::Args),
    Baselines(cmd::baselines::Args),
}

fn main() -> ExitCode {
    // The stack of the main thread is limited by `ulimit -s`; a spawned thread has the size set here.
    let main = std::thread::Builder::new().name("main".to_owned()).stack_size(STACK).spawn(command);
    let ended = main.context("no thread could be started").map(|main| main.join());
    match ended {
        Ok(Ok(code)) => code,
        // A panic, which the panic hook has already reported.
        Ok(Err(_)) => ExitCode::from(101),
        Err(error) => {
            out::failed(&error);
            ExitCode::FAILURE
        }
    }
}

/// Stack size in bytes: the default of a main thread on Linux.
const STACK: usize = 8 << 20;

fn command() -> ExitCode {
    let command = Cli::parse().command;
    signals::survive_file_size_limit();
    let done = threads().and_then(|()| match command {
        Command::Train(args) => cmd::train::run(args),
        Command::Ask(args) => cmd::ask::run(args),
        Command::Eval(args) => cmd::eval::run(args),
        Command::Verify(args) => cmd::verify::run(args),
        Command::Info(args) => cmd::info::run(args),
        Command::Convert(args) => cmd::convert::run(args),
        Command::Bench(args) => cmd::bench::run(args),
        Command::Data(args) => cmd::data::run(args),
        Command::Runs(args) => cmd::runs::run(args),
        Command::Plot(args) => cmd::plot::run(args),
        Command::Score(args) => cmd::score::run(args),
        Command::Report(args) => cmd::report::run(args),
        Command::Baselines(args) => cmd::baselines::run(args),
    });
    done.unwrap_or_else(|error| {
        out::failed(&error);
        ExitCode::FAILURE
    })
}

/// Upper limit for RAYON_NUM_THREADS on machines with fewer processors than this.
const MOST_THREADS: usize = 256;

/// Starts the thread pool: one thread per processor, or RAYON_NUM_THREADS.
fn threads() -> anyhow::Result<()> {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = rayon::ThreadPoolBuilder::new().num_threads(asked.min(processors.max(MOST_THREADS)));
    threads.build_global().context("the thread pool could not be started (RAYON_NUM_THREADS sets its size)")
}
