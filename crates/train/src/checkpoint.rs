//! Checkpoints that are either whole or not there.
//!
//! A checkpoint is a folder `step-000123` of tensors and `state.json`. It is written under another name, made durable,
//! and then renamed: a run killed at any moment, or a disk that fills up, leaves the earlier ones as they were.
//! `state.json` holds the length and CRC-32 of every other file, so that damage is seen before anything is loaded.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Config, Error, Result};

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
    /// Pictures (or texts) drawn from the training data: the position in its order.
    pub samples: u64,
    /// Tokens learnt from.
    pub tokens: u64,
    /// The best measurement so far and its step.
    pub best: Option<(f64, u64)>,
    /// The config, as [`Config::echo`] gives it.
    pub config: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct Record {
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
    /// [`Error::Io`].
    pub fn open(dir: impl Into<PathBuf>, keep: usize) -> Result<Checkpoints> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
        let this = Checkpoints { dir, keep };
        for name in this.names()? {
            let path = this.dir.join(&name);
            let gone = match name.strip_prefix(REPLACED) {
                Some(step) if !this.dir.join(step).exists() => fs::rename(&path, this.dir.join(step)),
                Some(_) => fs::remove_dir_all(&path),
                None if name.starts_with(PARTIAL) => fs::remove_dir_all(&path),
                None => Ok(()),
            };
            gone.map_err(|e| Error::io(&path, e))?;
        }
        Ok(this)
    }

    /// Saves a checkpoint: `write` puts the tensor files into the folder it is given. Returns the checkpoint's folder.
    ///
    /// # Errors
    /// Whatever `write` says, or [`Error::Io`] (also for a full disk); all earlier checkpoints are then as before.
    pub fn save(&self, state: &State, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let name = format!("step-{:06}", state.step);
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
            fs::remove_dir_all(partial).map_err(|e| Error::io(partial, e))?;
        }
        fs::create_dir(partial).map_err(|e| Error::io(partial, e))?;
        write(partial)?;
        let mut files = BTreeMap::new();
        for name in list(partial)? {
            let path = partial.join(&name);
            let sum = checksum(&path).and_then(|sum| File::open(&path)?.sync_all().map(|()| sum));
            files.insert(name, sum.map_err(|e| Error::io(&path, e))?);
        }
        let json = serde_json::to_vec_pretty(&Record { state: state.clone(), files })?;
        let path = partial.join(STATE);
        let written = fs::write(&path, json).and_then(|()| File::open(&path)?.sync_all());
        written.map_err(|e| Error::io(&path, e))?;
        sync_dir(partial)
    }

    fn publish(&self, partial: &Path, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let replaced = self.dir.join(format!("{REPLACED}{name}"));
        let io = |e| Error::io(&path, e);
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
    /// [`Error::AllDamaged`] when there are some and none is whole, or [`Error::Io`].
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
    /// [`Error::Io`].
    pub fn steps(&self) -> Result<Vec<(u64, PathBuf)>> {
        let names = self.names()?;
        let step = |name: &String| name.strip_prefix("step-")?.parse::<u64>().ok();
        let mut steps: Vec<_> = names.iter().filter_map(|n| Some((step(n)?, self.dir.join(n)))).collect();
        steps.sort();
        Ok(steps)
    }

    /// Only checkpoints up to the one just saved count: a later one is damaged, or the run would have gone on from it.
    fn prune(&self, saved: u64) -> Result<()> {
        let steps: Vec<_> = self.steps()?.into_iter().filter(|(step, _)| *step <= saved).collect();
        for (step, path) in &steps[..steps.len().saturating_sub(self.keep)] {
            self.remove(*step, path)?;
        }
        Ok(())
    }

    /// Removes all checkpoints.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&self) -> Result<()> {
        self.steps()?.iter().try_for_each(|(step, path)| self.remove(*step, path))
    }

    fn remove(&self, step: u64, path: &Path) -> Result<()> {
        // Under the other name first: a removal cut short must not leave half a checkpoint.
        let partial = self.dir.join(format!("{PARTIAL}step-{step:06}"));
        fs::rename(path, &partial).and_then(|()| fs::remove_dir_all(&partial)).map_err(|e| Error::io(path, e))
    }

    fn names(&self) -> Result<Vec<String>> {
        list(&self.dir)
    }
}

/// Reads the state of the checkpoint in `path` after checking every file of it.
fn load(path: &Path) -> Result<State> {
    let damaged = |reason: String| Error::Damaged { path: path.into(), reason };
    let json = fs::read(path.join(STATE)).map_err(|e| damaged(format!("{STATE}: {e}")))?;
    let record: Record = serde_json::from_slice(&json).map_err(|e| damaged(format!("{STATE}: {e}")))?;
    for (name, (len, crc)) in record.files {
        match checksum(&path.join(&name)) {
            Ok(found) if found == (len, crc) => {}
            Ok((found, _)) if found != len => {
                return Err(damaged(format!("{name} has {found} bytes instead of {len}")));
            }
            Ok(_) => return Err(damaged(format!("the contents of {name} have changed (CRC-32)"))),
            Err(e) => return Err(damaged(format!("{name}: {e}"))),
        }
    }
    Ok(record.state)
}

/// Length and CRC-32 of a file.
fn checksum(path: &Path) -> std::io::Result<(u64, u32)> {
    use std::io::Read;
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
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
    let mut names = read().map_err(|e| Error::io(dir, e))?;
    names.sort();
    Ok(names)
}

/// Makes the names in a folder durable; only Unix can, and elsewhere a rename is durable soon enough.
fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io(dir, e))
    } else {
        Ok(())
    }
}
