//! The `pheye` command: train, ask, evaluate, verify.
#![forbid(unsafe_code)]

mod cmd;
mod out;
mod plot;
mod progress;
mod show;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Pheye, a small vision-language model that reads fine detail: train it, ask it, check it.
///
/// New here? `pheye ask picture.png "what color is the shape?"` asks the nano model that comes with the source, and
/// `pheye train configs/nano.toml` makes one like it in a few minutes.
#[derive(Parser)]
#[command(
    name = "pheye",
    version,
    after_help = "Exit codes: 0 done; 1 could not be done (the reason is on standard error); 2 wrong usage; \
                  3 `verify` found a stage out of bounds; 130 interrupted, with everything saved (unless by a second Ctrl-C); \
                  141 nobody read standard output any more."
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
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Train(args) => cmd::train::run(args),
        Command::Ask(args) => cmd::ask::run(args),
        Command::Eval(args) => cmd::eval::run(args),
        Command::Verify(args) => cmd::verify::run(args),
        Command::Info(args) => cmd::info::run(args),
        Command::Convert(args) => cmd::convert::run(args),
        Command::Bench(args) => cmd::bench::run(args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
