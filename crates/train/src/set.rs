//! Values of a config that are given on the command line: `--set KEY=VALUE`.

use std::path::PathBuf;
use std::str::FromStr;

use pheye_files::quoted;
use toml::{Table, Value};

use crate::{Config, DataConfig, Error, EvalConfig, ModelConfig, OptimConfig, Result, TrainConfig};

/// A dotted key of a config with its value, as in `optim.lr=1e-4`.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// The key, with its tables.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl FromStr for Set {
    type Err = String;

    /// Parses `KEY=VALUE`. The value is TOML; one that is not, such as a bare word or a path, is a string.
    fn from_str(text: &str) -> Result<Set, String> {
        let (key, value) = text.split_once('=').ok_or("KEY=VALUE is needed, such as optim.lr=1e-4")?;
        let (key, value) = (key.trim(), value.trim());
        if key.split('.').any(str::is_empty) {
            return Err(format!("`{key}` is no key; tables and keys are joined by dots, as in optim.lr"));
        }
        // In a document of its own, so that the value cannot contain other keys.
        let parsed = format!("value = {value}").parse::<Table>();
        let value = match parsed.map(|mut table| (table.len() == 1).then(|| table.remove("value"))) {
            Ok(Some(Some(value))) => value,
            Err(e) if value.starts_with(['"', '\'', '[', '{']) => {
                return Err(format!("{key}: {}", e.message()));
            }
            _ => Value::String(value.to_owned()),
        };
        Ok(Set { key: key.to_owned(), value })
    }
}

impl Set {
    /// Whether an error about `key` is about this value: `key` is the key itself, or inside or around it.
    pub(crate) fn concerns(&self, key: &str) -> bool {
        let within = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
        self.key == key || within(&self.key, key) || within(key, &self.key)
    }

    /// The option, for messages in place of a file.
    pub(crate) fn option(&self) -> PathBuf {
        format!("--set {}", quoted(&self.key)).into()
    }

    fn error(&self, message: String) -> Error {
        Error::Config { path: self.option(), line: 0, key: String::new(), message }
    }
}

/// The two keys of the length of a run, of which exactly one is given.
const LENGTH: [&str; 2] = ["steps", "epochs"];

/// Puts the values of `sets` into a config.
///
/// # Errors
/// Returns [`Error::Config`] if there is no such key, with the nearest ones.
pub(crate) fn apply(sets: &[Set], config: &mut Table) -> Result<()> {
    for set in sets {
        known(set)?;
        let mut path: Vec<&str> = set.key.split('.').collect();
        let name = path.pop().unwrap_or_default();
        let mut table = &mut *config;
        for part in &path {
            let entry = table.entry(*part).or_insert_with(|| Value::Table(Table::new()));
            let within = || set.error(format!("`{part}` is not a table in the config"));
            table = entry.as_table_mut().ok_or_else(within)?;
        }
        if path == ["train"] && LENGTH.contains(&name) {
            // One of the two replaces the other, unless both are set.
            let other = LENGTH.into_iter().filter(|other| *other != name);
            let kept = |other: &&str| !sets.iter().any(|s| s.key == format!("train.{other}"));
            other.filter(kept).for_each(|other| _ = table.remove(other));
        }
        table.insert(name.to_owned(), set.value.clone());
    }
    Ok(())
}

/// Checks that the key exists. Keys below `model.config` are those of the network, which are checked with it.
fn known(set: &Set) -> Result<()> {
    let keys = keys();
    let within_network = set.key.starts_with("model.config.");
    if within_network || keys.iter().any(|key| set.concerns(key)) {
        return Ok(());
    }
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    // Alike in the whole, or in the name alone, as when the table is missing.
    let likeness = |key: &String| {
        let whole = strsim::jaro_winkler(&set.key, key);
        whole.max(strsim::jaro_winkler(&last(&set.key), &last(key)))
    };
    let mut near: Vec<_> = keys.iter().map(|key| (likeness(key), key)).filter(|(l, _)| *l > 0.8).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = near.first().map_or(0.0, |(likeness, _)| *likeness);
    near.retain(|(likeness, _)| *likeness > best - 0.05);
    let near: Vec<_> = near.iter().take(3).map(|(_, key)| format!("`{key}`")).collect();
    let hint = match near.as_slice() {
        [] => "`pheye train --keys` lists all".to_owned(),
        [one] => format!("did you mean {one}?"),
        several => format!("the nearest are {}", several.join(", ")),
    };
    Err(set.error(format!("there is no such key; {hint}")))
}

/// The dotted keys of a config.
fn keys() -> Vec<String> {
    let config = Config {
        task: crate::Task::Pheye,
        model: ModelConfig::default(),
        data: DataConfig::default(),
        optim: OptimConfig::default(),
        train: TrainConfig::default(),
        eval: EvalConfig::default(),
        base: PathBuf::new(),
        located: Default::default(),
    };
    // Lists of tables are left out while they are empty.
    let mut keys = ["data.source", "optim.share"].map(str::to_owned).to_vec();
    flatten("", &config.echo().unwrap_or_default(), &mut keys);
    keys
}

/// The dotted names of all leaves of a JSON tree.
fn flatten(prefix: &str, value: &serde_json::Value, keys: &mut Vec<String>) {
    match value.as_object().filter(|map| !map.is_empty()) {
        Some(map) => {
            let dot = if prefix.is_empty() { "" } else { "." };
            map.iter().for_each(|(key, value)| flatten(&format!("{prefix}{dot}{key}"), value, keys));
        }
        None => keys.push(prefix.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_toml_or_else_a_string() {
        let value = |text: &str| format!("k={text}").parse::<Set>().map(|set| set.value);
        assert_eq!(value("1e-4"), Ok(Value::Float(1e-4)));
        assert_eq!(value("3"), Ok(Value::Integer(3)));
        assert_eq!(value("true"), Ok(Value::Boolean(true)));
        assert_eq!(value("\"3\""), Ok(Value::String("3".into())));
        assert_eq!(value("[1, 2]").unwrap().as_array().unwrap().len(), 2);
        for word in ["cosine", "../runs/a b", "1\nother = 2", "1 # no", "", "a=b"] {
            let expected = if word == "1 # no" { Value::Integer(1) } else { Value::String(word.into()) };
            assert_eq!(value(word), Ok(expected), "{word}");
        }
        assert!(value("[1, 2").unwrap_err().starts_with("k: "));
        assert!("lr".parse::<Set>().unwrap_err().starts_with("KEY=VALUE is needed"));
        assert!("optim..lr=1".parse::<Set>().unwrap_err().contains("is no key"));
    }
}
