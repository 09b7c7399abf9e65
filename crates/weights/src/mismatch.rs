//! Reports all mismatches between a network and a checkpoint together, with hints for fixing them.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;

use pheye_tensor::{DType, Shape};

use crate::error::{name, shown};
use crate::{Error, StoredDType};

/// All mismatches between a checkpoint and a network.
#[derive(Debug)]
pub struct Mismatches {
    /// The checkpoint.
    pub path: PathBuf,
    /// The mismatches in the order found, unused tensors last; at most a thousand of each kind.
    pub faults: Vec<Fault>,
    /// The number of mismatches that are not in `faults`.
    pub more: usize,
    /// The prefix that all names of the file share and that was removed from them.
    pub stripped: Option<String>,
    /// The prefix by which most missing names differ from unused ones.
    pub prefix: Option<Prefix>,
}

/// A prefix, including its dot, that either only the file's or only the network's names have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefix {
    /// The file's names have it.
    InFile(String),
    /// The network's names have it.
    InNetwork(String),
}

/// A mismatch between a checkpoint and a network.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Fault {
    /// The network has a parameter that the checkpoint lacks.
    Missing { tensor: String, shape: Shape },
    /// The shapes differ.
    Shape { tensor: String, expected: Shape, found: Vec<usize> },
    /// The elements are not floats.
    DType { tensor: String, expected: DType, found: StoredDType },
    /// The checkpoint contains a tensor that the network does not use.
    Unused { tensor: String },
    /// The tensor exists but cannot be read.
    Unreadable { tensor: String, error: Box<Error> },
}

impl Fault {
    /// The name of the tensor.
    pub(crate) fn tensor(&self) -> &str {
        match self {
            Fault::Missing { tensor, .. }
            | Fault::Shape { tensor, .. }
            | Fault::DType { tensor, .. }
            | Fault::Unused { tensor }
            | Fault::Unreadable { tensor, .. } => tensor,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing { tensor, shape } => write!(f, "missing `{}` {shape}", name(tensor)),
            Fault::Shape { tensor, expected, found } => {
                let (tensor, rank) = (name(tensor), found.len());
                match rank {
                    0..=8 => write!(f, "`{tensor}` has shape {found:?}, the network needs {expected}"),
                    _ => write!(f, "`{tensor}` has {rank} dimensions, the network needs {expected}"),
                }
            }
            Fault::DType { tensor, expected, found } => {
                write!(f, "`{}` holds {found}, the network needs {expected}", name(tensor))
            }
            Fault::Unused { tensor } => write!(f, "unused `{}`", name(tensor)),
            // The error names file and tensor. Its causes are included, because `Display` is the only place
            // for them.
            Fault::Unreadable { tensor, error } => {
                write!(f, "cannot read `{}`: {}", name(tensor), pheye_files::chain(error))
            }
        }
    }
}

/// The number of mismatches that are printed.
const LISTED: usize = 40;
/// If the list is cut, so many of its lines are reserved for unused tensors: compared with the missing ones
/// they show how the names differ.
const UNUSED_LISTED: usize = 10;
/// The number of mismatches of one kind that are kept, because a configuration may request millions of
/// tensors.
pub(crate) const KEPT: usize = 1000;

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.faults.len() + self.more;
        let s = if n == 1 { "" } else { "es" };
        write!(f, "{}: does not fit the network, {n} mismatch{s}", shown(&self.path))?;
        if let Some(stripped) = &self.stripped {
            write!(f, "; its names are read without the prefix `{}`, which all have", name(stripped))?;
        }
        match &self.prefix {
            Some(Prefix::InFile(prefix)) => {
                write!(f, "; names in the file have the prefix `{}`, the network's do not", name(prefix))?;
            }
            Some(Prefix::InNetwork(prefix)) => {
                write!(
                    f,
                    "; names in the file lack the prefix `{}`, which the network's have",
                    name(prefix)
                )?;
            }
            None => {}
        }
        f.write_str(":")?;
        let (unused, others): (Vec<_>, Vec<_>) =
            self.faults.iter().partition(|fault| matches!(fault, Fault::Unused { .. }));
        let first = others.len().min(LISTED - unused.len().min(UNUSED_LISTED));
        let listed = others.iter().take(first).chain(unused.iter().take(LISTED - first));
        let listed: Vec<_> = listed.collect();
        for fault in &listed {
            write!(f, "\n  {fault}")?;
        }
        if n > listed.len() {
            write!(f, "\n  and {} more", n - listed.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatches {}

/// The prefix that turns at least half of the `missing` names into names of `unused` tensors or vice versa.
/// Only the first missing names are tried.
pub(crate) fn prefix(missing: &[&str], unused: &[&str]) -> Option<Prefix> {
    const SAMPLE: usize = 20;
    let sample = &missing[..missing.len().min(SAMPLE)];
    let there: HashSet<&str> = unused.iter().copied().collect();
    let most = |found: BTreeMap<&str, usize>| {
        let (prefix, n) = found.into_iter().max_by_key(|&(_, n)| n)?;
        (2 * n >= sample.len()).then(|| prefix.to_owned())
    };
    let (mut in_file, mut in_network) = (BTreeMap::new(), BTreeMap::new());
    for &wanted in sample {
        for have in unused {
            if let Some(prefix) = have.strip_suffix(wanted).filter(|p| p.ends_with('.')) {
                *in_file.entry(prefix).or_default() += 1;
            }
        }
        for (dot, _) in wanted.match_indices('.') {
            let (prefix, rest) = wanted.split_at(dot + 1);
            if there.contains(rest) {
                *in_network.entry(prefix).or_default() += 1;
            }
        }
    }
    most(in_file).map(Prefix::InFile).or_else(|| most(in_network).map(Prefix::InNetwork))
}
