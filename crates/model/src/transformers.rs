//! Reads configurations written by transformers, in the spelling of version 5 and of earlier ones.
//!
//! Keys that the networks here support are read, and keys that do not affect the computation are ignored. Any
//! other key is an error that names it, because ignoring it would silently compute something else. The lists
//! below are the keys of `PretrainedConfig`, `PhiConfig` and `CLIPConfig`.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::json::{fault, parse, shown};
use crate::{Error, Result};

/// The keys of one kind of configuration.
struct Kind {
    /// Accepted values of `model_type`, if present.
    models: &'static [&'static str],
    /// Keys that are read elsewhere, whatever their value.
    read: &'static [&'static str],
    /// Keys that do not affect the computation, besides [`INERT`].
    inert: &'static [&'static str],
    /// Keys that must be off, besides [`OFF`].
    off: &'static [&'static str],
}

const PHI: Kind = Kind {
    models: &["phi"],
    read: &[
        "hidden_act",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "partial_rotary_factor",
        "num_key_value_heads",
        "head_dim",
        "tie_word_embeddings",
    ],
    inert: &["resid_pdrop", "embd_pdrop", "attention_dropout", "initializer_range"],
    off: &["qk_layernorm"],
};
const TOWER: Kind = Kind {
    models: &["clip_vision_model", "clip"],
    read: &["num_channels"],
    inert: &[
        "projection_dim",
        "attention_dropout",
        "dropout",
        "initializer_factor",
        "initializer_range",
        "tie_word_embeddings",
    ],
    off: &[],
};
/// A complete CLIP model, of which only the vision tower's keys matter.
const CLIP: Kind = Kind {
    models: &["clip"],
    read: &["vision_config", "vision_config_dict"],
    inert: &[
        "text_config",
        "text_config_dict",
        "projection_dim",
        "logit_scale_init_value",
        "initializer_factor",
        "tie_word_embeddings",
    ],
    off: &[],
};
/// The configuration of a released Pheye, which is not a transformers class.
const PHEYE: Kind = Kind {
    models: &[],
    read: &["encoder", "decoder"],
    inert: &["tokenizer", "encoder_dtype", "decoder_dtype", "other_params_dtype"],
    off: &[],
};

/// Keys of any configuration that do not affect the computation.
const INERT: &[&str] = &[
    // Origin and runtime options.
    "model_type",
    "architectures",
    "auto_map",
    "name_or_path",
    "_name_or_path",
    "_commit_hash",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_bfloat16",
    "torchscript",
    "tf_legacy_loss",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_experts_implementation_internal",
    "gradient_checkpointing",
    "chunk_size_feed_forward",
    "use_cache",
    "return_dict",
    "return_dict_in_generate",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "is_decoder",
    // Heads and tokenizers that this network does not have.
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "task_specific_params",
    "tokenizer_class",
    "prefix",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    // Defaults of generation, which is configured elsewhere.
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "num_return_sequences",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "top_h",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "penalty_alpha",
    "repetition_penalty",
    "encoder_repetition_penalty",
    "length_penalty",
    "exponential_decay_length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "force_words_ids",
    "constraints",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "forced_decoder_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "guidance_scale",
    "renormalize_logits",
    "remove_invalid_values",
    "token_healing",
    "low_memory",
    "watermarking_config",
];

/// Keys of any configuration that must be off: null, false, 0 or empty.
const OFF: &[&str] = &[
    "pruned_heads",
    "add_cross_attention",
    "cross_attention_hidden_size",
    "is_encoder_decoder",
    "tie_encoder_decoder",
    "quantization_config",
    "per_layer_config",
];

/// A configuration, or a part of one.
struct Part<'a> {
    path: &'a Path,
    /// Prefix of the keys in messages, such as `vision_config.`.
    within: &'static str,
    keys: &'a Map<String, Value>,
}

/// A Phi configuration.
pub(crate) struct Text {
    pub(crate) config: pheye_phi::Config,
    /// Whether the output head shares the embedding matrix.
    pub(crate) tied: bool,
}

/// The Phi configuration `value` of the file `path`.
///
/// # Errors
/// [`Error::Config`] when a key is invalid; the error names it.
pub(crate) fn text(path: &Path, value: &Value) -> Result<Text> {
    let part = Part::new(path, "", value)?;
    let mut sizes = part.of::<pheye_phi::Config>(&PHI)?;
    part.one_of(
        "hidden_act",
        &["gelu_new", "gelu_pytorch_tanh"],
        "what this network has is the tanh form of GELU",
    )?;
    sizes.extend(part.rope()?);
    let config: pheye_phi::Config = parse(path, "", Value::Object(sizes))?;
    let [heads, width] = [config.num_attention_heads, config.hidden_size].map(|n| n as u128);
    part.number("num_key_value_heads", "it must be the number of attention heads", |n| n == heads)?;
    part.number("head_dim", "it must be hidden_size / num_attention_heads", |n| n * heads == width)?;
    let tied = match part.get("tie_word_embeddings") {
        None => false,
        Some(Value::Bool(tied)) => *tied,
        Some(_) => return Err(part.refused("tie_word_embeddings", "it must be true or false")),
    };
    Ok(Text { config, tied })
}

/// The vision tower of the CLIP configuration `value` of the file `path`, which describes a complete CLIP
/// model or only its tower.
///
/// # Errors
/// [`Error::Config`] when a key is invalid; the error names it.
pub(crate) fn tower(path: &Path, value: &Value) -> Result<pheye_vit::Config> {
    let whole = Part::new(path, "", value)?;
    if whole.get("vision_config").is_none() && whole.keys.get("model_type") != Some(&json!("clip")) {
        return tower_part(&whole);
    }
    whole.check(&CLIP)?;
    let Some(vision) = whole.get("vision_config") else {
        return Err(fault(path, "`vision_config` is missing".to_owned()));
    };
    let config = tower_part(&Part::new(path, "vision_config.", vision)?)?;
    // If an older file has both, transformers uses the second.
    if let Some(vision) = whole.get("vision_config_dict")
        && tower_part(&Part::new(path, "vision_config_dict.", vision)?)? != config
    {
        return Err(whole.refused("vision_config_dict", "`vision_config` says otherwise"));
    }
    Ok(config)
}

fn tower_part(part: &Part) -> Result<pheye_vit::Config> {
    let sizes = part.of::<pheye_vit::Config>(&TOWER)?;
    part.number("num_channels", "images have 3", |n| n == 3)?;
    parse(part.path, part.within, Value::Object(sizes))
}

/// The connector of the released configuration `value` of the file `path`.
///
/// # Errors
/// [`Error::Config`] when a key is invalid; the error names it.
pub(crate) fn connector(path: &Path, value: &Value) -> Result<pheye_xattn::Config> {
    let part = Part::new(path, "", value)?;
    let mut keys = part.of::<pheye_xattn::Config>(&PHEYE)?;
    // Released configurations without the key predate adapters on the global image.
    keys.entry("first_level").or_insert(json!(false));
    parse(path, "", Value::Object(keys))
}

impl<'a> Part<'a> {
    fn new(path: &'a Path, within: &'static str, value: &'a Value) -> Result<Part<'a>> {
        let keys = value.as_object().ok_or_else(|| {
            let what = within.strip_suffix('.').map_or("the file".to_owned(), |key| format!("`{key}`"));
            fault(path, format!("{what} must be a JSON object"))
        })?;
        Ok(Part { path, within, keys })
    }

    /// The value of a key; null counts as missing.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn refused(&self, key: &str, why: &str) -> Error {
        let value = self.keys.get(key).map_or("missing".to_owned(), shown);
        fault(self.path, format!("`{}{}` is {value}: {why}", self.within, pheye_files::quoted(key)))
    }

    /// The fields of `T` that are present, after checking that all other keys are harmless.
    fn of<T: Default + Serialize>(&self, kind: &Kind) -> Result<Map<String, Value>> {
        let known = serde_json::to_value(T::default()).unwrap_or_default();
        let known = |key: &str| known.get(key).is_some();
        self.check_but(kind, known)?;
        // The rotary keys are read by `rope`, because they may be in two places.
        let own = self.keys.iter().filter(|(key, _)| known(key) && !kind.read.contains(&key.as_str()));
        Ok(own.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn check(&self, kind: &Kind) -> Result<()> {
        self.check_but(kind, |_| false)
    }

    /// Returns an error unless every key is known, one of `kind`, or harmless.
    fn check_but(&self, kind: &Kind, known: impl Fn(&str) -> bool) -> Result<()> {
        if !kind.models.is_empty() {
            self.one_of("model_type", kind.models, "this backbone is of another kind")?;
        }
        for (key, value) in self.keys {
            let name = key.as_str();
            let among = |lists: [&[&str]; 2]| lists.iter().any(|list| list.contains(&name));
            if known(name) || kind.read.contains(&name) || among([kind.inert, INERT]) || value.is_null() {
                continue;
            }
            if !among([kind.off, OFF]) {
                return Err(
                    self.refused(key, "this key is not known, and may change what the network computes")
                );
            }
            if !is_off(value) {
                return Err(self.refused(key, "this network has no such thing, so it must be off"));
            }
        }
        Ok(())
    }

    /// Returns an error unless the key is missing or has one of the values `allowed`.
    fn one_of(&self, key: &str, allowed: &[&str], why: &str) -> Result<()> {
        match self.get(key) {
            Some(value) if !value.as_str().is_some_and(|value| allowed.contains(&value)) => {
                Err(self.refused(key, &format!("{why} ({})", allowed.join(", "))))
            }
            _ => Ok(()),
        }
    }

    /// Returns an error unless the key is missing or has a number that satisfies `right`.
    fn number(&self, key: &str, rule: &str, right: impl Fn(u128) -> bool) -> Result<()> {
        match self.get(key) {
            Some(value) if !value.as_u64().is_some_and(|n| right(u128::from(n))) => {
                Err(self.refused(key, rule))
            }
            _ => Ok(()),
        }
    }

    /// The rotary keys as in [`pheye_phi::Config`]. `rope_parameters` takes precedence over the keys next to
    /// it, as in transformers 5, which writes defaults there.
    fn rope(&self) -> Result<Map<String, Value>> {
        let dict = |key: &'static str| self.get(key).filter(|value| !is_off(value)).map(|value| (key, value));
        let (within, value) = match (dict("rope_parameters"), dict("rope_scaling")) {
            (Some((_, a)), Some((_, b))) if a != b => {
                return Err(self.refused("rope_scaling", "`rope_parameters` says otherwise"));
            }
            (Some(new), _) => new,
            (None, old) => old.unwrap_or(("rope_parameters", &Value::Null)),
        };
        let (empty, within) =
            (Map::new(), if within == "rope_scaling" { "rope_scaling." } else { "rope_parameters." });
        let nested = match value {
            Value::Null => Part { path: self.path, within, keys: &empty },
            value => Part::new(self.path, within, value)?,
        };
        let mut keys = Map::new();
        for key in ["rope_theta", "partial_rotary_factor"] {
            let value = nested.get(key).or(self.get(key));
            keys.extend(value.map(|value| (key.to_owned(), value.clone())));
        }
        keys.insert("rope_factor".to_owned(), nested.rope_factor()?);
        Ok(keys)
    }

    /// The divisor of positions, from the nested rotary keys.
    fn rope_factor(&self) -> Result<Value> {
        const KEYS: [&str; 5] = ["rope_type", "type", "factor", "rope_theta", "partial_rotary_factor"];
        const KINDS: [&str; 2] = ["default", "linear"];
        for key in ["rope_type", "type"] {
            self.one_of(key, &KINDS, "this network has no other rotary positions")?;
        }
        if let (Some(new), Some(old)) = (self.get("rope_type"), self.get("type"))
            && new != old
        {
            return Err(self.refused("type", "`rope_type` says otherwise"));
        }
        let other = self.keys.iter().find(|(key, value)| !KEYS.contains(&key.as_str()) && !value.is_null());
        if let Some((key, _)) = other {
            return Err(self.refused(key, "this key is not known, and may change what the network computes"));
        }
        let linear = self.get("rope_type").or(self.get("type")) == Some(&json!("linear"));
        match (linear, self.get("factor").map(Value::as_f64)) {
            (false, None) => Ok(json!(1)),
            (true, Some(Some(factor))) if factor > 0.0 => Ok(json!(factor)),
            (true, _) => Err(self.refused("factor", "it must be a positive number")),
            (false, _) => {
                Err(self.refused("factor", "it belongs to scaled positions, and these are not `linear`"))
            }
        }
    }
}

/// Whether a value means "off".
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Object(keys) => keys.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
