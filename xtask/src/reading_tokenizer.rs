//! Makes the tokenizer of the reading lessons: the words of the questions are tokens, everything else is spelled
//! byte by byte, so that the model writes what it reads letter by letter.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::root;

/// Writes configs/reading/tokenizer.json from configs/reading/words.txt.
pub(crate) fn make(args: &[String]) -> Result<()> {
    if !args.is_empty() {
        bail!("usage: cargo xtask reading-tokenizer");
    }
    let dir = root().join("configs/reading");
    let words = fs::read_to_string(dir.join("words.txt")).context("configs/reading/words.txt")?;
    let end = "<|endoftext|>";
    let mut bytes: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    bytes.sort();
    // A space before a word is part of its token.
    let words = words.split_whitespace().map(|word| format!("Ġ{word}"));
    let tokens = [end.to_owned()].into_iter().chain(bytes).chain(words);
    let vocabulary: BTreeMap<String, u32> = tokens.zip(0..).collect();
    let level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let form = json!({
        "version": "1.0",
        "added_tokens": [{
            "id": 0, "content": end, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "pre_tokenizer": level,
        "decoder": level,
        // Without merges, what is no token of its own is spelled.
        "model": { "type": "BPE", "ignore_merges": true, "vocab": vocabulary, "merges": [] },
    });
    let tokenizer: Tokenizer = form.to_string().parse().map_err(|e| anyhow::anyhow!("{e}"))?;
    let path = dir.join("tokenizer.json");
    tokenizer.save(&path, true).map_err(|e| anyhow::anyhow!(e)).context(path.display().to_string())?;
    println!("configs/reading/tokenizer.json: {} tokens", tokenizer.get_vocab_size(true));
    Ok(())
}
