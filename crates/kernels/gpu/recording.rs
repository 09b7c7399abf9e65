//! Dry runs and recordings of a GPU's work, and [`Graph`], which replays a recording.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{MutexGuard, Weak};
use std::thread::{self, ThreadId};

use super::Gpu;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use super::Launcher;
use crate::memory::Allocation;
use crate::{Error, Result};

#[derive(Default)]
pub(super) struct Noted {
    hash: DefaultHasher,
    /// Whether the work is also passed to the launcher, which records it. `false` in a dry run.
    recording: bool,
    /// The allocations that the recorded work uses.
    memory: Vec<Weak<Allocation>>,
}

impl Gpu {
    /// Recovers from a poisoned lock: each change of the list is one call, so a panic leaves it consistent.
    fn lock(&self) -> MutexGuard<'_, Vec<(ThreadId, Noted)>> {
        self.noted.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds `work` on `memory` to the fingerprint of this thread's dry run or recording. Returns whether to
    /// pass the work to the launcher.
    pub(super) fn note(&self, work: impl Hash, memory: impl IntoIterator<Item = Weak<Allocation>>) -> bool {
        let mut all = self.lock();
        let mine = all.iter_mut().rfind(|(thread, _)| *thread == thread::current().id());
        let Some((_, noted)) = mine else { return true };
        work.hash(&mut noted.hash);
        for memory in memory {
            // The allocation is hashed too, because a later allocation may get the same device address.
            memory.as_ptr().hash(&mut noted.hash);
            if noted.recording {
                noted.memory.push(memory);
            }
        }
        noted.recording
    }

    pub(super) fn not_recorded(&self, what: &'static str) -> Result<()> {
        match self.lock().iter().any(|(thread, _)| *thread == thread::current().id()) {
            true => Err(Error::Unsupported(what)),
            false => Ok(()),
        }
    }

    /// Runs `work` without executing the launches, copies and clears of this thread, and returns a
    /// fingerprint of them. Equal fingerprints mean the same work, down to the addresses and values in the
    /// kernel parameters. Uploads, downloads and synchronizations are errors meanwhile. Other threads are not
    /// affected.
    ///
    /// # Errors
    /// Returns the error of `work`.
    pub fn dry_run<T, E>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<(T, u64), E> {
        self.noting(false, work).map(|(value, noted)| (value, noted.hash.finish()))
    }

    fn noting<T, E>(
        &self,
        recording: bool,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<(T, Noted), E> {
        /// Removes the entry of this thread, also when `work` panics.
        struct End<'a>(&'a Gpu, ThreadId);
        impl End<'_> {
            fn noted(&self) -> Option<Noted> {
                let mut all = self.0.lock();
                let mine = all.iter().rposition(|(thread, _)| *thread == self.1)?;
                Some(all.remove(mine).1)
            }
        }
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.noted();
            }
        }
        let end = End(self, thread::current().id());
        self.lock().push((end.1, Noted { recording, ..Noted::default() }));
        let value = work()?;
        let noted = end.noted().unwrap_or_default();
        std::mem::forget(end);
        Ok((value, noted))
    }

    /// Records the launches, copies and clears of `work` on this thread without running them, and
    /// fingerprints them as [`Gpu::dry_run`] does. On CUDA other threads that queue work block until the
    /// recording ends, so `work` must not wait for them.
    ///
    /// # Errors
    /// Returns the error of `work`, [`Error::Unsupported`] if this thread already records or `work` uploads,
    /// downloads or synchronizes, and [`Error::Driver`] if the device fails.
    pub fn record<T, E: From<Error>>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<(T, Graph), E> {
        let (mut work, mut outcome) = (Some(work), None);
        let mut noted = || -> Result<()> {
            outcome = work.take().map(|work| self.noting(true, work));
            Ok(())
        };
        let recording: Result<Recording> = match self.launcher {
            #[cfg(feature = "cuda")]
            Launcher::Cuda(ref g) => g.record(&mut noted).map(Recording::Cuda),
            #[cfg(feature = "emulator")]
            Launcher::Emulator(ref g) => g.record(&mut noted).map(Recording::Emulator),
        };
        let (value, Noted { hash, mut memory, .. }) = match outcome {
            Some(outcome) => outcome?,
            None => return Err(recording.err().unwrap_or(Error::Unsupported("recording")).into()),
        };
        memory.sort_unstable_by_key(Weak::as_ptr);
        memory.dedup_by(|a, b| a.ptr_eq(b));
        let fingerprint = hash.finish();
        Ok((value, Graph { gpu: self.clone(), recording: recording?, fingerprint, memory }))
    }
}

/// Work recorded by [`Gpu::record`], replayed by one call (on CUDA, a CUDA graph).
///
/// It does not keep its memory alive, and cannot be launched after any of it was freed.
pub struct Graph {
    gpu: Gpu,
    recording: Recording,
    fingerprint: u64,
    memory: Vec<Weak<Allocation>>,
}

enum Recording {
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Recording),
    #[cfg(feature = "emulator")]
    Emulator(crate::emulated::Recording),
}

impl Graph {
    /// The fingerprint of the recorded work.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Queues the recorded work.
    ///
    /// # Errors
    /// Returns [`Error::Gone`] if memory that it uses was freed, and [`Error::Driver`] if the device fails.
    pub fn launch(&self) -> Result<()> {
        // Keeps the memory alive until the work is queued.
        let memory: Option<Vec<_>> = self.memory.iter().map(Weak::upgrade).collect();
        let _memory = memory.ok_or(Error::Gone)?;
        if !self.gpu.note(("graph", self.fingerprint), self.memory.iter().cloned()) {
            return Ok(());
        }
        match self.recording {
            #[cfg(feature = "cuda")]
            Recording::Cuda(ref r) => r.launch(),
            #[cfg(feature = "emulator")]
            Recording::Emulator(ref r) => match self.gpu.launcher {
                Launcher::Emulator(ref g) => g.replay(r),
                #[cfg(feature = "cuda")]
                Launcher::Cuda(_) => Err(Error::Unsupported("a recording of another device")),
            },
        }
    }
}
