//! What of a source is used, and what is not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::{Format, LeftOut};

/// What of a source is used, and what is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The path that names the source.
    pub path: PathBuf,
    /// The format in which it is published.
    pub format: Format,
    /// Number of rows of the published file.
    pub rows: u64,
    /// Number of samples per epoch.
    pub samples: u64,
    /// Its parts; a format that is one data set has one.
    pub parts: Vec<PartSummary>,
    /// Rows that are not used, by reason.
    pub left_out: BTreeMap<String, LeftOut>,
}

/// What of a part is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartSummary {
    /// Its name.
    pub name: String,
    /// Number of its items: images with texts about them.
    pub items: u64,
    /// Number of its turns: questions with answers.
    pub turns: u64,
    /// Number of samples of one pass over it.
    pub pass: u64,
    /// Number of samples per epoch.
    pub samples: u64,
}
