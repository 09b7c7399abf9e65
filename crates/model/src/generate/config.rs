//! Generation options, with the names and defaults of Hugging Face's `GenerationConfig` (transformers 4.37).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// How an answer is generated. Options without effect in the chosen mode are rejected, not ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// Maximum number of new tokens; the context length may end an answer earlier. `max_length`, which
    /// includes the prompt, is not supported.
    pub max_new_tokens: usize,
    /// Minimum number of tokens before an answer may end.
    pub min_new_tokens: usize,
    /// Tokens that end an answer; they are part of the result.
    pub eos_token_id: Vec<u32>,
    /// Strings that end an answer. A caller that generates token ids must detect them with [`super::Hooks`].
    pub stop_strings: Vec<String>,
    /// Number of beams; 1 means greedy search or sampling.
    pub num_beams: usize,
    /// The log-probability of a finished answer is divided by its length to this power; values above 0 favour
    /// longer answers.
    pub length_penalty: f64,
    /// When a search with beams ends.
    pub early_stopping: EarlyStopping,
    /// Number of answers to each prompt: the best beams, or independent samples.
    pub num_return_sequences: usize,
    /// Sample tokens by their probabilities instead of taking the most probable.
    pub do_sample: bool,
    /// Divisor of the logits before sampling.
    pub temperature: f32,
    /// Sample from this many most probable tokens; 0 means all.
    pub top_k: usize,
    /// Sample from the most probable tokens whose probabilities add up to this; 1 means all.
    pub top_p: f32,
    /// Sample from tokens with p ≥ `min_p`·max p, after the other limits, as in transformers since 4.41; 0
    /// means all.
    pub min_p: f32,
    /// Seed of the random numbers. They depend on the seed, the token's index in its answer and the answer's
    /// index among `num_return_sequences`, so the rest of the batch does not affect an answer.
    pub seed: u64,
    /// Divisor of positive logits, and multiplier of negative ones, for tokens that are in the prompt or the
    /// answer already.
    pub repetition_penalty: f32,
    /// No n-gram of this length may occur twice, prompt included; 0 means no limit.
    pub no_repeat_ngram_size: usize,
}

impl Default for GenerationConfig {
    fn default() -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: 128,
            min_new_tokens: 0,
            eos_token_id: Vec::new(),
            stop_strings: Vec::new(),
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::False,
            num_return_sequences: 1,
            do_sample: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
        }
    }
}

/// When a search with beams ends, once as many answers as beams are finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When the best unfinished answer, were it to end now, would be no better than the worst finished one.
    #[default]
    False,
    /// At once.
    True,
    /// When no unfinished answer can become better than the worst finished one.
    Never,
}

impl std::str::FromStr for EarlyStopping {
    type Err = String;

    fn from_str(text: &str) -> Result<EarlyStopping, String> {
        match text {
            "false" => Ok(EarlyStopping::False),
            "true" => Ok(EarlyStopping::True),
            "never" => Ok(EarlyStopping::Never),
            _ => Err("one of `false`, `true` and `never` is needed".to_owned()),
        }
    }
}

impl std::fmt::Display for EarlyStopping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EarlyStopping::False => "false",
            EarlyStopping::True => "true",
            EarlyStopping::Never => "never",
        })
    }
}

/// The form in Hugging Face's JSON: `true`, `false` or `"never"`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Flag(bool),
    Word(String),
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            EarlyStopping::Never => Written::Word(self.to_string()),
            other => Written::Flag(*other == EarlyStopping::True),
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<EarlyStopping, D::Error> {
        match Written::deserialize(d)? {
            Written::Flag(flag) => Ok(if flag { EarlyStopping::True } else { EarlyStopping::False }),
            Written::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Maximum number of beams or returned answers per prompt.
const MOST_ANSWERS: usize = 1 << 12;

impl GenerationConfig {
    /// Greedy search for at most this many tokens, without an end token.
    pub fn greedy(max_new_tokens: usize) -> GenerationConfig {
        GenerationConfig { max_new_tokens, ..GenerationConfig::default() }
    }

    /// Checks that the options are in their ranges and do not conflict.
    ///
    /// # Errors
    /// [`Error::Generation`] when an option is invalid; the error names it.
    pub fn validate(&self) -> Result<()> {
        let shares = |x: f32| (0.0..=1.0).contains(&x);
        let positive = |x: f32| x > 0.0 && x.is_finite();
        let beams = self.num_beams > 1;
        let plain = GenerationConfig::default();
        let only_sampling = "is for sampling: set do_sample too, or leave it";
        let only_beams = "is for beams: set num_beams above 1 too, or leave it";
        // A condition, the option it is about, the option's value, and the message if the condition does not
        // hold.
        let rules: [(bool, &'static str, String, &'static str); 18] = [
            (self.num_beams > 0, "num_beams", self.num_beams.to_string(), "must be 1 or more"),
            (self.num_beams <= MOST_ANSWERS, "num_beams", self.num_beams.to_string(), "must be at most 4096"),
            (
                self.num_return_sequences <= MOST_ANSWERS,
                "num_return_sequences",
                self.num_return_sequences.to_string(),
                "must be at most 4096",
            ),
            (
                !(beams && self.do_sample),
                "num_beams",
                self.num_beams.to_string(),
                "does not go with do_sample: beams take the most probable tokens",
            ),
            (
                self.length_penalty.is_finite(),
                "length_penalty",
                self.length_penalty.to_string(),
                "must be finite",
            ),
            (
                beams || self.length_penalty == plain.length_penalty,
                "length_penalty",
                self.length_penalty.to_string(),
                only_beams,
            ),
            (
                beams || self.early_stopping == plain.early_stopping,
                "early_stopping",
                self.early_stopping.to_string(),
                only_beams,
            ),
            (
                self.num_return_sequences > 0,
                "num_return_sequences",
                self.num_return_sequences.to_string(),
                "must be 1 or more",
            ),
            (
                self.do_sample || self.num_return_sequences <= self.num_beams.max(1),
                "num_return_sequences",
                self.num_return_sequences.to_string(),
                "must not be above num_beams, unless do_sample is set: there are no more different answers",
            ),
            (
                positive(self.temperature),
                "temperature",
                self.temperature.to_string(),
                "must be above 0 and finite; for the most probable tokens leave do_sample off",
            ),
            (shares(self.top_p), "top_p", self.top_p.to_string(), "must be from 0 to 1"),
            (shares(self.min_p), "min_p", self.min_p.to_string(), "must be from 0 to 1"),
            (
                self.do_sample || self.temperature == plain.temperature,
                "temperature",
                self.temperature.to_string(),
                only_sampling,
            ),
            (self.do_sample || self.top_k == plain.top_k, "top_k", self.top_k.to_string(), only_sampling),
            (self.do_sample || self.top_p == plain.top_p, "top_p", self.top_p.to_string(), only_sampling),
            (self.do_sample || self.min_p == plain.min_p, "min_p", self.min_p.to_string(), only_sampling),
            (
                positive(self.repetition_penalty),
                "repetition_penalty",
                self.repetition_penalty.to_string(),
                "must be above 0 and finite",
            ),
            (
                self.min_new_tokens <= self.max_new_tokens,
                "min_new_tokens",
                self.min_new_tokens.to_string(),
                "must not be above max_new_tokens",
            ),
        ];
        for (holds, option, value, rule) in rules {
            if !holds {
                return Err(Error::Generation { option, value, rule });
            }
        }
        if self.stop_strings.iter().any(String::is_empty) {
            let (option, rule) = ("stop_strings", "must not hold an empty text: it would end every answer");
            return Err(Error::Generation { option, value: format!("{:?}", self.stop_strings), rule });
        }
        Ok(())
    }
}
