//! Upper bounds of how much a tokenizer's steps can lengthen a text.
//!
//! Nine consecutive replacements of `a` by sixteen characters turn one letter into gigabytes. Therefore every
//! step in each part of a `tokenizer.json` gets a factor that bounds the growth of its output, the factors of
//! consecutive steps are multiplied, and a product above the limit is rejected. The factor follows from the
//! keys of a step as well as its type, because the library infers a missing type from the keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::fault::Fault;

/// Maximum number of steps in a part; each step processes the whole text.
const STEPS: usize = 64;

/// How the steps of a part change the length of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    /// Upper bound of the bytes that one byte becomes.
    pub(crate) growth: u64,
    /// Whether each byte becomes one character (byte-level BPE), so that the characters of a token are the
    /// bytes of the text.
    pub(crate) bytewise: bool,
    steps: usize,
}

/// Inspects the steps of the part `name`: normalizer, pre_tokenizer or decoder.
pub(crate) fn of(name: &str, part: Option<&RawValue>) -> Result<Growth, Fault> {
    let mut sum = Growth { growth: 1, bytewise: false, steps: 0 };
    if let Some(part) = part {
        let value: Value = serde_json::from_str(part.get())?;
        sum.add(&value).map_err(|reason| format!("{name}: {reason}"))?;
    }
    // Normalizer steps may have a large bound that no real text reaches. Their limit is high, because
    // `encode_within` checks the actual length of each text. The other parts have no such check, and
    // published ones have small bounds.
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

/// The normalization forms have the maximum expansion factors of UAX #15 (UTF-8). Lowercasing U+0130 gives
/// three bytes from two. `ByteLevel` turns a byte into a character of two bytes or, when decoding, into
/// U+FFFD, which has three.
fn by_type(kind: &str) -> u64 {
    match kind {
        "NFC" | "NFD" => 3,
        "NFKC" | "NFKD" => 11,
        "Lowercase" => 2,
        "ByteLevel" => 3,
        // One space per token.
        "WordPiece" => 2,
        _ => 1,
    }
}

fn by_keys(step: &Map<String, Value>) -> u64 {
    let length = |key: &str| step.get(key).and_then(Value::as_str).map_or(0, str::len) as u64;
    let mut factor = 1 + length("prepend");
    // Metaspace inserts the replacement for each space and before each piece.
    factor *= (2 * length("replacement")).max(1);
    // BertNormalizer: spaces around a character, canonical decomposition, lowercasing.
    if step.contains_key("handle_chinese_chars") {
        factor *= 2 * 3 * 2;
    }
    // The BPE and CTC decoders replace these strings, which may be empty, by a space.
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
        // A regular expression may match the empty string, and then at each byte.
        0 => 1 + content,
        found => content.div_ceil(found).max(1),
    }
}

/// The bound of SentencePiece's precompiled charsmap: the length of its longest replacement. A charsmap
/// consists of the size of a trie (u32), the trie, and replacement texts that end with NUL.
fn charsmap(step: &Map<String, Value>) -> Result<u64, String> {
    let Some(text) = step.get("precompiled_charsmap").and_then(Value::as_str) else { return Ok(1) };
    let bytes = STANDARD.decode(text).map_err(|_| "precompiled_charsmap is not base64")?;
    let short = "precompiled_charsmap ends before the trie that it announces";
    let (size, rest) = bytes.split_first_chunk().ok_or(short)?;
    let texts = rest.get(u32::from_le_bytes(*size) as usize..).ok_or(short)?;
    Ok(texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0).max(1) as u64)
}
