//! How a source is named in the config of a run: a `[[data.source]]` table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::prompt::Prompt;
use super::rules::Pattern;

/// The form in which a data set is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSON lines as [`crate::Manifest`] reads them.
    Lines,
    /// One array of conversations about images: ShareGPT4V, LVIS-Instruct4V, SVIT, LLaVA and others.
    Conversation,
    /// `llava_v1_5_mix665k.json`, divided into the data sets that it is made of.
    Mix665k,
    /// LLaVAR: conversations, of which those about its own images are used.
    Llavar,
    /// LRV-Instruction.
    Lrv,
    /// MIMIC-IT's instructions about single images.
    MimicIt,
    /// Scene-text VQA.
    StVqa,
    /// TextVQA.
    #[serde(rename = "textvqa")]
    TextVqa,
    /// A-OKVQA.
    #[serde(rename = "a-okvqa")]
    AOkvqa,
    /// OK-VQA: questions, and `annotations`.
    #[serde(rename = "ok-vqa")]
    OkVqa,
    /// GQA's balanced questions.
    Gqa,
    /// OCR-VQA's `dataset.json`.
    OcrVqa,
    /// VQAv2: questions, and `annotations`.
    #[serde(rename = "vqav2")]
    VqaV2,
    /// TextCaps.
    #[serde(rename = "textcaps")]
    TextCaps,
    /// COCO's captions.
    CocoCaptions,
    /// A folder of images, each beside a `.txt` file of the same stem with its caption.
    Folder,
    /// WebDataset: tar shards in which each image is beside a `.json` or `.txt` file of the same stem.
    #[serde(rename = "webdataset")]
    WebDataset,
    /// Parquet files with images and columns of text (`question` and `answer`, `instruction` and `output`,
    /// `caption`, `text`, or JSON in `conversations` or `qa`).
    Parquet,
}

/// How many turns (questions with their answers) of an item are drawn each time it is seen. Each is a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// At most so many; successive passes draw different ones, until all have been drawn.
    Some(u16),
    /// All.
    All,
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Turns {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Turns".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "How many turns are drawn each time an item is seen: a number, or all of them.",
            "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65535 }, { "const": "all" }]
        })
    }
}

impl Serialize for Turns {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Turns::Some(n) => n.serialize(to),
            Turns::All => "all".serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Turns {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Turns, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Turns;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an integer from 1 to 65535, or \"all\"")
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Turns, E> {
                let turns = u16::try_from(n).ok().filter(|n| *n > 0).map(Turns::Some);
                turns.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(n), &self))
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Turns, E> {
                self.visit_i64(i64::try_from(n).unwrap_or(i64::MAX))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Turns, E> {
                let all = (text == "all").then_some(Turns::All);
                all.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// A `[[data.source]]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The form in which it is published.
    pub format: Format,
    /// The published file; of `folder`, the folder of the texts.
    pub path: PathBuf,
    /// The second published file of `vqav2` and `ok-vqa`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<PathBuf>,
    /// The question file of OK-VQA, by which `mix665k` tells its questions from those of VQAv2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub okvqa_questions: Option<PathBuf>,
    /// The root folder or archive of the images; the default is the folder of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// How the name of an image follows from its id, if the rows have ids instead of names: `{id}`, or
    /// `{id:012}` with zeros in front up to twelve digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// How often each sample is seen per epoch; the default is once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Number of samples per epoch, instead of `weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Turns drawn at each pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// Whether each question about an image is used once, however often the file has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<bool>,
    /// What is added to the question, or stands in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Prompt>,
    /// Only images whose names begin with one of these are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<String>>,
    /// Images whose names begin with one of these are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Other settings for parts of a source, by their names (those of `mix665k` in its documentation).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PartConfig>,
}

/// Settings of a part of a source; those of the source are the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PartConfig {
    /// How often each sample is seen per epoch, times the weight of the source; 0 leaves the part out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Turns drawn at each pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// What is added to the question, or stands in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Prompt>,
}

impl SourceConfig {
    /// The table that names only the format and the published file.
    pub fn new(format: Format, path: impl Into<PathBuf>) -> SourceConfig {
        SourceConfig {
            format,
            path: path.into(),
            annotations: None,
            okvqa_questions: None,
            images: None,
            image_name: None,
            weight: None,
            count: None,
            turns: None,
            unique: None,
            prompt: None,
            include: None,
            exclude: Vec::new(),
            parts: BTreeMap::new(),
        }
    }

    /// The same source with its paths resolved against the folder `base`.
    pub fn resolved(&self, base: &Path) -> SourceConfig {
        let mut resolved = self.clone();
        resolved.path = base.join(&self.path);
        for path in [&mut resolved.annotations, &mut resolved.okvqa_questions, &mut resolved.images] {
            *path = path.take().map(|path| base.join(path));
        }
        resolved
    }

    /// The first key that is missing or has a value that does not go with the format, and why.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        let reader = self.format.reader();
        let table = |key: &str| reader.tables.iter().any(|table| table.key == key);
        let parts: Vec<&str> = reader.parts.iter().map(|part| part.name).collect();
        let unknown = self.parts.keys().find(|name| !parts.contains(&name.as_str()));
        let weights = self.weight.iter().chain(self.parts.values().flat_map(|part| &part.weight));
        let mut weights = weights.map(|w| w.is_finite() && *w >= 0.0);
        let asks = |part: &super::reader::Part| {
            let own = self.parts.get(part.name).and_then(|own| own.prompt.as_ref());
            own.or(self.prompt.as_ref()).unwrap_or(&part.prompt).stands_alone()
        };
        let speechless = reader.parts.iter().any(|part| part.captions && !asks(part));
        let named = self.image_name.as_ref().filter(|_| reader.image_name.is_some());
        let pattern = named.map(|pattern| Pattern::parse(pattern));
        let checks = [
            (
                "annotations",
                !table("annotations") || self.annotations.is_some(),
                "is needed: this format has two published files",
            ),
            (
                "annotations",
                table("annotations") || self.annotations.is_none(),
                "this format has one published file",
            ),
            (
                "okvqa_questions",
                self.okvqa_questions.is_none() || self.format == Format::Mix665k,
                "only mix665k uses it",
            ),
            (
                "image_name",
                named.is_some() == self.image_name.is_some(),
                "the rows of this format name images",
            ),
            (
                "image_name",
                pattern.is_none_or(|p| p.is_some()),
                "needs one `{id}`, or `{id:012}` for 12 digits",
            ),
            ("weight", self.weight.is_none() || self.count.is_none(), "give either weight or count"),
            ("weight", self.weight != Some(0.0), "must be above 0"),
            ("weight", weights.all(|ok| ok), "must not be below 0, and finite"),
            ("count", self.count != Some(0), "must be at least 1"),
            (
                "prompt",
                !speechless,
                "this format has captions without questions: the prompt must be one of caption, captions-ten, \
                 { append = … } and { only = … }",
            ),
            ("include", self.include.as_ref().is_none_or(|list| !list.is_empty()), "must not be empty"),
        ];
        if let Some((key, _, why)) = checks.into_iter().find(|(_, ok, _)| !ok) {
            return Some((key, why.to_owned()));
        }
        let name = unknown?;
        Some(("parts", format!("there is no part `{name}`; there are {}", parts.join(", "))))
    }
}
