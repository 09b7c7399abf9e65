//! The error type of this crate. Every error names its file, key or option.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be built, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A configuration file is invalid.
    #[error("{}: {why}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A folder contains no model.
    #[error(
        "{} holds no model: neither `pheye.json` (this project's layout) nor `config.json` (the released one)",
        path.display()
    )]
    NoModel {
        /// The folder.
        path: PathBuf,
    },
    /// The vision configuration is invalid.
    #[error(transparent)]
    Vision(#[from] pheye_vit::Error),
    /// The text configuration is invalid.
    #[error(transparent)]
    TextConfig(#[from] pheye_phi::Error),
    /// The connector configuration is invalid.
    #[error(transparent)]
    Connector(#[from] pheye_xattn::Error),
    /// No decoder layer has a cross-attention block, so the model could not see the image.
    #[error(
        "connector config: cross_interval is {cross_interval} and from_layer is {from_layer}, which leaves no \
         cross-attention block before any of the {layers} decoder layers"
    )]
    NoBlock {
        /// The interval between cross-attention blocks, in layers.
        cross_interval: usize,
        /// The first layer that may have one.
        from_layer: usize,
        /// Layers of the decoder.
        layers: usize,
    },
    /// A folder contains no weights.
    #[error("{} holds no weights: none of {}", path.display(), .looked_for.join(", "))]
    NoBackbone {
        /// The folder.
        path: PathBuf,
        /// The files it may have.
        looked_for: &'static [&'static str],
    },
    /// A LoRA configuration is invalid.
    #[error("{option} is {value}, but {rule}")]
    Lora {
        /// Name of the invalid option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The condition that the value must satisfy.
        rule: &'static str,
    },
    /// The model does not have this LoRA set.
    #[error(
        "this model has no {set} LoRA set ({})",
        match set {
            crate::LoraSet::Global => "`connector.first_level` is false",
            crate::LoraSet::Local => "at level 1 there are no tiles",
        }
    )]
    NoLora {
        /// The set.
        set: crate::LoraSet,
    },
    /// The parts of a batch or request have inconsistent sizes.
    #[error("{what}: {found} given, {expected} needed")]
    Batch {
        /// What has the wrong size.
        what: &'static str,
        /// Their number.
        found: usize,
        /// The number that fits.
        expected: usize,
    },
    /// The image indices of sequences are out of range or not ascending.
    #[error("sequences are about images {found:?}, but the numbers must ascend and stay below {images}")]
    Images {
        /// The image indices given.
        found: Vec<usize>,
        /// Number of images.
        images: usize,
    },
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] pheye_ops::Error),
    /// A tensor has an unexpected shape or type.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
    /// A checkpoint could not be read or written, or does not fit.
    #[error(transparent)]
    Weights(#[from] pheye_weights::Error),
    /// A generation option is out of range or conflicts with another.
    #[error("{option} is {value}, but it {rule}")]
    Generation {
        /// The invalid option, by its name in [`crate::GenerationConfig`].
        option: &'static str,
        /// Its value.
        value: String,
        /// The condition that the value must satisfy.
        rule: &'static str,
    },
    /// There is not enough memory for this many answers at once.
    #[error(
        "{answers} answers at a time in a context of {tokens} tokens take {bytes} bytes for their keys, values and \
         logits, which there are not: lower num_beams, num_return_sequences, max_new_tokens, or ask fewer questions at once"
    )]
    AnswersTooLarge {
        /// Answers, of all prompts.
        answers: usize,
        /// Tokens of the longest prompt with its answer.
        tokens: usize,
        /// The bytes needed, saturated at `u64::MAX`.
        bytes: u64,
    },
    /// Logits contain a value from which no token can be chosen, such as NaN.
    #[error(
        "a {what} of token {step} of answer {sequence} is not finite: some weights are not, or are too large"
    )]
    NotFinite {
        /// The kind of value, such as `logit`.
        what: &'static str,
        /// The token's place in its answer, from 0.
        step: usize,
        /// The answer's number, from 0.
        sequence: usize,
    },
    /// A prompt without tokens.
    #[error("prompt {index} has no tokens")]
    EmptyPrompt {
        /// Its number.
        index: usize,
    },
    /// A prompt and its answer do not fit the context.
    #[error("a prompt of {prompt} tokens leaves no room in a context of {context}")]
    Context {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        context: usize,
    },
}

impl Error {
    /// The GPU error that caused this one, if any.
    pub fn gpu(&self) -> Option<&pheye_tensor::GpuError> {
        match self {
            Error::Op(e) => e.gpu(),
            Error::Tensor(e) => e.gpu(),
            _ => None,
        }
    }
}

/// Returns an error unless `found` equals `expected`.
pub(crate) fn count(what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Batch { what, found, expected }) }
}
