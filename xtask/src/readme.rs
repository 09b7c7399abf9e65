//! `cargo xtask readme`: runs the commands of README as a newcomer would.
//!
//! Every line of a `sh` block is a command. Those that begin with `pheye` run in an empty folder with an empty environment,
//! so that the program is all there is; the others run at the root of the repository. A line that no row of [`RULES`] knows
//! is an error, so that README cannot get a command that nobody tries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// What to do with a command.
enum Rule {
    /// Run it, with these arguments after it in the short form.
    Run(&'static str),
    /// Leave it out, and why.
    LeaveOut(&'static str),
}

/// Beginnings of commands; the first that fits counts.
const RULES: &[(&str, Rule)] = &[
    ("cargo run --release -- train configs/nano.toml --device cuda", Rule::LeaveOut("it needs a GPU")),
    (
        "cargo run --release -- train",
        Rule::Run("--overwrite --steps 20 --questions 200 --out target/readme-run"),
    ),
    ("cargo run --release -- ", Rule::Run("")),
    ("pheye train", Rule::Run("--steps 2 --set model.frozen_bf16=false")),
    ("pheye ", Rule::Run("")),
    ("cargo xtask bench", Rule::LeaveOut("it needs a GPU and PyTorch")),
    ("cargo xtask ", Rule::LeaveOut("a step of .ci/run")),
    ("cargo test ", Rule::LeaveOut("a step of .ci/run")),
    ("cargo bench ", Rule::LeaveOut("minutes of timing; its code is compiled by clippy")),
    ("for case in tests/golden", Rule::LeaveOut("a step of .ci/run")),
    ("scripts/install-nvcc", Rule::LeaveOut("a step of .ci/run")),
    ("curl ", Rule::LeaveOut("it needs the network")),
];

/// Released models, for which nano stands in, so that no network is needed.
const RELEASED: &str = "miguelcarv/Pheye-x4-672";

/// A program as it is named in README and the arguments before it.
const BY_CARGO: &str = "cargo run --release --";

pub(crate) fn run(args: &[String]) -> Result<()> {
    let (mut program, mut short) = (None, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--program" => program = args.next().map(PathBuf::from),
            "--short" => short = true,
            _ => bail!("usage: cargo xtask readme [--program FILE] [--short]"),
        }
    }
    let top = crate::root();
    let program = match program {
        Some(program) => fs::canonicalize(&program).with_context(|| program.display().to_string())?,
        None => {
            let built = Command::new("cargo")
                .args(["build", "--release", "-p", "pheye-cli"])
                .current_dir(&top)
                .status()?;
            ensure!(built.success(), "cargo build --release failed");
            top.join("target/release/pheye")
        }
    };
    let empty = top.join("target/readme-empty");
    furnish(&top, &empty)?;
    let text = fs::read_to_string(top.join("README.md"))?;
    let mut ran = 0;
    for command in commands(&text) {
        let Some((_, rule)) = RULES.iter().find(|(start, _)| format!("{command} ").starts_with(start)) else {
            bail!(
                "README.md: `{command}`: this check does not know it; give it a row in xtask/src/readme.rs"
            );
        };
        match rule {
            Rule::LeaveOut(why) => println!("not run, {why}: {command}"),
            Rule::Run(more) => {
                let more = if short { more } else { "" };
                println!("$ {command} {more}");
                execute(&command, more, &program, &top, &empty)?;
                ran += 1;
            }
        }
    }
    ensure!(ran > 0, "README.md: no command was found");
    println!("{ran} commands of README.md ran");
    Ok(())
}

/// The lines of the `sh` blocks, without comments.
fn commands(text: &str) -> Vec<String> {
    let (mut all, mut inside) = (Vec::new(), false);
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside {
            let command = line.split("  #").next().unwrap_or(line).trim();
            if !command.is_empty() && !command.starts_with('#') {
                all.push(command.to_owned());
            }
        }
    }
    all
}

/// Fills the folder in which the program runs alone with the files that README's reader has: photographs, and captions.
fn furnish(top: &Path, empty: &Path) -> Result<()> {
    if empty.exists() {
        fs::remove_dir_all(empty)?;
    }
    fs::create_dir_all(empty.join("photos"))?;
    let photo = fs::read(top.join("docs/coffee.jpg"))?;
    fs::write(empty.join("photo.jpg"), &photo)?;
    fs::write(empty.join("questions.txt"), "what color is it?\nwhat is it?\n")?;
    for (name, caption) in [("one", "a cup of coffee"), ("two", "coffee on a table")] {
        fs::write(empty.join("photos").join(format!("{name}.jpg")), &photo)?;
        fs::write(empty.join("photos").join(format!("{name}.txt")), caption)?;
    }
    Ok(())
}

/// Runs one command through the shell, with this build of the program.
fn execute(command: &str, more: &str, program: &Path, top: &Path, empty: &Path) -> Result<()> {
    let quoted = format!("'{}'", program.display());
    let alone = command.starts_with("pheye ");
    let nano = format!("'{}'", top.join("models/nano").display());
    let line = match alone {
        true => command.replacen("pheye", &quoted, 1).replace(RELEASED, &nano),
        false => command.replacen(BY_CARGO, &quoted, 1),
    };
    // Arguments go before a redirection.
    let line = match line.split_once(" > ") {
        Some((line, file)) => format!("{line} {more} > {file}"),
        None => format!("{line} {more}"),
    };
    let mut shell = Command::new("sh");
    shell.args(["-euc", &line]).current_dir(if alone { empty } else { top });
    if alone {
        // The folder of caches is inside, so that nothing outside is read or written.
        shell.env_clear().env("HOME", empty).env("HF_HUB_OFFLINE", "1");
    }
    let status = shell.status()?;
    ensure!(status.success(), "README.md: `{command}` failed ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_readme_is_known() {
        let text = fs::read_to_string(crate::root().join("README.md")).unwrap();
        let all = commands(&text);
        assert!(all.len() >= 10, "{all:?}");
        for command in all {
            let known = RULES.iter().any(|(start, _)| format!("{command} ").starts_with(start));
            assert!(known, "{command}");
        }
    }
}
