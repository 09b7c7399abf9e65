//! Why a model could not be loaded, saved or run: each error with its file, key or option.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be built, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or folder could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A configuration file does not say what it should.
    #[error("{}: {why}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A folder that holds no model.
    #[error(
        "{} holds no model: neither `pheye.json` (this project's layout) nor `config.json` (the released one)",
        path.display()
    )]
    NoModel {
        /// The folder.
        path: PathBuf,
    },
    /// The vision configuration is impossible.
    #[error(transparent)]
    Vision(#[from] pheye_vit::Error),
    /// The text configuration is impossible.
    #[error(transparent)]
    TextConfig(#[from] pheye_phi::Error),
    /// The connector configuration is impossible.
    #[error(transparent)]
    Connector(#[from] pheye_xattn::Error),
    /// No decoder layer has cross-attention before it, so that the model would not see its image.
    #[error(
        "connector config: cross_interval is {cross_interval} and from_layer is {from_layer}, which leaves no \
         cross-attention block before any of the {layers} decoder layers"
    )]
    NoBlock {
        /// A block before every so many layers.
        cross_interval: usize,
        /// The first layer that may have one.
        from_layer: usize,
        /// Layers of the decoder.
        layers: usize,
    },
    /// A folder without weights.
    #[error("{} holds no weights: none of {}", path.display(), .looked_for.join(", "))]
    NoBackbone {
        /// The folder.
        path: PathBuf,
        /// The files it may have.
        looked_for: &'static [&'static str],
    },
    /// A LoRA set is impossible.
    #[error("{option} is {value}, but {rule}")]
    Lora {
        /// Name of the invalid option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The condition that the value must satisfy.
        rule: &'static str,
    },
    /// A LoRA set that the model does not have.
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
    /// The parts of a batch, or of what is asked, do not fit each other.
    #[error("{what}: {found} given, {expected} needed")]
    Batch {
        /// What there is the wrong number of.
        what: &'static str,
        /// Their number.
        found: usize,
        /// The number that fits.
        expected: usize,
    },
    /// A sequence names its image wrongly.
    #[error("sequences are about pictures {found:?}, but the numbers must ascend and stay below {pictures}")]
    Pictures {
        /// The images as named.
        found: Vec<usize>,
        /// How many there are.
        pictures: usize,
    },
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] pheye_ops::Error),
    /// A tensor is not what was expected.
    #[error(transparent)]
    Tensor(#[from] pheye_tensor::Error),
    /// A checkpoint could not be read or written, or does not fit.
    #[error(transparent)]
    Weights(#[from] pheye_weights::Error),
    /// An option of generation is out of range, or at odds with another.
    #[error("{option} is {value}, but it {rule}")]
    Generation {
        /// The option at fault, by its name in [`crate::GenerationConfig`].
        option: &'static str,
        /// Its value.
        value: String,
        /// The condition that the value must satisfy.
        rule: &'static str,
    },
    /// More answers at a time than there is memory for.
    #[error(
        "{answers} answers at a time in a context of {tokens} tokens take {bytes} bytes for their keys, values and \
         logits, which there are not: lower num_beams, num_return_sequences, max_new_tokens, or ask fewer questions at once"
    )]
    AnswersTooLarge {
        /// Answers, of all prompts.
        answers: usize,
        /// Tokens of the longest prompt with its answer.
        tokens: usize,
        /// What they take; `u64::MAX` stands for anything from there on.
        bytes: u64,
    },
    /// A number that no token can be chosen by.
    #[error(
        "a {what} of token {step} of answer {sequence} is not finite: some weights are not, or are too large"
    )]
    NotFinite {
        /// What the number is.
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
    /// The GPU's error in this one, if it is one.
    pub fn gpu(&self) -> Option<&pheye_tensor::GpuError> {
        match self {
            Error::Op(e) => e.gpu(),
            Error::Tensor(e) => e.gpu(),
            _ => None,
        }
    }
}

/// An error unless there are as many as needed.
pub(crate) fn count(what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Batch { what, found, expected }) }
}
