//! Results in the order of the references, after both were compared.

use std::collections::{HashMap, HashSet};

use super::{Cover, Id, NAMED};
use crate::{Error, Result};

/// Fails with [`Error::Entries`] about the entries `ids` of the file `name`, unless there are none.
///
/// # Errors
/// Returns [`Error::Entries`] for at least one entry.
pub fn none_of(name: &str, what: &'static str, ids: &[&str]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let examples = ids.iter().take(NAMED).map(|id| (*id).to_owned()).collect();
    Err(Error::Entries { name: name.to_owned(), count: ids.len(), what, examples })
}

/// Fails if one of `ids` occurs twice.
///
/// # Errors
/// Returns [`Error::Entries`] with the ids that do.
pub fn unique<'a>(name: &str, what: &'static str, ids: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    let twice: Vec<&str> = ids.filter(|id| !seen.insert(*id)).collect();
    none_of(name, what, &twice)
}

/// The results, which have ids, in the order of `wanted`.
///
/// # Errors
/// Returns [`Error::Entries`] if a result occurs twice, belongs to no reference, or is missing.
pub(super) fn in_order<'a, T>(
    name: &str,
    wanted: impl Iterator<Item = &'a str> + Clone,
    results: Vec<(Id, T)>,
) -> Result<Vec<T>> {
    unique(name, "results for an id that has one already", results.iter().map(|(id, _)| id.as_str()))?;
    let known: HashSet<&str> = wanted.clone().collect();
    let unknown: Vec<&str> =
        results.iter().map(|(id, _)| id.as_str()).filter(|id| !known.contains(id)).collect();
    none_of(name, "results for ids that the references lack", &unknown)?;
    let mut by_id: HashMap<String, T> = results.into_iter().map(|(id, t)| (id.to_string(), t)).collect();
    let mut missing = Vec::new();
    let mut ordered = Vec::new();
    for id in wanted {
        match by_id.remove(id) {
            Some(result) => ordered.push(result),
            None => missing.push(id),
        }
    }
    none_of(name, "results are missing, for ids of the references", &missing)?;
    Ok(ordered)
}

/// Removes the references without a result, if `cover` allows for that.
pub(super) fn covered<R, T>(
    cover: Cover,
    references: &mut Vec<R>,
    id: impl Fn(&R) -> &str,
    results: &[(Id, T)],
) {
    if cover == Cover::Some {
        let given: HashSet<&str> = results.iter().map(|(id, _)| id.as_str()).collect();
        references.retain(|reference| given.contains(id(reference)));
    }
}
