//! The rules of a source: the defaults of its format, with the settings of the config over them.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::config::SourceConfig;
use super::reader::{Part, Reader};
use crate::{Error, Result};

/// The rules of a source.
pub(crate) struct Rules {
    /// Its parts, as the reader numbers them.
    pub(crate) parts: Vec<PartRules>,
    include: Vec<String>,
    exclude: Vec<String>,
    pattern: Pattern,
    /// OK-VQA's questions, as [`key`]s of image id and question; `None` if its question file is not given.
    pub(crate) okvqa: Option<HashSet<u64>>,
}

/// The rules of a part.
pub(crate) struct PartRules {
    /// The defaults of the reader, with the settings of the config over them.
    pub(crate) part: Part,
    pub(crate) weight: f64,
}

/// A hash of texts, the same in every run of this program.
pub(crate) fn key(texts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    hasher.finish()
}

impl Rules {
    /// The rules of `config` for its `reader`.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if a key is missing or does not go with the format.
    pub(crate) fn new(config: &SourceConfig, reader: &Reader) -> Result<Rules> {
        if let Some((key, message)) = config.fault() {
            return Err(Error::Setting { path: config.path.clone(), key, message });
        }
        Ok(Rules::resolve(config, reader, pattern(config, reader)?))
    }

    /// The rules of a config without a fault.
    pub(crate) fn resolve(config: &SourceConfig, reader: &Reader, pattern: Pattern) -> Rules {
        let parts = reader.parts.iter().map(|part| {
            let own = config.parts.get(part.name);
            let mut part = part.clone();
            part.unique = config.unique.unwrap_or(part.unique);
            part.grouped |= part.unique;
            part.turns = own.and_then(|own| own.turns).or(config.turns).unwrap_or(part.turns);
            let prompt = own.and_then(|own| own.prompt.as_ref()).or(config.prompt.as_ref());
            part.prompt = prompt.unwrap_or(&part.prompt).clone();
            PartRules { part, weight: own.and_then(|own| own.weight).unwrap_or(1.0) }
        });
        let include = config.include.clone();
        let include = include.unwrap_or_else(|| reader.include.iter().map(|s| s.to_string()).collect());
        Rules { parts: parts.collect(), include, exclude: config.exclude.clone(), pattern, okvqa: None }
    }

    /// Why the image is left out by its name, if it is.
    pub(crate) fn filtered(&self, image: &str) -> Option<&'static str> {
        let begins = |list: &[String]| list.iter().any(|prefix| image.starts_with(prefix.as_str()));
        match () {
            () if begins(&self.exclude) => Some("image excluded by prefix"),
            () if !self.include.is_empty() && !begins(&self.include) => Some("image not included by prefix"),
            () => None,
        }
    }

    /// The name of the image of this id.
    pub(crate) fn image(&self, id: &str) -> String {
        self.pattern.name(id)
    }
}

/// COCO's splits in the names of published files, and their names in those of images.
const SPLITS: [(&str, &str); 4] = [
    ("train2014", "train2014"),
    ("val2014", "val2014"),
    ("test2015", "test2015"),
    ("test-dev2015", "test2015"),
];

fn pattern(config: &SourceConfig, reader: &Reader) -> Result<Pattern> {
    let Some(default) = reader.image_name else { return Ok(Pattern::default()) };
    let name = config.path.file_name().unwrap_or_default().to_string_lossy();
    let split = SPLITS.iter().find(|(split, _)| name.contains(split)).map(|(_, images)| *images);
    let text = match (&config.image_name, default.contains("{split}"), split) {
        (Some(text), ..) => text.clone(),
        (None, true, Some(split)) => default.replace("{split}", split),
        (None, false, _) => default.to_owned(),
        (None, true, None) => {
            let message = "is needed, because the name of the published file has no split such as train2014";
            return Err(Error::Setting {
                path: config.path.clone(),
                key: "image_name",
                message: message.into(),
            });
        }
    };
    Ok(Pattern::parse(&text).unwrap_or_default())
}

/// The name of an image by its id; by default they are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pattern {
    before: String,
    digits: usize,
    after: String,
}

impl Pattern {
    /// Parses a text with one `{id}` or `{id:012}`.
    pub(crate) fn parse(text: &str) -> Option<Pattern> {
        let (before, rest) = text.split_once("{id")?;
        let (how, after) = rest.split_once('}')?;
        let digits = match how {
            "" => 0,
            how => how.strip_prefix(":0")?.parse().ok().filter(|digits| (1..=64).contains(digits))?,
        };
        let one = !after.contains(['{', '}']) && !before.contains(['{', '}']);
        one.then(|| Pattern { before: before.into(), digits, after: after.into() })
    }

    fn name(&self, id: &str) -> String {
        let Pattern { before, digits, after } = self;
        format!("{before}{id:0>digits$}{after}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_ids() {
        let name = |pattern: &str, id: &str| Pattern::parse(pattern).map(|p| p.name(id));
        assert_eq!(name("a_{id:012}.jpg", "42").as_deref(), Some("a_000000000042.jpg"));
        assert_eq!(name("{id}", "x").as_deref(), Some("x"));
        for wrong in ["a.jpg", "{id:12}", "{id:0}", "{id}{id}", "{id", "{split}{id}", "{id:0999}"] {
            assert_eq!(name(wrong, "1"), None, "{wrong}");
        }
    }
}
