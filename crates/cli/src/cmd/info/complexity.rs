//! `pheye info --complexity`: what a question costs, as the paper counts it and as this program computes it.

use pheye::model::{Config, Recompute, StepShape, TrainedParts};
use serde_json::json;

use crate::numbers::bytes;
use crate::out::say;

/// The ratios of section 2.2 of the paper, by preset.
const PAPER: [(&str, f64, f64); 2] = [("x2-672", 1.02, 12.1), ("x4-672", 1.02, 18.5)];

/// What this program computes for one image and one text, in floating-point operations (a multiplication and an
/// addition are two).
struct Counted {
    encode: f64,
    /// The part of the LoRA adapters in `encode`.
    lora: f64,
    image_keys: f64,
    prefill: f64,
    /// One token with caches.
    token: f64,
    /// Forward and backward.
    training: f64,
    /// Bytes of the keys and values of the image in bf16: of cross-attention, and as a prefix of the sequence.
    cache: u64,
    cache_as_prefix: u64,
}

fn counted(config: &Config, text_tokens: usize, image_tokens: usize) -> Counted {
    let load = |tokens| StepShape { images: 1, tokens, recompute: Recompute::default(), element: 2 };
    let flops = |config: &Config, tokens| config.flops(load(tokens), TrainedParts::PHEYE);
    let mut plain = config.clone();
    (plain.lora_global.rank, plain.lora_local.rank) = (0, 0);
    let (now, next) = (flops(config, text_tokens), flops(config, text_tokens + 1));
    let decoder = |f: &pheye::model::Flops| (f.cross_attention.forward + f.text.forward) as f64;
    let inner = config.connector.inner(config.text.hidden_size, config.vision.hidden_size);
    let keys = |layers: usize, width: usize, tokens: usize| (2 * 2 * layers * width * tokens) as u64;
    Counted {
        encode: now.vision.forward as f64,
        lora: (now.vision.forward - flops(&plain, text_tokens).vision.forward) as f64,
        image_keys: now.cross_kv.forward as f64,
        prefill: decoder(&now),
        token: decoder(&next) - decoder(&now),
        training: now.total() as f64,
        cache: keys(config.cross_blocks(), inner, config.media_tokens()),
        cache_as_prefix: keys(config.text.num_hidden_layers, config.text.hidden_size, image_tokens),
    }
}

pub(super) fn show(name: &str, config: &Config, text_tokens: usize, as_json: bool) -> anyhow::Result<()> {
    config.validate()?;
    let c = config.complexity(text_tokens);
    let n = counted(config, text_tokens, c.image_tokens);
    if as_json {
        let counted = json!({
            "encode": n.encode, "lora_of_encode": n.lora, "image_keys": n.image_keys, "prefill": n.prefill,
            "token": n.token, "training_step": n.training, "image_cache_bytes": n.cache,
            "image_cache_bytes_as_prefix": n.cache_as_prefix,
        });
        let object = json!({
            "model": name, "multiplications": c, "encoder_ratio": c.encoder_ratio(),
            "decoder_ratio": c.decoder_ratio(), "flops": counted,
        });
        say!("{}", serde_json::to_string(&object)?);
        return Ok(());
    }
    let paper = |of: fn(&(&str, f64, f64)) -> f64| {
        let row = PAPER.iter().find(|(preset, ..)| *preset == name);
        row.map_or(String::new(), |row| format!("  (paper: {}x)", of(row)))
    };
    say!(
        "Multiplications as section 2.2 of the paper counts them: 12\u{b7}N\u{b7}D\u{b2} + N\u{b2}\u{b7}D for a layer over N tokens"
    );
    say!(
        "of width D. {} image tokens in one sequence, or {} views of {}; {} text tokens.",
        c.image_tokens,
        c.views,
        c.view_tokens,
        c.text_tokens
    );
    say!("");
    say!("encoder, the whole image at once (1)          {:>12}", tera(c.encoder_at_once));
    say!("encoder, view by view (2)                     {:>12}", tera(c.encoder_by_views));
    say!("                                              {:>11.4}x{}", c.encoder_ratio(), paper(|row| row.1));
    say!("decoder, image tokens in its sequence (3)     {:>12}", tera(c.decoder_with_prefix));
    say!("decoder, cross-attention (4)                  {:>12}", tera(c.decoder_with_cross_attention));
    say!("                                              {:>11.2}x{}", c.decoder_ratio(), paper(|row| row.2));
    say!("");
    say!(
        "What this program computes, in floating-point operations (two for a multiplication with its addition), with"
    );
    say!("both products of attention, the global view, the adapters and the output head:");
    say!("");
    say!("encoding an image                             {:>12}", tera(n.encode));
    say!(
        "  of which LoRA adapters                      {:>12}  {:.1} %",
        tera(n.lora),
        100.0 * n.lora / n.encode
    );
    say!("keys and values of {:>5} image tokens         {:>12}", config.media_tokens(), tera(n.image_keys));
    say!("reading the text                              {:>12}", tera(n.prefill));
    say!("each further token, with caches               {:>12}", tera(n.token));
    say!("a training step, forward and backward         {:>12}", tera(n.training));
    say!("");
    say!("keys and values of the image in bf16          {:>12}", bytes(n.cache));
    say!("  if they were in the decoder\u{2019}s sequence       {:>12}", bytes(n.cache_as_prefix));
    Ok(())
}

/// A count with its unit.
fn tera(count: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M")];
    let (size, unit) = units.into_iter().find(|(size, _)| count >= *size).unwrap_or((1e3, "k"));
    format!("{:.2} {unit}", count / size)
}
