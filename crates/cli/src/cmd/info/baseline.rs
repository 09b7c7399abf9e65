//! The parts of a system that Pheye is compared with.

use std::process::ExitCode;

use pheye::baselines::{Config, PRESETS};
use serde_json::json;

use crate::numbers::{bytes, grouped};
use crate::out::say;

/// Prints the parameters of a system by part, and those that it trains beside the paper's number.
pub(super) fn show(name: &str, config: &Config, as_json: bool) -> anyhow::Result<ExitCode> {
    let counts = config.counts()?;
    let preset = PRESETS.iter().find(|preset| preset.name == name);
    let frozen = counts.all() - counts.trained;
    let train = 16 * counts.trained + 2 * frozen;
    if as_json {
        say!(
            "{}",
            json!({
                "model": name,
                "parameters": counts,
                "trained": counts.trained,
                "frozen": frozen,
                "paper": preset.map(|preset| preset.paper),
                "image_tokens": config.media_tokens(),
                "rows_before_text": config.prefix(),
                "tiles": 1 + config.local_tiles(),
                "tokens_per_tile": config.vision.tokens(),
                "context": config.context(),
                "memory": { "run_f32": 4 * counts.all(), "run_bf16": 2 * counts.all(), "train_bf16_frozen": train },
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    say!("{name}, a system of the paper's Appendix B");
    say!("");
    say!("parameters");
    for (part, count) in [
        ("vision tower", counts.vision),
        ("LoRA", counts.lora),
        ("connector", counts.connector),
        ("cross-attention", counts.cross_attention),
        ("language model", counts.text),
    ] {
        say!("  {part:<17}{:>15}", grouped(count));
    }
    say!("  {:<17}{:>15}", "trained", grouped(counts.trained));
    if let Some(preset) = preset {
        let why = if preset.why.is_empty() { String::new() } else { format!("  ({})", preset.why) };
        say!("  {:<17}{:>15}{why}", "in the paper", preset.paper);
    }
    say!("");
    let side = config.vision.image_size * config.level;
    let tokens = config.vision.tokens();
    say!("image            {side} x {side} pixels, {} tiles of {tokens} tokens", 1 + config.local_tiles());
    let place = if config.prefix() > 0 { "before the text" } else { "in cross-attention" };
    say!("image tokens     {}, {place}", config.media_tokens());
    say!("context          {} tokens", config.context());
    say!("");
    say!("memory for weights (activations come on top)");
    say!("  to run         {} in f32, {} in bf16", bytes(4 * counts.all()), bytes(2 * counts.all()));
    say!("  to train       {} with frozen weights in bf16, AdamW in f32", bytes(train));
    Ok(ExitCode::SUCCESS)
}
