//! Checkpoints that are either whole or not there.
//!
//! A checkpoint is a folder `step-000123` of tensors and `state.json`. It is written under another name, made durable,
//! and then renamed: a run killed at any moment, or a disk that fills up, leaves the earlier ones as they were.
//! `state.json` holds the length and CRC-32 of every other file, and a CRC-32 of itself, so that damage is seen before
//! anything is loaded or compared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use pheye_files::{CONFIG_LIMIT, Kind, quoted};
use serde::{Deserialize, Serialize};

use crate::inputs::Print;
use crate::{Config, Error, Result, seal};

const STATE: &str = "state.json";
/// Begins the name of a folder that is no checkpoint yet.
const PARTIAL: &str = ".partial-";
/// Begins the name of a checkpoint about to be replaced by another of the same step.
const REPLACED: &str = ".replaced-";

/// Where a run stands, apart from its tensors. Everything random follows from the config's seed and these counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps taken.
    pub step: u64,
    /// Images (or texts) drawn from the training data: the position in its order.
    pub samples: u64,
    /// Tokens learnt from.
    pub tokens: u64,
    /// The best measurement so far and its step.
    pub best: Option<(f64, u64)>,
    /// Images and texts left out because they could not be used.
    pub skipped: u64,
    /// Why the first few of them were left out.
    pub reasons: Vec<String>,
    /// The device that computed the last step, a CPU with the instructions used: other ones round otherwise.
    pub device: String,
    /// Files that the run reads, by their keys and names in the config.
    pub inputs: BTreeMap<String, Print>,
    /// The config, as [`Config::echo`] gives it.
    pub config: serde_json::Value,
}

/// What this version writes and reads.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    #[serde(flatten)]
    state: State,
    /// Length and CRC-32 of every other file.
    files: BTreeMap<String, (u64, u32)>,
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

/// A checkpoint found whole.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its folder.
    pub path: PathBuf,
    /// Where the run stood.
    pub state: State,
    /// Why newer checkpoints were passed over, one line each.
    pub skipped: Vec<String>,
}

impl Checkpoints {
    /// The checkpoints in the folder `dir`, made if need be; the newest `keep` stay. Clears up after a run that was killed.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Write`].
    pub fn open(dir: impl Into<PathBuf>, keep: usize) -> Result<Checkpoints> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|e| Error::write(&dir, e))?;
        let this = Checkpoints { dir, keep };
        for name in this.names()? {
            let path = this.dir.join(&name);
            let gone = match name.strip_prefix(REPLACED) {
                Some(step) if !this.dir.join(step).exists() => fs::rename(&path, this.dir.join(step)),
                Some(_) => fs::remove_dir_all(&path),
                None if name.starts_with(PARTIAL) => fs::remove_dir_all(&path),
                None => Ok(()),
            };
            gone.map_err(|e| Error::write(&path, e))?;
        }
        Ok(this)
    }

    /// Saves a checkpoint: `write` puts the tensor files into the folder it is given. Returns the checkpoint's folder.
    ///
    /// # Errors
    /// Whatever `write` says, or [`Error::Write`] (also for a full disk); all earlier checkpoints are then as before.
    pub fn save(&self, state: &State, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let name = folder(state.step);
        let partial = self.dir.join(format!("{PARTIAL}{name}"));
        let saved = self.fill(&partial, state, write).and_then(|()| self.publish(&partial, &name));
        if saved.is_err() {
            // The first error is the one to report; what is left is cleared by the next `open`.
            let _ = fs::remove_dir_all(&partial);
        }
        let path = saved?;
        self.prune(state.step)?;
        Ok(path)
    }

    fn fill(&self, partial: &Path, state: &State, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if partial.exists() {
            fs::remove_dir_all(partial).map_err(|e| Error::write(partial, e))?;
        }
        fs::create_dir(partial).map_err(|e| Error::write(partial, e))?;
        write(partial)?;
        let mut files = BTreeMap::new();
        for name in list(partial)? {
            let path = partial.join(&name);
            let sum = checksum(&path).and_then(|sum| File::open(&path)?.sync_all().map(|()| sum));
            files.insert(name, sum.map_err(|e| Error::write(&path, e))?);
        }
        let json = serde_json::to_vec_pretty(&Record { format: FORMAT, state: state.clone(), files })?;
        let path = partial.join(STATE);
        let written = fs::write(&path, seal::seal(&json)).and_then(|()| File::open(&path)?.sync_all());
        written.map_err(|e| Error::write(&path, e))?;
        sync_dir(partial)
    }

    fn publish(&self, partial: &Path, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let replaced = self.dir.join(format!("{REPLACED}{name}"));
        let io = |e| Error::write(&path, e);
        if path.exists() {
            fs::rename(&path, &replaced).map_err(io)?;
        }
        if let Err(error) = fs::rename(partial, &path) {
            let _ = fs::rename(&replaced, &path);
            return Err(io(error));
        }
        sync_dir(&self.dir)?;
        if replaced.exists() {
            fs::remove_dir_all(&replaced).map_err(io)?;
        }
        Ok(path)
    }

    /// The newest whole checkpoint, or `None` when there is none at all.
    ///
    /// # Errors
    /// [`Error::AllDamaged`] when there are some and none is whole, or [`Error::Read`].
    pub fn latest(&self) -> Result<Option<Loaded>> {
        let mut skipped = Vec::new();
        for (_, path) in self.steps()?.into_iter().rev() {
            match load(&path) {
                Ok(state) => return Ok(Some(Loaded { path, state, skipped })),
                Err(error) => skipped.push(error.to_string()),
            }
        }
        match skipped.is_empty() {
            true => Ok(None),
            false => Err(Error::AllDamaged { path: self.dir.clone(), reasons: skipped }),
        }
    }

    /// [`Checkpoints::latest`], provided that it belongs to a run like `config`.
    ///
    /// # Errors
    /// [`Error::OtherConfig`] that lists the keys that differ; otherwise as [`Checkpoints::latest`].
    pub fn resume(&self, config: &Config) -> Result<Option<Loaded>> {
        let Some(loaded) = self.latest()? else { return Ok(None) };
        let differences = config.differences(&loaded.state.config)?;
        match differences.is_empty() {
            true => Ok(Some(loaded)),
            false => Err(Error::OtherConfig { path: loaded.path, differences }),
        }
    }

    /// The checkpoints by step, oldest first, whole or not.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Write`].
    pub fn steps(&self) -> Result<Vec<(u64, PathBuf)>> {
        let names = self.names()?;
        let step = |name: &String| name.strip_prefix("step-")?.parse::<u64>().ok();
        let mut steps: Vec<_> = names.iter().filter_map(|n| Some((step(n)?, self.dir.join(n)))).collect();
        steps.sort();
        Ok(steps)
    }

    /// Leaves the newest of the checkpoints up to step `last`, the one just saved or gone on from: a later one is damaged,
    /// or the run would have gone on from it. A run killed between saving and this leaves one too many.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn prune(&self, last: u64) -> Result<()> {
        let steps: Vec<_> = self.steps()?.into_iter().filter(|(step, _)| *step <= last).collect();
        for (step, path) in &steps[..steps.len().saturating_sub(self.keep)] {
            self.remove(*step, path)?;
        }
        Ok(())
    }

    /// Removes all checkpoints.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Write`].
    pub fn clear(&self) -> Result<()> {
        self.steps()?.iter().try_for_each(|(step, path)| self.remove(*step, path))
    }

    fn remove(&self, step: u64, path: &Path) -> Result<()> {
        // Under the other name first: a removal cut short must not leave half a checkpoint.
        let partial = self.dir.join(format!("{PARTIAL}{}", folder(step)));
        fs::rename(path, &partial)
            .and_then(|()| fs::remove_dir_all(&partial))
            .map_err(|e| Error::write(path, e))
    }

    fn names(&self) -> Result<Vec<String>> {
        list(&self.dir)
    }
}

/// Reads the state of the checkpoint in `path` after checking every file of it.
fn load(path: &Path) -> Result<State> {
    let damaged = |reason: String| Error::Damaged { path: path.into(), reason };
    let record = record(path).map_err(|reason| damaged(format!("{STATE}: {reason}")))?;
    for (name, (len, crc)) in record.files {
        let shown = quoted(&name);
        // A record that somebody wrote may name any file of the system.
        if Path::new(&name).file_name() != Some(name.as_ref()) {
            return Err(damaged(format!("{STATE} lists {shown}, which is no file name")));
        }
        match checksum(&path.join(&name)) {
            Ok(found) if found == (len, crc) => {}
            Ok((found, _)) if found != len => {
                return Err(damaged(format!("{shown} has {found} bytes instead of {len}")));
            }
            Ok(_) => return Err(damaged(format!("the contents of {shown} have changed (CRC-32)"))),
            Err(e) => return Err(damaged(format!("{shown}: {e}"))),
        }
    }
    Ok(record.state)
}

/// The record of the checkpoint in `path`, or why it cannot be trusted.
fn record(path: &Path) -> Result<Record, String> {
    let bytes =
        pheye_files::read(&path.join(STATE), Kind::Regular, CONFIG_LIMIT).map_err(|e| e.to_string())?;
    let json = seal::unseal(&bytes)?;
    let record: Record = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
    if record.format != FORMAT {
        return Err(format!("it is of format {}; this version reads {FORMAT}", record.format));
    }
    let step = record.state.step;
    if path.file_name().is_none_or(|name| name != folder(step).as_str()) {
        return Err(format!("it is of step {step}, its folder's name is of another"));
    }
    Ok(record)
}

fn folder(step: u64) -> String {
    format!("step-{step:06}")
}

/// Length and CRC-32 of a regular file.
pub(crate) fn checksum(path: &Path) -> std::io::Result<(u64, u32)> {
    use std::io::Read;
    let (mut file, mut buffer) = (pheye_files::open(path, Kind::Regular)?, vec![0; 1 << 20]);
    let (mut len, mut crc) = (0, crc32fast::Hasher::new());
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((len, crc.finalize())),
            n => {
                len += n as u64;
                crc.update(&buffer[..n]);
            }
        }
    }
}

fn list(dir: &Path) -> Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut names = read().map_err(|e| Error::read(dir, e))?;
    names.sort();
    Ok(names)
}

/// Makes the names in a folder durable; only Unix can, and elsewhere a rename is durable soon enough.
fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::write(dir, e))
    } else {
        Ok(())
    }
}
