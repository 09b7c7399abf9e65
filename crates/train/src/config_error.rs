//! Errors in a config, with their location: file, line, table, key, and the nearest valid key; or the option
//! `--set KEY`.

use std::path::{Path, PathBuf};

use pheye_baselines::System;

use crate::{Config, Error, Language, Result, Set, Task, set};

/// Where the values of a config come from: the text of the file `path`, overridden by `sets`.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) text: &'a str,
    pub(crate) path: &'a Path,
    pub(crate) sets: &'a [Set],
}

impl Origin<'_> {
    /// The config, before its values are compared with their limits.
    pub(crate) fn read(self) -> Result<Config> {
        let of_file = |e| self.explain(e);
        if self.sets.is_empty() {
            return toml::from_str(self.text).map_err(of_file);
        }
        let mut table: toml::Table = self.text.parse().map_err(of_file)?;
        set::apply(self.sets, &mut table)?;
        table.try_into().map_err(|error: toml::de::Error| match self.set(&keys(&error)) {
            Some(_) => self.explain(error),
            // A value of the file, whose line a table does not know.
            None => toml::from_str::<Config>(self.text).err().map_or_else(|| self.explain(error), of_file),
        })
    }

    /// The last option that sets `key`, a part of it, or a table around it.
    fn set(&self, key: &str) -> Option<&Set> {
        self.sets.iter().rev().find(|set| set.concerns(key))
    }

    /// The option that sets `key`, or the file with the line that sets it.
    fn place(&self, key: &str) -> (PathBuf, usize) {
        let file = || (self.path.to_owned(), find(self.text, key));
        self.set(key).map_or_else(file, |set| (set.option(), 0))
    }

    /// Converts an error of the TOML parser.
    fn explain(&self, error: toml::de::Error) -> Error {
        let line = error.span().map_or(0, |span| line_of(self.text, span.start));
        let keys = keys(&error);
        let set = self.set(&keys).filter(|_| error.span().is_none());
        let path = set.map_or_else(|| self.path.to_owned(), Set::option);
        let message = error.message();
        if let Some((key, valid)) = unknown(message) {
            let table = keys.strip_suffix(key.as_str()).unwrap_or(&keys).trim_end_matches('.').to_string();
            let nearest = nearest(&key, &valid).cloned();
            return Error::UnknownKey { path, line, table, key, nearest, valid };
        }
        let key = if set.is_some_and(|set| set.key == keys) { String::new() } else { keys };
        Error::Config { path, line, key, message: message.to_string() }
    }

    /// Adds the location in the config to an error about the network; `config` is the table `[model.config]`.
    pub(crate) fn network(&self, error: Error, config: &crate::Config) -> Error {
        let table = &config.model.config;
        match error {
            Error::Preset { name } => {
                let known: Vec<&str> = match config.task {
                    Task::Baseline => pheye_baselines::PRESETS.iter().map(|preset| preset.name).collect(),
                    Task::Pheye | Task::Contrastive | Task::NextToken => pheye_model::PRESETS.to_vec(),
                };
                let message = format!("there is no preset `{name}`; there are {}", known.join(", "));
                self.fault("model.preset", message)
            }
            Error::Network { message } => match unknown(&message) {
                Some((key, valid)) => {
                    let known = match config.task {
                        Task::NextToken if config.model.language == Language::Gpt2 => {
                            serde_json::to_value(pheye_gpt2::Config::default())
                        }
                        Task::Baseline => serde_json::to_value(pheye_baselines::Config {
                            resampler: Some(pheye_resample::Config::Perceiver(Default::default())),
                            ..pheye_baselines::Config::new(System::Llava)
                        }),
                        Task::Pheye | Task::Contrastive | Task::NextToken => {
                            serde_json::to_value(pheye_model::Config::default())
                        }
                    };
                    let table = table_of("model.config", table, &known.unwrap_or_default(), &key)
                        .unwrap_or_else(|| "model.config".into());
                    let (path, line) = self.place(&format!("{table}.{key}"));
                    let nearest = nearest(&key, &valid).cloned();
                    Error::UnknownKey { path, line, table, key, nearest, valid }
                }
                None => self.fault("model.config", message),
            },
            other => other,
        }
    }

    /// The error for a value that was parsed but is out of range.
    pub(crate) fn fault(&self, key: &str, message: String) -> Error {
        let (path, line) = self.place(key);
        // The option has named the key.
        let key = if self.set(key).is_some_and(|set| set.key == key) { String::new() } else { key.into() };
        Error::Config { path, line, key, message }
    }

    /// The error for a value of the table number `i` of the array of tables `table`.
    pub(crate) fn in_table(&self, table: &str, i: usize, key: &str, message: String) -> Error {
        if self.set(table).is_some() {
            return self.fault(table, format!("[{i}].{key}: {message}"));
        }
        let (text, header) = (self.text, format!("[[{table}]]"));
        let begins = text
            .match_indices(&header)
            .filter(|(at, _)| text[..*at].rsplit('\n').next().is_some_and(|before| before.trim().is_empty()));
        // An array that is written in line has no headers.
        let at = begins.map(|(at, _)| at).nth(i);
        let line = at.map_or(0, |at| {
            let mut lines = text[at..].lines().skip(1).take_while(|line| !line.trim_start().starts_with('['));
            let found = lines.position(|line| line.split('=').next().is_some_and(|k| k.trim() == key));
            line_of(text, at) + found.map_or(0, |n| n + 1)
        });
        Error::Config { path: self.path.into(), line, key: format!("{table}[{i}].{key}"), message }
    }
}

/// The dotted path of the key that an error is about, or an empty text.
fn keys(error: &toml::de::Error) -> String {
    // Without its input, the error prints the path of keys instead of an excerpt of the file.
    let mut error = error.clone();
    error.set_input(None);
    let shown = error.to_string();
    let keys = shown.rsplit_once("\nin `").map_or("", |(_, keys)| keys.trim_end().trim_end_matches('`'));
    keys.to_owned()
}

/// Extracts the key and the valid keys from serde's message about an unknown field.
fn unknown(message: &str) -> Option<(String, Vec<String>)> {
    let mut quoted = message.strip_prefix("unknown field `")?.split('`').step_by(2).map(str::to_string);
    let key = quoted.next()?;
    Some((key, quoted.filter(|k| !k.is_empty()).collect()))
}

/// The dotted name of the table, at or below `table` (called `name`), that sets `key` although `known`, the
/// network's own config, has no such key there.
fn table_of(name: &str, table: &toml::Table, known: &serde_json::Value, key: &str) -> Option<String> {
    if table.contains_key(key) && known.get(key).is_none() {
        return Some(name.to_string());
    }
    table.iter().find_map(|(k, v)| table_of(&format!("{name}.{k}"), v.as_table()?, known.get(k)?, key))
}

/// The valid key that is most similar to `key`, if one is similar enough.
fn nearest<'a>(key: &str, valid: &'a [String]) -> Option<&'a String> {
    let likeness = |v: &&String| (strsim::jaro_winkler(key, v) * 1e6) as u64;
    valid.iter().max_by_key(likeness).filter(|v| likeness(v) > 700_000)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// The line that sets `key`, or else the line of its table's header, or 0.
fn find(text: &str, key: &str) -> usize {
    let (table, name) = key.rsplit_once('.').unwrap_or((key, ""));
    let (mut inside, mut header) = (false, 0);
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.trim_matches(['[', ']']) == table;
            header = if inside { i + 1 } else { header };
        } else if inside && line.split('=').next().is_some_and(|k| k.trim() == name) {
            return i + 1;
        }
    }
    header
}
