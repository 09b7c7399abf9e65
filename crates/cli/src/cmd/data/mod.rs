//! `pheye data`: data sets, one module per subcommand.

mod check;
mod scene_text;
mod target;

use std::process::ExitCode;

/// Make data sets to train on, and check them
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Check(check::Args),
    SceneText(scene_text::Args),
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(args) => check::run(args),
        Command::SceneText(args) => scene_text::run(args),
    }
}
