//! Supplies a network's parameters from a checkpoint and reports all mismatches together.

use std::collections::HashSet;

use pheye_tensor::{DType, Init, Shape, Source, Tensor};

use crate::mismatch::{self, KEPT};
use crate::{Checkpoint, Error, Fault, Mismatches, NameMap, Result, Stored, convert};

/// Whether a name of the network or of the file belongs to a set.
type Choice<'a> = Box<dyn Fn(&str) -> bool + 'a>;

/// The tensor that holds the parameter with this name of the network.
type Storage<'a> = Box<dyn Fn(&str) -> Stored + 'a>;

/// Called with the bytes read so far and the total.
type OnBytes<'a> = Box<dyn FnMut(u64, u64) + 'a>;

/// Supplies a network's parameters from a [`Checkpoint`] and records every mismatch for
/// [`CheckpointSource::finish`]. After the first mismatch the network gets empty tensors: it can be built,
/// but must not be used.
///
/// Sources can be chained: one is the fallback of another, and random initialization is the last.
pub struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    dtype: Box<dyn Fn(&str) -> DType + 'a>,
    stored: Storage<'a>,
    names: NameMap,
    fallback: Option<(Choice<'a>, &'a mut dyn Source)>,
    unneeded: Vec<Choice<'a>>,
    progress: Option<(OnBytes<'a>, u64, u64)>,
    check_only: bool,
    used: HashSet<String>,
    faults: Vec<Fault>,
    /// The number of faults that were not kept.
    more: usize,
}

impl<'a> CheckpointSource<'a> {
    /// Reads from `checkpoint`. `dtype` gives the type of each tensor by the network's name: f32 for what is
    /// trained, a smaller type for the rest if memory requires it.
    pub fn new(checkpoint: &'a Checkpoint, dtype: impl Fn(&str) -> DType + 'a) -> CheckpointSource<'a> {
        CheckpointSource {
            checkpoint,
            dtype: Box::new(dtype),
            stored: Box::new(|name| Stored::whole(name)),
            names: NameMap::default(),
            fallback: None,
            unneeded: Vec::new(),
            progress: None,
            check_only: false,
            used: HashSet::new(),
            faults: Vec::new(),
            more: 0,
        }
    }

    /// Reads each parameter from the tensor that `stored` gives for the network's name. Parameters that are stored
    /// transposed are copied.
    pub fn stored(mut self, stored: impl Fn(&str) -> Stored + 'a) -> CheckpointSource<'a> {
        self.stored = Box::new(stored);
        self
    }

    /// Translates the network's names, after [`CheckpointSource::stored`], by `names` before looking them up.
    pub fn names(mut self, names: NameMap) -> CheckpointSource<'a> {
        self.names = names;
        self
    }

    /// Takes the tensors whose names in the network `may` accepts from `source`, whether the checkpoint has tensors
    /// of these names or not: they are another part's. After a mismatch of its own this source no longer queries the fallback.
    pub fn fallback(mut self, may: impl Fn(&str) -> bool + 'a, source: &'a mut dyn Source) -> Self {
        self.fallback = Some((Box::new(may), source));
        self
    }

    /// The total size in bytes of the tensors to load: all except the ones that
    /// [`CheckpointSource::allow_unused`] names.
    pub fn bytes(&self) -> u64 {
        let needed = self.checkpoint.tensors().filter(|tensor| !self.is_unneeded(tensor.name));
        needed.fold(0, |all, tensor| all.saturating_add(tensor.bytes))
    }

    /// Whether `name`, a name in the file, may remain unused.
    fn is_unneeded(&self, name: &str) -> bool {
        self.checkpoint.spellings(name).any(|name| self.unneeded.iter().any(|may| may(name)))
    }

    /// Calls `progress` after each tensor with the bytes processed so far and [`CheckpointSource::bytes`].
    pub fn progress(mut self, progress: impl FnMut(u64, u64) + 'a) -> CheckpointSource<'a> {
        self.progress = Some((Box::new(progress), 0, self.bytes()));
        self
    }

    /// Only checks that each tensor exists and matches: no element is read, and the network gets empty
    /// tensors.
    pub fn check_only(mut self) -> CheckpointSource<'a> {
        self.check_only = true;
        self
    }

    /// Tensors of the file whose names `may` accepts may remain unused, besides those of earlier calls.
    pub fn allow_unused(mut self, may: impl Fn(&str) -> bool + 'a) -> CheckpointSource<'a> {
        self.unneeded.push(Box::new(may));
        self
    }

    /// Reports all mismatches: tensors that are missing, have another shape, are not floats or cannot be
    /// read, and tensors that are unused.
    ///
    /// # Errors
    /// Returns [`Error::Mismatch`] with all mismatches, if there are any.
    pub fn finish(mut self) -> Result<()> {
        let unused =
            self.checkpoint.names().filter(|name| !self.used.contains(*name) && !self.is_unneeded(name));
        let unused: Vec<&str> = unused.collect();
        if self.faults.is_empty() && unused.is_empty() {
            return Ok(());
        }
        let missing = self.faults.iter().filter_map(|fault| match fault {
            Fault::Missing { tensor, .. } => Some(tensor.as_str()),
            _ => None,
        });
        let prefix = mismatch::prefix(&missing.collect::<Vec<_>>(), &unused);
        let kept = unused.iter().take(KEPT).map(|&name| Fault::Unused { tensor: name.to_owned() });
        self.faults.extend(kept);
        Err(Error::Mismatch(Mismatches {
            path: self.checkpoint.path().to_owned(),
            faults: self.faults,
            more: self.more + unused.len().saturating_sub(KEPT),
            stripped: self.checkpoint.stripped_prefix().map(str::to_owned),
            prefix,
        }))
    }

    /// The tensor of the file that holds the parameter `name`.
    fn stored_as(&self, name: &str) -> Stored {
        let stored = (self.stored)(name);
        Stored { tensor: self.names.apply(&stored.tensor), ..stored }
    }

    /// Reads the parameter that the network calls `name` and the file stores as `stored`. Nothing is allocated
    /// before the tensor is known to exist with the right shape, and nothing is read after the first fault,
    /// because the network will not be used.
    fn load(&self, stored: &Stored, name: &str, shape: Shape) -> Result<Tensor, Fault> {
        let tensor = || stored.tensor.clone();
        let (dtype, expected) = ((self.dtype)(name), stored.shape(shape));
        let Some((_, entry)) = self.checkpoint.find(&stored.tensor) else {
            return Err(Fault::Missing { tensor: tensor(), shape: expected });
        };
        let part = stored.part(entry).filter(|_| entry.dims == expected.dims());
        let Some(part) = part else {
            return Err(Fault::Shape { tensor: tensor(), expected, found: entry.dims.clone() });
        };
        let fault = |error| match error {
            Error::DType { dtype: found, .. } => Fault::DType { tensor: tensor(), expected: dtype, found },
            error => Fault::Unreadable { tensor: tensor(), error: Box::new(error) },
        };
        self.checkpoint.entry(&stored.tensor).map_err(fault)?;
        if self.check_only || !self.faults.is_empty() {
            // An empty conversion checks that the elements are floats.
            let floats = convert::to_f64(entry.dtype, &[], &mut []);
            let fault = Fault::DType { tensor: tensor(), expected: dtype, found: entry.dtype };
            return floats.map(|()| Tensor::zeros([0], dtype)).ok_or(fault);
        }
        self.checkpoint.tensor_of(&stored.tensor, &part, dtype).map_err(fault)
    }
}

impl Source for CheckpointSource<'_> {
    fn tensor(&mut self, name: &str, shape: Shape, init: Init) -> Tensor {
        if let Some((may, source)) = &mut self.fallback
            && may(name)
        {
            // After a fault nothing is initialized, because the configuration may claim any size.
            return match self.faults.is_empty() {
                true => source.tensor(name, shape, init),
                false => Tensor::zeros([0], (self.dtype)(name)),
            };
        }
        let stored = self.stored_as(name);
        let found = self.checkpoint.find(&stored.tensor);
        let found = found.map(|(name, entry)| (name.to_owned(), entry.bytes / stored.chunks.max(1) as u64));
        let loaded = self.load(&stored, name, shape);
        if let Some((in_file, bytes)) = found {
            self.used.insert(in_file);
            if let Some((progress, done, total)) = &mut self.progress {
                *done += bytes;
                progress(*done, *total);
            }
        }
        loaded.unwrap_or_else(|fault| {
            // All chunks of a tensor have the same fault.
            let told = stored.chunks > 1 && self.faults.iter().any(|f| f.tensor() == stored.tensor);
            match self.faults.len() {
                _ if told => {}
                0..KEPT => self.faults.push(fault),
                _ => self.more += 1,
            }
            // The tensor is empty: the requested shape comes from a configuration and may be of any size.
            Tensor::zeros([0], (self.dtype)(name))
        })
    }

    fn shape_of(&self, name: &str) -> Option<Shape> {
        if let Some((may, source)) = &self.fallback
            && may(name)
        {
            return source.shape_of(name);
        }
        let stored = self.stored_as(name);
        let (_, entry) = self.checkpoint.find(&stored.tensor)?;
        stored.part(entry)?.shape()
    }
}
