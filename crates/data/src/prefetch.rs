//! Batches prepared in advance on a separate thread, returned in order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::{Batch, Error, Loader, Result};

/// An endless sequence of batches of a loader, from some position on.
pub struct Prefetch {
    loader: Arc<Loader>,
    position: u64,
    /// `None` if the caller's thread makes each batch on demand.
    worker: Option<Worker>,
    no_thread: Option<std::io::Error>,
}

struct Worker {
    batches: Receiver<Result<Batch>>,
    thread: JoinHandle<()>,
}

/// Makes one batch after another, until the receiver is dropped or a batch fails.
fn work(loader: &Loader, mut position: u64, sender: &SyncSender<Result<Batch>>) {
    loop {
        let batch = loader.batch(position);
        position += loader.batch_len();
        let last = batch.is_err();
        if sender.send(batch).is_err() || last {
            break;
        }
    }
}

impl Prefetch {
    /// Starts at `position`. A thread keeps at most `ahead` batches ready ([`Prefetch::MOST`] at most). With
    /// 0, or if no thread can be started, each batch is made on demand.
    pub fn new(loader: Arc<Loader>, position: u64, ahead: usize) -> Prefetch {
        Prefetch::on(std::thread::Builder::new(), loader, position, ahead)
    }

    fn on(thread: Builder, loader: Arc<Loader>, position: u64, ahead: usize) -> Prefetch {
        let mut this = Prefetch { loader: loader.clone(), position, worker: None, no_thread: None };
        if ahead > 0 {
            let (sender, batches) = sync_channel(ahead.min(Prefetch::MOST));
            match thread.spawn(move || work(&loader, position, &sender)) {
                Ok(thread) => this.worker = Some(Worker { batches, thread }),
                Err(error) => this.no_thread = Some(error),
            }
        }
        this
    }

    /// Maximum number of batches that are kept ready.
    pub const MOST: usize = 1024;

    /// Why no thread could be started, although `ahead` is not 0.
    pub fn no_thread(&self) -> Option<&std::io::Error> {
        self.no_thread.as_ref()
    }

    /// The next batch; it does not depend on `ahead`.
    ///
    /// # Errors
    /// Returns the error of [`Loader::batch`]; after an error of the thread, [`Error::Stopped`].
    pub fn next_batch(&mut self) -> Result<Batch> {
        let batch = match &self.worker {
            Some(worker) => worker.batches.recv().map_err(|_| Error::Stopped)?,
            None => self.loader.batch(self.position),
        }?;
        self.position += self.loader.batch_len();
        Ok(batch)
    }

    /// Position of the first sample of the next batch, which a checkpoint must record.
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        if let Some(Worker { batches, thread }) = self.worker.take() {
            drop(batches);
            // A panic of the thread was reported as `Error::Stopped`.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Encoded, LoaderOptions, Manifest, Mixture};

    #[test]
    fn without_a_thread_batches_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.jsonl");
        std::fs::write(&path, "{\"text\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
        let loader = || {
            let data = vec![Manifest::open(&path).unwrap()];
            let mixture = Mixture::new(data, None, Content::Text, 0).unwrap();
            let encode = Box::new(|_: crate::Example<'_>| Ok(Encoded { ids: vec![1, 2], loss_from: 1 }));
            let preprocess = pheye_image::Preprocess::new(16, 1);
            let options = LoaderOptions {
                batch: 2,
                content: Content::Text,
                questions: None,
                augmentation: Default::default(),
                max_tokens: 9,
                cache_bytes: 0,
                decode: Default::default(),
                on_broken: Default::default(),
            };
            Arc::new(Loader::new(mixture, preprocess, encode, options).unwrap())
        };
        // No operating system can allocate such a stack, so starting the thread fails.
        let mut none = Prefetch::on(Builder::new().stack_size(1 << 60), loader(), 0, 2);
        let mut one = Prefetch::new(loader(), 0, 2);
        assert!(none.no_thread().is_some() && one.no_thread().is_none());
        for _ in 0..3 {
            assert_eq!(none.next_batch().unwrap(), one.next_batch().unwrap());
        }
    }
}
