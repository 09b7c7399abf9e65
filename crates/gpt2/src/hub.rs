//! Published GPT-2 folders: the keys of `config.json`, and where a file of weights has each parameter.
//!
//! The linears of GPT-2 are `Conv1D`, whose weight is stored as [in, out], and `c_attn` is those of q, k and v as one
//! matrix [d, 3 d]. Names have one of four prefixes, by the class that saved them.

use std::collections::BTreeMap;
use std::path::Path;

use pheye_tensor::{DType, Scope};
use pheye_weights::json::{parse, read_json};
use pheye_weights::transformers::{Kind, Part};
use pheye_weights::{
    Checkpoint, CheckpointSource, FOLDER_FILES, NameMap, Stored, atomic_write, first_in, save_stored,
};
use serde::Serialize;
use serde_json::Value;

use crate::{Config, Error, Gpt2, Result};

/// The name of the configuration in a folder.
const CONFIG_FILE: &str = "config.json";
/// The scope of a model that is loaded alone.
const SCOPE: &str = "transformer";
/// The prefixes of the names in published files; the first two are those of an encoder-decoder, such as SmallCap.
const PREFIXES: [&str; 4] = ["decoder.transformer.", "decoder.", "transformer.", ""];
/// The parts of `c_attn` in the names of the network, in the order of their rows.
const PARTS: [&str; 3] = [".c_attn.q.", ".c_attn.k.", ".c_attn.v."];

/// The keys of `GPT2Config`.
const GPT2: Kind = Kind {
    models: &["gpt2"],
    read: &[
        "activation_function",
        "scale_attn_weights",
        "tie_word_embeddings",
        "max_position_embeddings",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
    ],
    inert: &[
        // The size of the stored causal mask. The context is n_positions.
        "n_ctx",
        "attn_pdrop",
        "embd_pdrop",
        "resid_pdrop",
        "initializer_range",
        // The classification head.
        "summary_type",
        "summary_use_proj",
        "summary_activation",
        "summary_proj_to_labels",
        "summary_first_dropout",
        "_num_labels",
        // Options of early versions of transformers.
        "output_past",
        "predict_special_tokens",
    ],
    off: &["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "n_special"],
};

impl Config {
    /// The configuration in `folder/config.json`.
    ///
    /// # Errors
    /// When the file cannot be read, and the errors of [`Config::from_transformers`].
    pub fn load(folder: &Path) -> Result<Config> {
        let path = folder.join(CONFIG_FILE);
        Config::from_transformers(&path, "", &read_json(&path)?)
    }

    /// The configuration `value` of the file `path`, in the form of transformers; `within` is put before its keys in
    /// messages.
    ///
    /// # Errors
    /// [`pheye_weights::Error::Config`] when a key is invalid, not known, or asks for something that this network does
    /// not compute; the error names it.
    pub fn from_transformers(path: &Path, within: &'static str, value: &Value) -> Result<Config> {
        let part = Part::new(path, within, value)?;
        let sizes = part.fields::<Config>(&GPT2)?;
        let activations = ["gelu_new", "gelu_pytorch_tanh"];
        part.one_of("activation_function", &activations, "what this network has is the tanh form of GELU")?;
        for (key, why) in [
            (
                "scale_attn_weights",
                "this network divides the scores by √(width of a head), so it must be true",
            ),
            (
                "tie_word_embeddings",
                "the output head of this network is the token embedding, so it must be true",
            ),
        ] {
            if part.get(key).is_some_and(|value| *value != Value::Bool(true)) {
                return Err(part.refused(key, why).into());
            }
        }
        let config: Config = parse(path, within, Value::Object(sizes))?;
        // Transformers' other names of the sizes.
        for (key, rule, own) in [
            ("max_position_embeddings", "it must be n_positions", config.n_positions),
            ("hidden_size", "it must be n_embd", config.n_embd),
            ("num_hidden_layers", "it must be n_layer", config.n_layer),
            ("num_attention_heads", "it must be n_head", config.n_head),
        ] {
            part.number(key, rule, |n| n == own as u128)?;
        }
        let in_file = |e: Error| pheye_weights::Error::Config { path: path.into(), why: e.to_string() };
        config.validate().map_err(in_file)?;
        Ok(config)
    }
}

/// Where a file has the parameter that the network calls `name`.
///
/// ```
/// use pheye_gpt2::hub::stored;
///
/// let k = stored("transformer.h.0.attn.c_attn.k.weight");
/// assert_eq!((k.tensor.as_str(), k.chunk, k.chunks), ("transformer.h.0.attn.c_attn.weight", 1, 3));
/// assert!(k.transposed && !stored("transformer.h.0.ln_1.weight").transposed);
/// ```
pub fn stored(name: &str) -> Stored {
    const CONV1D: [&str; 3] = [".c_attn.weight", ".c_proj.weight", ".c_fc.weight"];
    let (tensor, chunk, chunks) = match PARTS.iter().position(|part| name.contains(part)) {
        Some(chunk) => (name.replace(PARTS[chunk], ".c_attn."), chunk, PARTS.len()),
        None => (name.to_owned(), 0, 1),
    };
    let transposed = CONV1D.iter().any(|end| tensor.ends_with(end));
    Stored { tensor, transposed, chunk, chunks }
}

/// The map to the names in `checkpoint` for a network at the scope `ours`.
pub fn names(checkpoint: &Checkpoint, ours: &str) -> NameMap {
    let found = PREFIXES.iter().find(|prefix| checkpoint.has_prefix(&format!("{prefix}wte.")));
    let ours = if ours.is_empty() { String::new() } else { format!("{ours}.") };
    found.map_or(NameMap::default(), |theirs| NameMap::default().prefix(&ours, theirs))
}

/// Whether a tensor of this name in a published file is no parameter of the network: the causal mask that older versions
/// of transformers store in each layer, and the output head, which is the token embedding.
pub fn is_passed_over(name: &str) -> bool {
    let ends = |end: &str| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    ends("attn.bias") || ends("attn.masked_bias") || ends("lm_head.weight")
}

/// The tensors of `checkpoint` for a network at the scope `ours`. `dtype` is as in [`CheckpointSource::new`].
pub fn source<'a>(
    checkpoint: &'a Checkpoint,
    ours: &str,
    dtype: impl Fn(&str) -> DType + 'a,
) -> CheckpointSource<'a> {
    let source = CheckpointSource::new(checkpoint, dtype).stored(stored);
    source.names(names(checkpoint, ours)).allow_unused(is_passed_over)
}

/// `config.json` as it is written.
#[derive(Serialize)]
struct Saved<'a> {
    architectures: [&'static str; 1],
    model_type: &'static str,
    activation_function: &'static str,
    #[serde(flatten)]
    config: &'a Config,
}

impl Gpt2 {
    /// The model in `folder`, which has a `config.json` and the weights as safetensors or as a torch zip, in one file or
    /// in shards. Weights are f32 or bf16, as `dtype` says, and frozen.
    ///
    /// # Errors
    /// When a file is missing or invalid, or the weights do not fit the configuration; all mismatches are reported
    /// together.
    pub fn load(folder: impl AsRef<Path>, dtype: DType) -> Result<Gpt2> {
        let folder = folder.as_ref();
        let config = Config::load(folder)?;
        let missing = || Error::NoWeights { path: folder.into(), looked_for: FOLDER_FILES };
        let checkpoint = Checkpoint::open(first_in(folder, FOLDER_FILES).ok_or_else(missing)?)?;
        let mut source = source(&checkpoint, SCOPE, |_| dtype);
        let gpt2 = Gpt2::new(&mut Scope::new(&mut source, SCOPE), &config)?;
        source.finish()?;
        Ok(gpt2)
    }

    /// Writes `config.json` and `model.safetensors` to `folder`, as transformers reads them. Each file is replaced only
    /// when its new version is complete.
    ///
    /// # Errors
    /// When writing fails, for example because the disk is full.
    pub fn save(&mut self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let failed = |source| pheye_weights::Error::Write { path: folder.into(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let config = Saved {
            architectures: ["GPT2LMHeadModel"],
            model_type: "gpt2",
            activation_function: "gelu_new",
            config: &self.config,
        };
        let text = serde_json::to_string_pretty(&config).map_err(|e| failed(e.into()))?;
        let params = self.params_mut();
        let tensors = params.iter().map(|p| (stored(&p.name), &p.value));
        // Transformers refuses a file without this.
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        save_stored(folder.join(FOLDER_FILES[0]), tensors, &metadata)?;
        Ok(atomic_write(folder.join(CONFIG_FILE), |file| writeln!(file, "{text}"))?)
    }
}
