//! The generation options of `pheye ask`, `chat` and `caption`, and what their answers took.

use std::time::Duration;

use pheye::Times;
use pheye::model::{EarlyStopping, GenerationConfig};
use serde_json::{Value, json};

use crate::numbers::short;

/// The name of each option in [`GenerationConfig`] and on the command line.
const NAMES: [(&str, &str); 15] = [
    ("max_new_tokens", "--max-new-tokens"),
    ("min_new_tokens", "--min-new-tokens"),
    ("num_beams", "--beams"),
    ("length_penalty", "--length-penalty"),
    ("early_stopping", "--early-stopping"),
    ("num_return_sequences", "--answers"),
    ("do_sample", "--sample"),
    ("temperature", "--temperature"),
    ("top_k", "--top-k"),
    ("top_p", "--top-p"),
    ("min_p", "--min-p"),
    ("repetition_penalty", "--repetition-penalty"),
    ("no_repeat_ngram_size", "--no-repeat-ngram"),
    ("stop_strings", "--stop"),
    ("eos_token_id", "--stop"),
];

/// How answers are generated. Names and meanings are those of Hugging Face transformers' generate().
#[derive(clap::Args)]
pub(crate) struct GenerationArgs {
    /// Maximum length of an answer, in tokens
    #[arg(long, default_value_t = 128, value_name = "N", help_heading = "Length and end of answers")]
    #[arg(value_parser = super::at_least_one)]
    max_new_tokens: usize,
    /// Minimum length of an answer, in tokens: the end token is excluded until then
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Length and end of answers")]
    min_new_tokens: usize,
    /// End an answer before this text; may be given several times. `\n` stands for a new line
    #[arg(long, value_name = "TEXT", help_heading = "Length and end of answers")]
    stop: Vec<String>,
    /// Number of answers to each question: the best beams, or independent samples
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Length and end of answers")]
    answers: usize,
    /// Number of beams: beam search follows this many partial answers and returns the most probable; 1 is
    /// greedy
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Search with beams")]
    beams: usize,
    /// Exponent of the length that divides a beam's log-probability: above 0 favours long answers, below 0
    /// short ones
    #[arg(long, default_value_t = 1.0, value_name = "X", allow_negative_numbers = true)]
    #[arg(help_heading = "Search with beams")]
    length_penalty: f64,
    /// When beam search stops, once as many answers as beams have ended: `true` at once, `false` when an
    /// improvement is unlikely, `never` only when none is possible
    #[arg(long, default_value_t, value_name = "WHEN", help_heading = "Search with beams")]
    early_stopping: EarlyStopping,
    /// Sample each token from its probability distribution instead of taking the most probable. Every other
    /// option of this group implies it
    #[arg(long, help_heading = "Sampling")]
    sample: bool,
    /// Temperature: below 1 sharpens the distribution, above 1 flattens it [default: 1]
    #[arg(long, value_name = "T", allow_negative_numbers = true, help_heading = "Sampling")]
    temperature: Option<f32>,
    /// Sample from the N most probable tokens; 0 keeps all [default: 50]
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    top_k: Option<usize>,
    /// Sample from the smallest set of most probable tokens whose probabilities add up to P, 0 to 1
    /// [default: 1, all]
    #[arg(long, value_name = "P", allow_negative_numbers = true, help_heading = "Sampling")]
    top_p: Option<f32>,
    /// Sample from the tokens at least P times as probable as the most probable one, 0 to 1 [default: 0, all]
    #[arg(long, value_name = "P", allow_negative_numbers = true, help_heading = "Sampling")]
    min_p: Option<f32>,
    /// Seed of the random number generator: the same seed gives the same answers [default: 0]
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    seed: Option<u64>,
    /// Above 1, makes tokens that occur in the question or the answer less probable
    #[arg(long, default_value_t = 1.0, value_name = "X", allow_negative_numbers = true)]
    #[arg(help_heading = "Repetition")]
    repetition_penalty: f32,
    /// Do not generate any sequence of N tokens twice, question included; 0 allows all
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Repetition")]
    no_repeat_ngram: usize,
}

impl GenerationArgs {
    /// The generation configuration; options that conflict with each other are an error.
    pub(crate) fn config(&self) -> anyhow::Result<GenerationConfig> {
        let plain = GenerationConfig::default();
        let do_sample = self.sample
            || self.temperature.is_some()
            || self.top_k.is_some()
            || self.top_p.is_some()
            || self.min_p.is_some()
            || self.seed.is_some();
        let config = GenerationConfig {
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            stop_strings: self.stop.iter().map(|s| s.replace("\\n", "\n")).collect(),
            num_beams: self.beams,
            length_penalty: self.length_penalty,
            early_stopping: self.early_stopping,
            num_return_sequences: self.answers,
            do_sample,
            temperature: self.temperature.unwrap_or(plain.temperature),
            top_k: self.top_k.unwrap_or(plain.top_k),
            top_p: self.top_p.unwrap_or(plain.top_p),
            min_p: self.min_p.unwrap_or(plain.min_p),
            seed: self.seed.unwrap_or(plain.seed),
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram,
            ..plain
        };
        config.validate().map_err(named)?;
        Ok(config)
    }
}

/// Replaces the names of options in an error by their spelling on the command line.
pub(crate) fn named(error: pheye::model::Error) -> anyhow::Error {
    let pheye::model::Error::Generation { .. } = error else { return error.into() };
    let text = NAMES.iter().fold(error.to_string(), |text, (name, flag)| text.replace(name, flag));
    anyhow::Error::msg(text)
}

/// What answers took.
pub(crate) struct Stats {
    /// Encoding the images, with the keys and values of cross-attention.
    pub(crate) encode: Duration,
    pub(crate) times: Times,
    /// Tokens of all answers.
    pub(crate) tokens: usize,
}

impl Stats {
    /// The seconds of the stages; `prefill` is null with beam search, where `decode` has both.
    pub(crate) fn json(&self) -> Value {
        let Times { prefill, total } = self.times;
        json!({
            "encode": self.encode.as_secs_f64(),
            "prefill": prefill.map(|time| time.as_secs_f64()),
            "decode": total.saturating_sub(prefill.unwrap_or_default()).as_secs_f64(),
        })
    }

    /// The stages in a line.
    pub(crate) fn line(&self) -> String {
        let Times { prefill, total } = self.times;
        let mut line = format!("encode {}", short(self.encode.as_secs_f64()));
        let decode = total.saturating_sub(prefill.unwrap_or_default()).as_secs_f64();
        if let Some(prefill) = prefill {
            line += &format!("  prefill {}", short(prefill.as_secs_f64()));
        }
        // The first token is the result of the prefill.
        let rate = match prefill {
            Some(_) => self.tokens.saturating_sub(1) as f64 / decode,
            None => self.tokens as f64 / decode,
        };
        line += &format!("  decode {}  {} tokens", short(decode), self.tokens);
        if self.tokens > 1 && rate.is_finite() {
            line += &format!("  {rate:.1} tokens/s");
        }
        line
    }
}
