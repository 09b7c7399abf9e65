//! Configuration of a resampler, and its validation.

use serde::{Deserialize, Serialize};

/// An invalid value in the configuration of a resampler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resampler config: {option} is {value}, but {rule}")]
pub struct Error {
    /// Name of the invalid option.
    pub option: &'static str,
    /// Its value.
    pub value: usize,
    /// The condition that the value must satisfy.
    pub rule: String,
}

/// Which resampler, and its sizes. In a file it is one table whose `kind` is `monkey` or `perceiver`. Missing options
/// have the published values; the options of a Perceiver alone may be in the table of a Monkey, which ignores them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", from = "File")]
pub enum Config {
    /// A [`crate::Monkey`].
    Monkey(MonkeyConfig),
    /// A [`crate::Perceiver`].
    Perceiver(PerceiverConfig),
}

/// Configuration of a [`crate::Monkey`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MonkeyConfig {
    /// Number of queries, 1 + a square: a class token and a square grid.
    pub queries: usize,
    /// Number of attention heads. Together they are as wide as the image tokens.
    pub heads: usize,
    /// Whether the four linears have a bias.
    pub bias: bool,
}

/// Configuration of a [`crate::Perceiver`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PerceiverConfig {
    /// Number of queries.
    pub queries: usize,
    /// Number of layers, each with an attention and an MLP.
    pub depth: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the MLP as a multiple of the width of the image tokens.
    pub ff_mult: usize,
    /// Whether the linears have a bias.
    pub bias: bool,
}

impl Default for MonkeyConfig {
    fn default() -> MonkeyConfig {
        MonkeyConfig { queries: 257, heads: 8, bias: true }
    }
}

impl Default for PerceiverConfig {
    fn default() -> PerceiverConfig {
        PerceiverConfig { queries: 257, depth: 6, heads: 8, head_dim: 64, ff_mult: 4, bias: false }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Monkey,
    Perceiver,
}

/// The table of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kind: Kind,
    queries: Option<usize>,
    depth: Option<usize>,
    heads: Option<usize>,
    head_dim: Option<usize>,
    ff_mult: Option<usize>,
    bias: Option<bool>,
}

impl From<File> for Config {
    fn from(file: File) -> Config {
        match file.kind {
            Kind::Monkey => {
                let published = MonkeyConfig::default();
                Config::Monkey(MonkeyConfig {
                    queries: file.queries.unwrap_or(published.queries),
                    heads: file.heads.unwrap_or(published.heads),
                    bias: file.bias.unwrap_or(published.bias),
                })
            }
            Kind::Perceiver => {
                let published = PerceiverConfig::default();
                Config::Perceiver(PerceiverConfig {
                    queries: file.queries.unwrap_or(published.queries),
                    depth: file.depth.unwrap_or(published.depth),
                    heads: file.heads.unwrap_or(published.heads),
                    head_dim: file.head_dim.unwrap_or(published.head_dim),
                    ff_mult: file.ff_mult.unwrap_or(published.ff_mult),
                    bias: file.bias.unwrap_or(published.bias),
                })
            }
        }
    }
}

/// Upper limits, above the values of every published model.
const QUERIES: usize = 1 << 16;
const LAYERS: usize = 1 << 10;
const HEADS: usize = 1 << 12;
const WIDTH: usize = 1 << 16;
const MULTIPLE: usize = 1 << 6;

impl Config {
    /// Number of queries, and so of the rows that the resampler returns for an image.
    pub fn queries(&self) -> usize {
        match self {
            Config::Monkey(c) => c.queries,
            Config::Perceiver(c) => c.queries,
        }
    }

    /// Checks that the sizes are within their limits and consistent with each other, with the `width` of the image
    /// tokens and with the number of `tokens` of one tile, so that no product of them overflows.
    ///
    /// # Errors
    /// When an option is invalid; the error names the first one.
    pub fn validate(&self, width: usize, tokens: usize) -> Result<(), Error> {
        match self {
            Config::Monkey(c) => c.validate(width, tokens),
            Config::Perceiver(c) => c.validate(width),
        }
    }
}

impl MonkeyConfig {
    /// Checks the sizes as [`Config::validate`] does.
    ///
    /// # Errors
    /// When an option is invalid; the error names the first one.
    pub fn validate(&self, width: usize, tokens: usize) -> Result<(), Error> {
        let (queries, heads) = (self.queries, self.heads);
        limits(&[
            ("queries", queries, QUERIES),
            ("tokens", tokens, QUERIES),
            ("heads", heads, HEADS),
            ("hidden_size", width, WIDTH),
        ])?;
        for (option, value) in [("queries", queries), ("tokens", tokens)] {
            if value == 1 || (value - 1).isqrt().pow(2) != value - 1 {
                let rule = "it must be 1 + a square: a class token and a square grid".to_owned();
                return Err(Error { option, value, rule });
            }
        }
        if !width.is_multiple_of(8 * heads) {
            let rule = format!("each of {heads} heads needs a multiple of 8");
            return Err(Error { option: "hidden_size", value: width, rule });
        }
        Ok(())
    }
}

impl PerceiverConfig {
    /// Checks the sizes as [`Config::validate`] does.
    ///
    /// # Errors
    /// When an option is invalid; the error names the first one.
    pub fn validate(&self, width: usize) -> Result<(), Error> {
        limits(&[
            ("queries", self.queries, QUERIES),
            ("depth", self.depth, LAYERS),
            ("heads", self.heads, HEADS),
            ("head_dim", self.head_dim, WIDTH),
            ("ff_mult", self.ff_mult, MULTIPLE),
            ("hidden_size", width, WIDTH),
        ])?;
        if !self.head_dim.is_multiple_of(8) {
            let rule = "it must be a multiple of 8".to_owned();
            return Err(Error { option: "head_dim", value: self.head_dim, rule });
        }
        Ok(())
    }
}

/// Checks that each value is positive and at most its limit.
fn limits(sizes: &[(&'static str, usize, usize)]) -> Result<(), Error> {
    for &(option, value, most) in sizes {
        if value == 0 {
            return Err(Error { option, value, rule: "it must be positive".to_owned() });
        }
        if value > most {
            return Err(Error { option, value, rule: format!("it must be at most {most}") });
        }
    }
    Ok(())
}
