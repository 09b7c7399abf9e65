//! Maps tensor names of a network to those of a file.

/// Maps a network's names to those of a checkpoint with other names.
///
/// The first matching prefix is replaced, then every infix is removed. The default map changes nothing.
///
/// ```
/// use pheye_weights::NameMap;
///
/// let names = NameMap::default().prefix("decoder.", "model.").drop(".base_layer");
/// assert_eq!(names.apply("decoder.q.base_layer.weight"), "model.q.weight");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameMap {
    prefixes: Vec<(String, String)>,
    dropped: Vec<String>,
}

impl NameMap {
    /// Also replaces the prefix `ours` by `theirs`.
    pub fn prefix(mut self, ours: &str, theirs: &str) -> NameMap {
        self.prefixes.push((ours.to_owned(), theirs.to_owned()));
        self
    }

    /// Like [`NameMap::prefix`], but takes precedence over all existing prefixes.
    pub fn first(mut self, ours: &str, theirs: &str) -> NameMap {
        self.prefixes.insert(0, (ours.to_owned(), theirs.to_owned()));
        self
    }

    /// Also removes every occurrence of `infix`.
    pub fn drop(mut self, infix: &str) -> NameMap {
        self.dropped.push(infix.to_owned());
        self
    }

    /// The checkpoint's name for the network's `name`.
    pub fn apply(&self, name: &str) -> String {
        let replaced = self.prefixes.iter().find_map(|(ours, theirs)| {
            let rest = name.strip_prefix(ours.as_str())?;
            Some(format!("{theirs}{rest}"))
        });
        let mapped = replaced.unwrap_or_else(|| name.to_owned());
        self.dropped.iter().fold(mapped, |n, infix| n.replace(infix, ""))
    }
}
