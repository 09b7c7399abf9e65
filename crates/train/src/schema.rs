//! The keys of a config as data, made from the config's types and their documentation: a JSON schema for
//! editors, and a reference page.

use std::fmt::Write;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::Config;

// The types of other crates that occur in a config, which do not depend on `schemars`.

/// Which texts of the data are used.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum Content {
    Questions,
    Captions,
    Text,
}

/// What to do with an image or text that cannot be used.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum OnBroken {
    Stop,
    Skip,
}

/// The curve of the learning rate after the warmup.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum ScheduleKind {
    Constant,
    Cosine,
}

/// How many layers save only their input and are recomputed in the backward pass.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct Recompute {
    /// Blocks of the vision tower, from the first.
    #[schemars(default)]
    vision: usize,
    /// Decoder layers with their cross-attention blocks, from the first that backward reaches.
    #[schemars(default)]
    text: usize,
}

/// The JSON schema (draft 7) of a config.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Config>();
    schema.insert("title".into(), "A training run of pheye".into());
    let mut schema = schema.to_value();
    tidy(&mut schema);
    schema
}

/// Joins the lines of each description, and removes formats, which say how Rust stores a number, and nulls.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // A property may be called so too; its schema is an object.
            if map.get("format").is_some_and(Value::is_string) {
                map.remove("format");
            }
            // TOML has no null, so an absent key has no default.
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// All keys with type, default and meaning, as a page in Markdown with one section for each table.
pub fn reference() -> String {
    let root = schema();
    let mut page = "# Keys of a training config\n\n\
        A config of `pheye train` is a TOML file. Paths are relative to its folder, and an unknown key is an error.\n\
        `--set KEY=VALUE` changes a key from the command line. This page is `pheye train --keys`; for editors,\n\
        [config.schema.json](config.schema.json) is `pheye train --schema`.\n"
        .to_owned();
    let (mut top, mut tables) = (Vec::new(), Vec::new());
    for (key, value) in properties(&root) {
        let table = target(&root, value);
        if table.get("properties").is_some() { tables.push((key, table)) } else { top.push((key, value)) }
    }
    section(&mut page, &root, &root, top.into_iter());
    for (key, table) in tables {
        let about = text(table).split_once(": ").map_or(text(table), |(_, about)| about);
        let _ = write!(page, "\n## `[{key}]`\n\n{}\n", capital(about));
        section(&mut page, &root, table, properties(table));
    }
    page
}

fn section<'a>(
    page: &mut String,
    root: &Value,
    table: &Value,
    keys: impl Iterator<Item = (&'a String, &'a Value)>,
) {
    page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
    for (key, value) in keys {
        let required = table["required"].as_array().is_some_and(|list| list.iter().any(|r| r == key));
        let default = match value.get("default") {
            None if required => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            Some(default) => format!("`{default}`"),
        };
        let about = text(value).replace('|', "\\|");
        let _ = writeln!(page, "| `{key}` | {} | {default} | {about} |", kind(root, value));
    }
}

fn properties(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table["properties"].as_object().into_iter().flatten()
}

/// The description of a key.
fn text(value: &Value) -> &str {
    value["description"].as_str().unwrap_or_default()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The schema that `value` refers to, or `value` itself.
fn target<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    let reference = |value: &Value| value["$ref"].as_str()?.strip_prefix("#/definitions/").map(str::to_owned);
    let name = reference(value).or_else(|| value["allOf"].as_array()?.iter().find_map(reference));
    name.and_then(|name| root["definitions"].get(name)).unwrap_or(value)
}

/// The type of a value, in words.
fn kind(root: &Value, value: &Value) -> String {
    let value = target(root, value);
    if let Some(names) = value["enum"].as_array() {
        return names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    }
    for several in ["anyOf", "oneOf"] {
        let Some(parts) = value[several].as_array() else { continue };
        let parts = parts.iter().filter(|part| part["type"] != "null");
        return parts.map(|part| kind(root, part)).collect::<Vec<_>>().join(", ");
    }
    if let Some(name) = value.get("const") {
        return format!("`{name}`");
    }
    let named = value["type"].as_str();
    let named =
        named.or_else(|| value["type"].as_array()?.iter().find_map(|t| t.as_str().filter(|t| *t != "null")));
    match named.unwrap_or("any") {
        "array" => {
            let item = if value["items"].is_object() { kind(root, &value["items"]) } else { "number".into() };
            let length = value["maxItems"].as_u64().map_or(String::new(), |n| format!(" of {n}"));
            format!("list{length}: {item}")
        }
        "object" if value["properties"].is_object() => {
            format!(
                "table: {}",
                properties(value).map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(", ")
            )
        }
        "object" => "table".into(),
        other => other.into(),
    }
}
