//! Reads configurations written by transformers: each key is known to the network, or known not to affect it, or refused.
//!
//! Keys that the networks support are read, and keys that do not affect the computation are ignored. Any other key is an
//! error that names it, because ignoring it would silently compute something else. The lists below are the keys of
//! `PretrainedConfig`; [`Kind`] adds those of one kind of model.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::json::{fault, shown};
use crate::{Error, Result};

/// The keys of one kind of configuration.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Accepted values of `model_type`, if present; none for any.
    pub models: &'static [&'static str],
    /// Keys that are read elsewhere, whatever their value.
    pub read: &'static [&'static str],
    /// Keys that do not affect the computation, besides those of any configuration.
    pub inert: &'static [&'static str],
    /// Keys that must be off, besides those of any configuration: null, false, 0 or empty.
    pub off: &'static [&'static str],
}

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
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The file.
    pub path: &'a Path,
    /// Prefix of the keys in messages, such as `vision_config.`.
    pub within: &'static str,
    /// The keys with their values.
    pub keys: &'a Map<String, Value>,
}

impl<'a> Part<'a> {
    /// The keys of `value`, a JSON object in the file `path`.
    ///
    /// # Errors
    /// [`Error::Config`] when it is not an object.
    pub fn new(path: &'a Path, within: &'static str, value: &'a Value) -> Result<Part<'a>> {
        let keys = value.as_object().ok_or_else(|| {
            let what = within.strip_suffix('.').map_or("the file".to_owned(), |key| format!("`{key}`"));
            fault(path, format!("{what} must be a JSON object"))
        })?;
        Ok(Part { path, within, keys })
    }

    /// The value of a key; null counts as missing.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// The error of a key and its value, with the reason `why`.
    pub fn refused(&self, key: &str, why: &str) -> Error {
        let value = self.keys.get(key).map_or("missing".to_owned(), shown);
        fault(self.path, format!("`{}{}` is {value}: {why}", self.within, pheye_files::quoted(key)))
    }

    /// The fields of `T` that are present, except those that `kind` says are read elsewhere.
    ///
    /// # Errors
    /// [`Error::Config`] when another key is not known or not off.
    pub fn fields<T: Default + Serialize>(&self, kind: &Kind) -> Result<Map<String, Value>> {
        let known = serde_json::to_value(T::default()).unwrap_or_default();
        let known = |key: &str| known.get(key).is_some();
        self.check_but(kind, known)?;
        let own = self.keys.iter().filter(|(key, _)| known(key) && !kind.read.contains(&key.as_str()));
        Ok(own.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// Checks that all keys are those of `kind` or harmless.
    ///
    /// # Errors
    /// [`Error::Config`] when a key is not known or not off.
    pub fn check(&self, kind: &Kind) -> Result<()> {
        self.check_but(kind, |_| false)
    }

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

    /// Checks that the key is missing or has one of the values `allowed`.
    ///
    /// # Errors
    /// [`Error::Config`] with the reason `why` and the values allowed.
    pub fn one_of(&self, key: &str, allowed: &[&str], why: &str) -> Result<()> {
        match self.get(key) {
            Some(value) if !value.as_str().is_some_and(|value| allowed.contains(&value)) => {
                Err(self.refused(key, &format!("{why} ({})", allowed.join(", "))))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the key is missing or has an integer that satisfies `right`.
    ///
    /// # Errors
    /// [`Error::Config`] with the `rule` that it breaks.
    pub fn number(&self, key: &str, rule: &str, right: impl Fn(u128) -> bool) -> Result<()> {
        match self.get(key) {
            Some(value) if !value.as_u64().is_some_and(|n| right(u128::from(n))) => {
                Err(self.refused(key, rule))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a value means "off".
pub fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Object(keys) => keys.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
