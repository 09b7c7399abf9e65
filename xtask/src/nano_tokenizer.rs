//! Trains the tokenizer of the nano models: a byte-level BPE in which every word of the questions is one
//! token.

use anyhow::{Context, Result, bail};
use pheye_data::Manifest;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerBuilder,
};

use crate::root;

/// Trains on data/easy-vqa/text.zip and writes models/nano/tokenizer.json.
pub(crate) fn make(args: &[String]) -> Result<()> {
    if !args.is_empty() {
        bail!("usage: cargo xtask nano-tokenizer");
    }
    let manifest = Manifest::open(root().join("data/easy-vqa/text.zip"))?;
    let texts = manifest.items.iter().filter_map(|item| item.text.as_deref());
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new()
    .with_model(BPE::default())
    .with_normalizer(None)
    .with_pre_tokenizer(Some(bytes.into()))
    .with_post_processor(None)
    .with_decoder(Some(bytes.into()))
    .build()
    .map_err(|e| anyhow::anyhow!(e))?;
    // The vocabulary is larger than necessary: training ends when every word is a single token.
    let mut trainer = BpeTrainer::builder()
        .vocab_size(512)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from("<|endoftext|>", true)])
        .build();
    tokenizer.train(&mut trainer, texts).map_err(|e| anyhow::anyhow!(e))?;
    let path = root().join("models/nano/tokenizer.json");
    tokenizer.save(&path, true).map_err(|e| anyhow::anyhow!(e)).context(path.display().to_string())?;
    println!("models/nano/tokenizer.json: {} tokens", tokenizer.get_vocab_size(true));
    Ok(())
}
