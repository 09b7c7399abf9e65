//! Compares generation with transformers' generate() for the same weights, if `generate.json` exists beside
//! the golden data: the ids of searches, which must be equal, and the probabilities that sampling draws from.
//!
//! The cases are chosen so that rounding does not change their ids; `tests/golden/generate.py` describes how.
//! A simpler form of the file is supported as well ([`Plain`]): one prompt about the first image, and the ids
//! of each search under its name.

use std::collections::BTreeMap;
use std::path::Path;

use pheye_files::{Kind, quoted, read_text};
use pheye_model::GenerationConfig;
use pheye_ops::Cx;
use pheye_tensor::{Device, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::network::Network;
use crate::stage::{Stage, largest};
use crate::{Error, Result};

/// Maximum size of the file in bytes. With every probability of a large vocabulary it has a few megabytes.
const LIMIT: u64 = 256 << 20;

/// The contents of `generate.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    #[serde(rename = "transformers")]
    _transformers: String,
    cases: Vec<Search>,
    distributions: Vec<Distribution>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    config: Map<String, Value>,
    prompts: Vec<Vec<u32>>,
    #[serde(rename = "pictures")]
    images: Vec<usize>,
    ids: Vec<Vec<u32>>,
    /// Whether bf16 must give the same ids.
    bf16: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Distribution {
    config: Map<String, Value>,
    prompt: Vec<u32>,
    #[serde(rename = "picture")]
    image: usize,
    kept: Vec<usize>,
    probabilities: Vec<f64>,
    /// The largest error of PyTorch in f32.
    error: f64,
    /// The largest error of PyTorch in bf16.
    bf16_error: f64,
}

/// The simpler form of the file. Searches are named `greedy`, `beams3`, `no_repeat_ngram2` or
/// `repetition_penalty1.3`; a suffix after `_` only distinguishes names, and the fields next to the ids hold
/// further options. The longest answer sets `max_new_tokens`.
#[derive(Deserialize)]
struct Plain {
    prompt: Vec<u32>,
    #[serde(flatten)]
    searches: BTreeMap<String, Answer>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Ids(Vec<u32>),
    With { ids: Vec<u32>, eos: Option<u32>, length_penalty: Option<f64> },
}

/// The beginning of a search's name, before a number, and the option with that number.
const NAMED: [(&str, &str); 3] = [
    ("beams", "num_beams"),
    ("no_repeat_ngram", "no_repeat_ngram_size"),
    ("repetition_penalty", "repetition_penalty"),
];

impl Answer {
    fn ids(&self) -> &[u32] {
        match self {
            Answer::Ids(ids) | Answer::With { ids, .. } => ids,
        }
    }
}

impl TryFrom<Plain> for Expected {
    type Error = String;

    fn try_from(plain: Plain) -> std::result::Result<Expected, String> {
        let longest = plain.searches.values().map(|a| a.ids().len()).max().unwrap_or(0);
        let search = |(name, answer): (&String, &Answer)| {
            let mut config = Map::from_iter([("max_new_tokens".to_owned(), json!(longest))]);
            let named = NAMED.iter().find_map(|(begin, option)| Some((name.strip_prefix(begin)?, option)));
            if let Some((rest, option)) = named {
                let number = rest.split('_').next().unwrap_or_default();
                let number: Value =
                    serde_json::from_str(number).map_err(|_| format!("`{name}` has no number"))?;
                config.insert((*option).to_owned(), number);
            } else if name.split('_').next() != Some("greedy") {
                return Err(format!("`{name}` is no search that is known"));
            }
            if let Answer::With { eos, length_penalty, .. } = answer {
                config.extend(eos.map(|id| ("eos_token_id".to_owned(), json!([id]))));
                config.extend(length_penalty.map(|p| ("length_penalty".to_owned(), json!(p))));
            }
            let ids = vec![answer.ids().to_vec()];
            Ok(Search { config, prompts: vec![plain.prompt.clone()], images: vec![0], ids, bf16: false })
        };
        let cases = plain.searches.iter().map(search).collect::<std::result::Result<_, String>>()?;
        Ok(Expected { _transformers: String::new(), cases, distributions: Vec::new() })
    }
}

impl Expected {
    /// Reads `generate.json` in `folder`, if it exists.
    pub(crate) fn read(folder: &Path) -> Result<Option<Expected>> {
        let path = folder.join("generate.json");
        let text = match read_text(&path, Kind::Regular, LIMIT) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { path, source }),
        };
        let parsed = serde_json::from_str(&text).map_err(|e| e.to_string()).and_then(|value: Value| {
            if value.get("prompt").is_none() {
                return serde_json::from_value(value).map_err(|e| e.to_string());
            }
            serde_json::from_value::<Plain>(value).map_err(|e| e.to_string())?.try_into()
        });
        parsed.map(Some).map_err(|why| Error::Generation { path, why: quoted(&why) })
    }

    /// Compares every search, whose error is the number of different answers, and every distribution. `media`
    /// are those of the golden images.
    pub(crate) fn compare(
        &self,
        cx: &Cx,
        folder: &Path,
        model: &impl Network,
        media: &Tensor,
    ) -> Result<Vec<Stage>> {
        let gpu = matches!(cx.device, Device::Gpu(_));
        let mut stages = Vec::new();
        for case in self.cases.iter().filter(|case| case.bf16 || !gpu) {
            let how = options(folder, &case.config)?;
            let ids = model.generate(cx, media, &case.prompts, &case.images, &how)?.unwrap_or_default();
            let wrong = ids.iter().zip(&case.ids).filter(|(ours, theirs)| ours != theirs).count();
            let missing = ids.len().abs_diff(case.ids.len());
            let error = (wrong + missing) as f64;
            stages.push(Stage { name: name("generate", &case.config), error, allowed: 0.0 });
        }
        for case in &self.distributions {
            let how = options(folder, &case.config)?;
            let scores = model.next_scores(cx, media, &case.prompt, case.image, &how)?;
            let scores = scores.unwrap_or_else(|| vec![f32::NAN; model.vocab_size()]);
            let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut p: Vec<f64> = scores.iter().map(|s| f64::from(s - top).exp()).collect();
            let total: f64 = p.iter().sum();
            p.iter_mut().for_each(|p| *p /= total);
            // The remaining values of `p` are the differences; for tokens that must not be drawn, the
            // probability itself.
            for (&id, theirs) in case.kept.iter().zip(&case.probabilities) {
                let why = || format!("keeps token {id}, which is not in the vocabulary");
                let path = || folder.join("generate.json");
                let ours = p.get_mut(id).ok_or_else(|| Error::Generation { path: path(), why: why() })?;
                *ours -= theirs;
            }
            let naive = if gpu { case.bf16_error } else { case.error };
            let allowed = 2.0 * naive + 1e-6 * largest(case.probabilities.iter().copied());
            let error = largest(p.into_iter());
            stages.push(Stage { name: name("sampling", &case.config), error, allowed });
        }
        Ok(stages)
    }
}

fn options(folder: &Path, config: &Map<String, Value>) -> Result<GenerationConfig> {
    let path = || folder.join("generate.json");
    serde_json::from_value(Value::Object(config.clone()))
        .map_err(|e| Error::Generation { path: path(), why: quoted(&e.to_string()) })
}

/// A name such as `generate num_beams=3`, with all options.
fn name(kind: &str, config: &Map<String, Value>) -> String {
    config.iter().fold(kind.to_owned(), |name, (option, value)| format!("{name} {option}={value}"))
}
