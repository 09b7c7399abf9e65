//! `pheye completions` and `pheye man`: what shells and `man` take from the definition of the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

use crate::out::{self, tell};

/// Print the completions of a shell
///
/// Examples:
///
///   pheye completions bash > ~/.local/share/bash-completion/completions/pheye
///   pheye completions zsh > ~/.zfunc/_pheye
///   pheye completions fish > ~/.config/fish/completions/pheye.fish
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

pub(crate) fn completions(args: Completions, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "pheye", &mut text);
    out::write(format_args!("{}", String::from_utf8(text)?));
    Ok(ExitCode::SUCCESS)
}

/// Write the manual pages, pheye.1 and one for each subcommand
///
/// Example: `pheye man ~/.local/share/man/man1`, then `man pheye-ask`.
#[derive(clap::Args)]
pub(crate) struct Man {
    /// The folder to write to
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn man(args: Man, command: Command) -> anyhow::Result<ExitCode> {
    let shown = args.dir.display();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("{shown}: cannot be created"))?;
    clap_mangen::generate_to(command, &args.dir).with_context(|| format!("{shown}: cannot be written"))?;
    tell!("manual pages: {shown}");
    Ok(ExitCode::SUCCESS)
}
