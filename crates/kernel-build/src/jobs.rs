//! Shared by both compilers of the kernels: finding sources, naming outputs by their content, and running
//! commands in parallel.
//!
//! Build scripts and the report use the same names in the same cache, so that each reuses what the other
//! compiled.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A `.cu` file. `name` is its path in the kernel folder without the extension, such as `fused/norm_linear`.
pub(crate) struct Source {
    pub name: String,
    pub path: PathBuf,
}

/// All `.cu` files under `dir`, sorted by name; empty if the folder does not exist.
pub(crate) fn sources(dir: &Path) -> Result<Vec<Source>, String> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        let unreadable = |error| format!("cannot read the folder {}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "cu") {
                let name = path.strip_prefix(dir).unwrap_or(&path).with_extension("");
                found.push(Source { name: name.to_string_lossy().replace('\\', "/"), path });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// `file` and all files that it includes by `#include "…"`, directly or indirectly, with their texts, in
/// order of inclusion. A name is looked up in the folder of the including file, then in `dirs`. A file that
/// is not found is left out; the compiler will report it.
pub(crate) fn closure(file: &Path, dirs: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, String> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    visit(file, dirs, &mut found)?;
    Ok(found)
}

fn visit(file: &Path, dirs: &[PathBuf], found: &mut Vec<(PathBuf, String)>) -> Result<(), String> {
    if found.iter().any(|(path, _)| path == file) {
        return Ok(());
    }
    let text =
        fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    found.push((file.to_path_buf(), text.clone()));
    let beside = file.parent().unwrap_or(Path::new(""));
    for name in text.lines().filter_map(|line| included(line, '"', '"')) {
        let place = std::iter::once(beside)
            .chain(dirs.iter().map(PathBuf::as_path))
            .map(|dir| dir.join(name))
            .find(|path| path.is_file());
        if let Some(place) = place {
            visit(&place, dirs, found)?;
        }
    }
    Ok(())
}

/// The name that a line includes between the delimiters `open` and `close`, or `None` if it is no such
/// include.
pub(crate) fn included(line: &str, open: char, close: char) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
    Some(rest.trim_start().strip_prefix(open)?.split_once(close)?.0)
}

/// A hash of `texts` for the name of an output, so that it changes with any of its inputs.
pub(crate) fn key(texts: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Creates `file` by `make`, unless it exists. `make` writes to a temporary name, which is then renamed, so
/// that `file` is always complete, even if two builds run at once or one is interrupted.
pub(crate) fn once(file: &Path, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    if file.is_file() {
        return Ok(());
    }
    let failed = |error| format!("cannot write {}: {error}", file.display());
    fs::create_dir_all(file.parent().unwrap_or(Path::new(""))).map_err(failed)?;
    let mut part = file.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    make(&part)?;
    fs::rename(&part, file).map_err(failed)
}

/// Runs `command` and returns its standard output followed by its standard error.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {program}: {error}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        return Ok(text);
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    Err(format!("{text}\n{program} {} failed ({})", arguments.join(" "), output.status))
}

/// Calls `work` on each of `items`, `jobs` at a time. Returns the results in the order of the items, or all
/// errors joined by line breaks.
pub(crate) fn each<T: Sync, R: Send>(
    jobs: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R, String> + Sync,
) -> Result<Vec<R>, String> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(HashMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some((at, item)) = take(&next, items) {
                    let result = work(item);
                    done.lock().expect("no worker panics while it holds the lock").insert(at, result);
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panics while it holds the lock");
    let (results, failures): (Vec<_>, Vec<_>) =
        (0..items.len()).filter_map(|at| done.remove(&at)).partition(Result::is_ok);
    if failures.is_empty() {
        Ok(results.into_iter().flatten().collect())
    } else {
        Err(failures.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("\n"))
    }
}

fn take<'a, T>(next: &AtomicUsize, items: &'a [T]) -> Option<(usize, &'a T)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    items.get(at).map(|item| (at, item))
}

/// The number of commands to run at once: cargo's `NUM_JOBS`, otherwise the number of cores.
pub(crate) fn parallel() -> usize {
    let told = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    told.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
