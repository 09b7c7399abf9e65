//! By how much the steps of a tokenizer may lengthen a text.
//!
//! Nine replacements of `a` by sixteen in a row make gigabytes of a letter. So the steps of each part of a
//! `tokenizer.json` are gone through: each has a factor that its output never exceeds, steps in a row multiply, and what
//! comes to more than a limit is refused. A step counts by its keys, whatever its type says, since the library guesses
//! the type where it is missing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::inspect::Fault;

/// Steps of a part: each goes through the whole text.
const STEPS: usize = 64;

/// What the steps of a part do to the length of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    /// Bytes that a byte becomes at most.
    pub(crate) growth: u64,
    /// Whether bytes become characters of their own, so that a token's characters are the text's bytes.
    pub(crate) bytewise: bool,
    steps: usize,
}

/// The steps of the part called `name`: normalizer, pre_tokenizer or decoder.
pub(crate) fn of(name: &str, part: Option<&RawValue>) -> Result<Growth, Fault> {
    let mut sum = Growth { growth: 1, bytewise: false, steps: 0 };
    if let Some(part) = part {
        let value: Value = serde_json::from_str(part.get())?;
        sum.add(&value).map_err(|reason| format!("{name}: {reason}"))?;
    }
    // Normalising can compose large factors that no text ever meets: the real length is looked at with each text. The
    // others have no such check, and need none of their size.
    let limit = if name == "normalizer" { 1 << 14 } else { 64 };
    if sum.growth > limit {
        let factor = sum.growth;
        return Err(
            format!("{name}: its steps may lengthen a text {factor} times, {limit} is the limit").into()
        );
    }
    if sum.steps > STEPS {
        return Err(format!("{name}: {} steps, {STEPS} is the limit", sum.steps).into());
    }
    Ok(sum)
}

impl Growth {
    fn add(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Array(steps) => steps.iter().try_for_each(|step| self.add(step)),
            Value::Object(step) => {
                self.steps += 1;
                let kind = step.get("type").and_then(Value::as_str).unwrap_or_default();
                self.bytewise |= kind == "ByteLevel";
                let factors = [by_type(kind), by_keys(step), replacement(step), charsmap(step)?];
                self.growth = factors.iter().fold(self.growth, |product, f| product.saturating_mul(*f));
                if step.get("length").and_then(Value::as_u64) == Some(0) {
                    return Err("pieces of length 0".to_owned());
                }
                let inner =
                    ["normalizers", "pretokenizers", "decoders"].iter().filter_map(|key| step.get(*key));
                inner.into_iter().try_for_each(|steps| self.add(steps))
            }
            _ => Ok(()),
        }
    }
}

/// UAX #15 has the factors of the normalization forms. U+0130 in small letters has three bytes instead of two; a byte
/// that is no text becomes a character of two bytes, or when decoding U+FFFD.
fn by_type(kind: &str) -> u64 {
    match kind {
        "NFC" | "NFD" => 3,
        "NFKC" | "NFKD" => 11,
        "Lowercase" => 2,
        "ByteLevel" => 3,
        // A space for each token.
        "WordPiece" => 2,
        _ => 1,
    }
}

fn by_keys(step: &Map<String, Value>) -> u64 {
    let length = |key: &str| step.get(key).and_then(Value::as_str).map_or(0, str::len) as u64;
    let mut factor = 1 + length("prepend");
    // Metaspace: for a space, and before each piece.
    factor *= (2 * length("replacement")).max(1);
    // Spaces around a character, canonical decomposition, small letters.
    if step.contains_key("handle_chinese_chars") {
        factor *= 2 * 3 * 2;
    }
    // BPE's and CTC's decoders put a space in place of these, which may be empty.
    if step.contains_key("suffix") || step.contains_key("word_delimiter_token") {
        factor *= 2;
    }
    factor
}

fn replacement(step: &Map<String, Value>) -> u64 {
    let (Some(content), Some(pattern)) = (step.get("content").and_then(Value::as_str), step.get("pattern"))
    else {
        return 1;
    };
    let content = content.len() as u64;
    match pattern.get("String").and_then(Value::as_str).map_or(0, str::len) as u64 {
        // What a regular expression matches may be empty: then there is one at each byte.
        0 => 1 + content,
        found => content.div_ceil(found).max(1),
    }
}

/// A charsmap is the size of a trie, the trie, and texts that end with NUL: no text is replaced by a longer one.
fn charsmap(step: &Map<String, Value>) -> Result<u64, String> {
    let Some(text) = step.get("precompiled_charsmap").and_then(Value::as_str) else { return Ok(1) };
    let bytes = STANDARD.decode(text).map_err(|_| "precompiled_charsmap is not base64")?;
    let short = "precompiled_charsmap ends before the trie that it announces";
    let (size, rest) = bytes.split_first_chunk().ok_or(short)?;
    let texts = rest.get(u32::from_le_bytes(*size) as usize..).ok_or(short)?;
    Ok(texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0).max(1) as u64)
}
