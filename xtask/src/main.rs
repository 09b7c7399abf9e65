//! The maintenance commands of this repository. `cargo xtask` lists them; each has a file of its own.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![forbid(unsafe_code)]

mod bench;
mod caption;
mod crates;
mod easy_vqa;
mod golden;
mod kernels;
mod model;
mod nano_tokenizer;
mod reading_tokenizer;
mod readme;
mod release;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

/// The name of a command, its arguments, its description, and its function.
type Chore = (&'static str, &'static str, &'static str, fn(&[String]) -> Result<()>);

const CHORES: &[Chore] = &[
    (
        "golden",
        "[-v] [DIR…]",
        "write what `pheye verify` on a GPU compares with (python3, torch)",
        golden::bounds,
    ),
    (
        "golden-generate",
        "[DIR…]",
        "write the ids that `pheye verify` compares with (python3, torch, transformers 4.37)",
        golden::generate,
    ),
    ("kernels", "[--check] [ARCHS]", "compile the CUDA kernels and print what each uses", kernels::run),
    (
        "tidy",
        "",
        "check the invariants of the repository: crate dependencies, file sizes, kernels and tests, links",
        tidy::run,
    ),
    ("crate-map", "", "draw docs/crates.svg, the crates and their dependencies", crates::draw),
    (
        "bench",
        "[--device cpu|cuda] [--peers] [--rounds N] [--family F] [--write]",
        "run benches and their rivals in turns; one table, one JSON file in benches/results",
        bench::run,
    ),
    (
        "bench-model",
        "[--case NAME] [--rounds N] [--python P] [--pheye FILE] [--write]",
        "time the whole model on the CPU against PyTorch, stage by stage (python3, torch, 20 GB)",
        model::run,
    ),
    (
        "pack-easy-vqa",
        "DIR",
        "pack the data of an unzipped easy-vqa Python package into data/easy-vqa",
        easy_vqa::pack,
    ),
    ("nano-tokenizer", "", "make models/nano/tokenizer.json from the packed texts", nano_tokenizer::make),
    (
        "reading-tokenizer",
        "",
        "make configs/reading/tokenizer.json from the words beside it",
        reading_tokenizer::make,
    ),
    (
        "readme",
        "[--program FILE] [--short]",
        "run the commands of README.md, those that begin with `pheye` in an empty folder",
        readme::run,
    ),
    ("licences", "", "check the licences of all dependencies against deny.toml", release::licences::run),
    (
        "archive",
        "[--target TRIPLE] [--out DIR]",
        "build the program and pack it with its licences, as a release does",
        release::archive::run,
    ),
    (
        "release",
        "--dry-run|--tag TAG [--skip-build] [--verify]",
        "check that a release can be made; build, pack and install what this machine can",
        release::run,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = args.first() else {
        for (name, args, about, _) in CHORES {
            println!("cargo xtask {:<28} {about}", format!("{name} {args}"));
        }
        return ExitCode::SUCCESS;
    };
    let asked = args.iter().any(|arg| arg == "--help" || arg == "-h");
    let result = match CHORES.iter().find(|chore| chore.0 == name) {
        Some((_, args, about, _)) if asked => {
            println!("cargo xtask {name} {args}\n{about}");
            Ok(())
        }
        Some((_, _, _, run)) => run(&args[1..]),
        None => Err(anyhow::anyhow!("no command `{name}`; `cargo xtask` lists them")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
