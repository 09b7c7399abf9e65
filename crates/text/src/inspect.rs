//! Checks a `tokenizer.json` before the `tokenizers` library parses it, and rejects files that would need
//! unbounded memory or time.
//!
//! The library trusts its input: consecutive replacements multiply the length of a text, a trie has a node
//! for each byte of a vocabulary and is dropped recursively, and a charsmap reserves the size that it states.
//! All limits are far above the values of published tokenizers.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::fault::Fault;
use crate::growth;

/// Maximum size of a `tokenizer.json` in bytes; with 260,000 tokens it has about 35 MB.
pub(crate) const FILE_LIMIT: u64 = 64 << 20;
/// Maximum size in bytes of each part except vocabulary and merges. A charsmap has 300 kB.
const PART: usize = 2 << 20;
/// Maximum number of tokens in the vocabulary, and of merges.
const ENTRIES: usize = 1 << 20;
/// Maximum size of a token in bytes. The longest tokens of published vocabularies are hundreds of spaces or
/// dashes.
const TOKEN: usize = 2048;
/// Maximum size in bytes of all tokens of a unigram model: each byte may be a node of about 400 bytes in the
/// library's trie.
const UNIGRAM: usize = 4 << 20;
/// Maximum size in bytes of all added tokens after normalization.
const ADDED: u64 = 4 << 20;
/// Maximum of `max_input_chars_per_word`, usually 100: WordPiece splits a word in time that grows with the
/// third power of its length.
const WORD: usize = 256;
/// Maximum size in bytes of the prefix and suffix that a model adds to each piece of a word.
const AFFIX: usize = 64;

/// Properties of a tokenizer that bound the length of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Upper bound of the factor by which normalization lengthens a text.
    pub(crate) growth: u64,
    /// Bytes of text that the longest token represents.
    pub(crate) longest: usize,
}

type Part<'a> = Option<&'a RawValue>;

/// The parts that the library parses. A duplicate key is an error here, because the library could use the
/// other value.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    truncation: Part<'a>,
    #[serde(borrow)]
    padding: Part<'a>,
    #[serde(borrow)]
    added_tokens: Part<'a>,
    #[serde(borrow)]
    normalizer: Part<'a>,
    #[serde(borrow)]
    pre_tokenizer: Part<'a>,
    #[serde(borrow)]
    post_processor: Part<'a>,
    #[serde(borrow)]
    decoder: Part<'a>,
    #[serde(borrow)]
    model: Part<'a>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    vocab: Part<'a>,
    #[serde(borrow)]
    merges: Part<'a>,
    max_input_chars_per_word: Option<usize>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    unk_token: Option<String>,
}

#[derive(Deserialize)]
struct Added {
    content: String,
    normalized: bool,
}

/// Checks the text of a `tokenizer.json` against the limits.
pub(crate) fn inspect(text: &str) -> Result<Facts, Fault> {
    let parts: Parts = serde_json::from_str(text)?;
    let named = [
        ("truncation", parts.truncation),
        ("padding", parts.padding),
        ("normalizer", parts.normalizer),
        ("pre_tokenizer", parts.pre_tokenizer),
        ("post_processor", parts.post_processor),
        ("decoder", parts.decoder),
    ];
    for (name, part) in named {
        at_most(&format!("bytes of {name}"), part.map_or(0, |p| p.get().len()), PART)?;
    }
    let normalizer = growth::of("normalizer", parts.normalizer)?;
    let pre_tokenizer = growth::of("pre_tokenizer", parts.pre_tokenizer)?;
    growth::of("decoder", parts.decoder)?;
    let added: Vec<Added> = parts.added_tokens.map_or(Ok(Vec::new()), |p| serde_json::from_str(p.get()))?;
    let mut tokens = Tokens::default();
    let mut normalized = 0;
    for token in &added {
        tokens.count(&token.content);
        if token.normalized {
            normalized += token.content.len() as u64;
        }
    }
    at_most("added_tokens", added.len(), ENTRIES / 4)?;
    at_most("bytes of an added token", tokens.longest_bytes, TOKEN)?;
    if normalized.saturating_mul(normalizer.growth) > ADDED {
        return Err(format!("added_tokens: normalizer may make more than {ADDED} bytes of them").into());
    }
    if let Some(part) = parts.model {
        model(part.get(), &mut tokens)?;
    }
    let bytewise = normalizer.bytewise || pre_tokenizer.bytewise;
    let longest = if bytewise { tokens.longest_chars } else { tokens.longest_bytes };
    Ok(Facts { growth: normalizer.growth, longest })
}

fn model(text: &str, tokens: &mut Tokens) -> Result<(), Fault> {
    let model: Model = serde_json::from_str(text)?;
    let length = |part: Part| part.map_or(0, |p| p.get().len());
    let rest = text.len() - length(model.vocab) - length(model.merges);
    at_most("bytes of model beside vocab and merges", rest, PART)?;
    if let Some(word) = model.max_input_chars_per_word {
        at_most("max_input_chars_per_word", word, WORD)?;
    }
    let affix = |affix: &Option<String>| affix.as_ref().map_or(0, String::len);
    at_most("bytes of continuing_subword_prefix", affix(&model.continuing_subword_prefix), AFFIX)?;
    at_most("bytes of end_of_word_suffix", affix(&model.end_of_word_suffix), AFFIX)?;
    at_most("bytes of unk_token", affix(&model.unk_token), TOKEN)?;
    if let Some(merges) = model.merges {
        let merges: Vec<IgnoredAny> = serde_json::from_str(merges.get())?;
        at_most("merges", merges.len(), ENTRIES)?;
    }
    let Some(vocab) = model.vocab else { return Ok(()) };
    let vocab: Vocabulary = serde_json::from_str(vocab.get())?;
    at_most("tokens in vocab", vocab.entries, ENTRIES)?;
    at_most("bytes of a token in vocab", vocab.tokens.longest_bytes, TOKEN)?;
    if vocab.scored {
        at_most("bytes of all tokens in vocab", vocab.bytes, UNIGRAM)?;
    }
    // Which of the two tokens the library decodes the id to would depend on the seed of a hash table.
    if let Some(id) = vocab.twice {
        return Err(format!("two tokens in vocab have the id {id}").into());
    }
    tokens.longest_bytes = tokens.longest_bytes.max(vocab.tokens.longest_bytes);
    tokens.longest_chars = tokens.longest_chars.max(vocab.tokens.longest_chars);
    Ok(())
}

fn at_most(what: &str, found: usize, limit: usize) -> Result<(), String> {
    if found <= limit { Ok(()) } else { Err(format!("{what}: {found}, and {limit} is the limit")) }
}

/// The lengths of the longest token.
#[derive(Default)]
struct Tokens {
    longest_bytes: usize,
    longest_chars: usize,
}

impl Tokens {
    fn count(&mut self, token: &str) {
        self.longest_bytes = self.longest_bytes.max(token.len());
        self.longest_chars = self.longest_chars.max(token.chars().count());
    }
}

/// Statistics of a vocabulary: a map from tokens to ids, or a list of tokens with scores.
#[derive(Default)]
struct Vocabulary {
    tokens: Tokens,
    entries: usize,
    bytes: usize,
    scored: bool,
    ids: HashSet<u32>,
    /// An id that two tokens have.
    twice: Option<u32>,
}

impl Vocabulary {
    /// Counts a token. Beyond the limit on entries, ids are no longer stored, to bound the memory.
    fn count(&mut self, token: &str, id: Option<u32>) {
        self.tokens.count(token);
        self.entries += 1;
        self.bytes += token.len();
        if let Some(id) = id
            && self.entries <= ENTRIES
            && !self.ids.insert(id)
        {
            self.twice.get_or_insert(id);
        }
    }
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Vocabulary, D::Error> {
        from.deserialize_any(Counting)
    }
}

struct Counting;

impl<'de> Visitor<'de> for Counting {
    type Value = Vocabulary;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a vocabulary: a map of ids or a list of tokens with scores")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
        let mut vocabulary = Vocabulary::default();
        while let Some((token, id)) = map.next_entry::<Cow<str>, u32>()? {
            vocabulary.count(&token, Some(id));
        }
        Ok(vocabulary)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocabulary, A::Error> {
        let mut vocabulary = Vocabulary { scored: true, ..Vocabulary::default() };
        while let Some((token, _)) = list.next_element::<(Cow<str>, f64)>()? {
            vocabulary.count(&token, None);
        }
        Ok(vocabulary)
    }
}
