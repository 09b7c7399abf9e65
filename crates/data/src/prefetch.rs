//! Batches built ahead on a thread of their own, handed out in order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::{Batch, Error, Loader, Result};

/// The batches of a loader from some position on, without end.
pub struct Prefetch {
    loader: Arc<Loader>,
    position: u64,
    /// `None` when batches are built in turn, by the caller's thread.
    worker: Option<Worker>,
}

struct Worker {
    batches: Receiver<Result<Batch>>,
    thread: JoinHandle<()>,
}

impl Prefetch {
    /// Starts at `position`, with at most `ahead` finished batches waiting; 0 builds each when it is asked for.
    pub fn new(loader: Arc<Loader>, position: u64, ahead: usize) -> Prefetch {
        let worker = (ahead > 0).then(|| {
            let (sender, batches) = sync_channel(ahead);
            let (loader, mut position) = (loader.clone(), position);
            let thread = std::thread::spawn(move || {
                loop {
                    let batch = loader.batch(position);
                    position += loader.batch_len();
                    let last = batch.is_err();
                    // Nobody receives any more: the run is over.
                    if sender.send(batch).is_err() || last {
                        break;
                    }
                }
            });
            Worker { batches, thread }
        });
        Prefetch { loader, position, worker }
    }

    /// The next batch, the same with and without a worker.
    ///
    /// # Errors
    /// That of [`Loader::batch`], and after it [`Error::Stopped`] when there is a worker.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let batch = match &self.worker {
            Some(worker) => worker.batches.recv().map_err(|_| Error::Stopped)?,
            None => self.loader.batch(self.position),
        }?;
        self.position += self.loader.batch_len();
        Ok(batch)
    }

    /// Where the next batch starts: what a checkpoint has to record.
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        if let Some(Worker { batches, thread }) = self.worker.take() {
            drop(batches);
            // A panic of the worker was seen as `Error::Stopped`.
            let _ = thread.join();
        }
    }
}
