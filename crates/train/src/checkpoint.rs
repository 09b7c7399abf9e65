//! Checkpoints, written atomically.
//!
//! A checkpoint is a folder `step-000123` of tensor files and `state.json`. It is written under a temporary
//! name, flushed to the disk, and then renamed, so that a run killed at any moment or a full disk leaves the
//! earlier checkpoints intact. `state.json` contains the length and CRC-32 of every other file, and a CRC-32
//! of itself, so that damage is detected before anything is loaded or compared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use pheye_files::{CONFIG_LIMIT, Kind, quoted};
use serde::{Deserialize, Serialize};

use crate::inputs::Print;
use crate::{Config, Error, Result, seal};

const STATE: &str = "state.json";
/// Name prefix of a folder that is not a complete checkpoint yet.
const PARTIAL: &str = ".partial-";
/// Name prefix of a checkpoint that is about to be replaced by another of the same step.
const REPLACED: &str = ".replaced-";

/// The progress of a run, without its tensors. All random numbers follow from the config's seed and these
/// counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps taken.
    pub step: u64,
    /// Optimizer steps of the whole run; 0 in checkpoints that do not record it.
    #[serde(default)]
    pub total: u64,
    /// Images (or texts) drawn from the training data: the position in the order of the samples.
    pub samples: u64,
    /// Target tokens trained on; images, for contrastive training.
    pub tokens: u64,
    /// The best measurement so far and its step.
    pub best: Option<(f64, u64)>,
    /// Number of images and texts that were skipped because they could not be used.
    pub skipped: u64,
    /// Why the first few of them were skipped.
    pub reasons: Vec<String>,
    /// The device that computed the last step, with the instruction set if it was a CPU; other devices round
    /// differently.
    pub device: String,
    /// Checksums of the files that the run reads, by their key and name in the config.
    pub inputs: BTreeMap<String, Print>,
    /// The config, as [`Config::echo`] gives it.
    pub config: serde_json::Value,
}

/// Version of the checkpoint format that this code writes and reads.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    #[serde(flatten)]
    state: State,
    /// Length in bytes and CRC-32 of every other file.
    files: BTreeMap<String, (u64, u32)>,
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

/// A checkpoint whose files have all been verified.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its folder.
    pub path: PathBuf,
    /// The progress of the run at this checkpoint.
    pub state: State,
    /// Why newer checkpoints were skipped, one line each.
    pub skipped: Vec<String>,
}

impl Checkpoints {
    /// The checkpoints in the folder `dir`, which is created if needed. [`Checkpoints::save`] keeps the
    /// newest `keep`. Opening removes incomplete checkpoints of a killed run, and completes or reverts a
    /// replacement that was interrupted.
    ///
    /// # Errors
    /// Returns [`Error::Read`] or [`Error::Write`] if a file system operation fails.
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

    /// Saves a checkpoint and returns its folder. `write` writes the tensor files into the folder it is
    /// given.
    ///
    /// # Errors
    /// Returns the error of `write`, or [`Error::Read`] or [`Error::Write`] if a file system operation fails,
    /// for example on a full disk. All earlier checkpoints are then unchanged.
    pub fn save(&self, state: &State, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let name = folder(state.step);
        let partial = self.dir.join(format!("{PARTIAL}{name}"));
        let saved = self.fill(&partial, state, write).and_then(|()| self.publish(&partial, &name));
        if saved.is_err() {
            // The first error is returned; the next `open` removes whatever could not be removed here.
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
        // With its parent, which somebody may have removed during the run.
        fs::create_dir_all(partial).map_err(|e| Error::write(partial, e))?;
        write(partial)?;
        let mut files = BTreeMap::new();
        for name in list(partial)? {
            let path = partial.join(&name);
            let sum = seal::checksum(&path).and_then(|sum| File::open(&path)?.sync_all().map(|()| sum));
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

    /// The newest undamaged checkpoint, or `None` if there are no checkpoints.
    ///
    /// # Errors
    /// Returns [`Error::AllDamaged`] if all existing checkpoints are damaged, or [`Error::Read`].
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

    /// Like [`Checkpoints::latest`], and checks that the checkpoint was made with the same config.
    ///
    /// # Errors
    /// Returns [`Error::OtherConfig`] with the keys that differ, or the errors of [`Checkpoints::latest`].
    pub fn resume(&self, config: &Config) -> Result<Option<Loaded>> {
        let Some(loaded) = self.latest()? else { return Ok(None) };
        let differences = config.differences(&loaded.state.config)?;
        match differences.is_empty() {
            true => Ok(Some(loaded)),
            false => Err(Error::OtherConfig { path: loaded.path, differences }),
        }
    }

    /// The step and folder of each checkpoint, oldest first, including damaged ones.
    ///
    /// # Errors
    /// Returns [`Error::Read`] if the folder cannot be read.
    pub fn steps(&self) -> Result<Vec<(u64, PathBuf)>> {
        steps_in(&self.dir)
    }

    /// Removes all but the newest `keep` checkpoints up to step `last`, which was just saved or resumed from.
    /// Checkpoints after `last` are not counted: they are damaged, otherwise the run would have resumed from
    /// them. A run that is killed between saving and pruning leaves one checkpoint too many.
    ///
    /// # Errors
    /// Returns [`Error::Read`] or [`Error::Write`] if a file system operation fails.
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
    /// Returns [`Error::Read`] or [`Error::Write`] if a file system operation fails.
    pub fn clear(&self) -> Result<()> {
        self.steps()?.iter().try_for_each(|(step, path)| self.remove(*step, path))
    }

    fn remove(&self, step: u64, path: &Path) -> Result<()> {
        // Renamed first, so that an interrupted removal does not leave an incomplete checkpoint.
        let partial = self.dir.join(format!("{PARTIAL}{}", folder(step)));
        fs::rename(path, &partial)
            .and_then(|()| fs::remove_dir_all(&partial))
            .map_err(|e| Error::write(path, e))
    }

    fn names(&self) -> Result<Vec<String>> {
        list(&self.dir)
    }
}

/// The step and folder of each checkpoint in `dir`, oldest first.
pub(crate) fn steps_in(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let names = list(dir)?;
    let step = |name: &String| name.strip_prefix("step-")?.parse::<u64>().ok();
    let mut steps: Vec<_> = names.iter().filter_map(|n| Some((step(n)?, dir.join(n)))).collect();
    steps.sort();
    Ok(steps)
}

/// The state of the checkpoint in `path`, whose files are only compared in their lengths, so that gigabytes
/// need not be read.
pub(crate) fn glance(path: &Path) -> Result<State> {
    verify(path, |file| Ok((fs::metadata(file)?.len(), None)))
}

/// Verifies every file of the checkpoint in `path` and returns its state.
fn load(path: &Path) -> Result<State> {
    verify(path, |file| seal::checksum(file).map(|(len, crc)| (len, Some(crc))))
}

/// Compares the files of the checkpoint in `path` with its record. `measure` gives the length of a file and,
/// if it is to be compared, its CRC-32.
fn verify(path: &Path, measure: impl Fn(&Path) -> std::io::Result<(u64, Option<u32>)>) -> Result<State> {
    let damaged = |reason: String| Error::Damaged { path: path.into(), reason };
    let record = record(path).map_err(|reason| damaged(format!("{STATE}: {reason}")))?;
    for (name, (len, crc)) in record.files {
        let shown = quoted(&name);
        // `state.json` is untrusted and could otherwise name any file of the system.
        if Path::new(&name).file_name() != Some(name.as_ref()) {
            return Err(damaged(format!("{STATE} lists {shown}, which is no file name")));
        }
        match measure(&path.join(&name)) {
            Ok((found, _)) if found != len => {
                return Err(damaged(format!("{shown} has {found} bytes instead of {len}")));
            }
            Ok((_, found)) if found.is_none_or(|found| found == crc) => {}
            Ok(_) => return Err(damaged(format!("the contents of {shown} have changed (CRC-32)"))),
            Err(e) => return Err(damaged(format!("{shown}: {e}"))),
        }
    }
    Ok(record.state)
}

/// Reads the record of the checkpoint in `path`; the error is the reason why it is not valid.
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

fn list(dir: &Path) -> Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut names = read().map_err(|e| Error::read(dir, e))?;
    names.sort();
    Ok(names)
}

/// Flushes the entries of a folder to the disk. Only Unix supports this; elsewhere it does nothing.
fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::write(dir, e))
    } else {
        Ok(())
    }
}
