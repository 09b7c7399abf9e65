//! The `pheye` command: train, ask, evaluate and verify models.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cmd;
mod look;
mod numbers;
mod out;
mod picture;
mod plot;
mod progress;
mod show;
mod signals;
mod training;

use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

/// Pheye, a small vision-language model that reads fine detail: train it, ask it, check it.
///
/// New here? `pheye ask` asks the nano model, which is part of this program, about a built-in image, and
/// `pheye ask photo.jpg "what color is the shape?"` about yours. `pheye doctor` shows what this machine has.
#[derive(Parser)]
#[command(
    name = "pheye",
    version,
    after_help = "Exit codes: 0 success; 1 failure (the reason is on standard error); 2 wrong usage; \
                  3 `verify` found a stage out of bounds; 130 interrupted, with everything saved (unless by a second Ctrl-C); \
                  141 standard output was closed before the whole result was written."
)]
struct Cli {
    /// Say more on standard error: what is read and how long it takes; in `verify`, list every stage
    #[arg(long, short, global = true, action = clap::ArgAction::Count, display_order = 1000)]
    verbose: u8,
    /// Say nothing on standard error except warnings and errors, and show no progress
    #[arg(long, short, global = true, conflicts_with = "verbose", display_order = 1000)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Ask(cmd::ask::Args),
    Chat(cmd::chat::Args),
    Caption(cmd::caption::Args),
    Init(cmd::init::Args),
    Train(cmd::train::Args),
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
    #[cfg(feature = "hub")]
    Models(cmd::models::Args),
    Doctor(cmd::doctor::Args),
    Completions(cmd::shell::Completions),
    Man(cmd::shell::Man),
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
    let Cli { verbose, quiet, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unparsed(&error),
    };
    out::begin(quiet, verbose);
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
        Command::Chat(args) => cmd::chat::run(args),
        Command::Caption(args) => cmd::caption::run(args),
        Command::Init(args) => cmd::init::run(args),
        #[cfg(feature = "hub")]
        Command::Models(args) => cmd::models::run(args),
        Command::Doctor(args) => cmd::doctor::run(args),
        Command::Completions(args) => cmd::shell::completions(args, Cli::command()),
        Command::Man(args) => cmd::shell::man(args, Cli::command()),
    });
    done.unwrap_or_else(|error| {
        out::failed(&error);
        ExitCode::FAILURE
    })
}

/// Prints why the command line is wrong, or the help or version that was asked for. An unknown command is answered with
/// the known ones.
fn unparsed(error: &clap::Error) -> ExitCode {
    // A failure to print is ignored, as for all messages.
    let _ = error.print();
    if error.kind() == ErrorKind::InvalidSubcommand {
        // The deepest command that was named has the list.
        let mut within = Cli::command();
        for arg in std::env::args().skip(1) {
            match within.find_subcommand(&arg) {
                Some(next) => within = next.clone(),
                None => break,
            }
        }
        let names: Vec<&str> = within.get_subcommands().map(clap::Command::get_name).collect();
        out::to_stderr(format_args!("\nThe commands are {}.", names.join(", ")));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
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
