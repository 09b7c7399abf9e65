//! The keys of Phi's, CLIP's and Pheye's own configurations, in the spelling of transformers 5 and of earlier versions.
//!
//! The lists below are the keys of `PhiConfig` and `CLIPConfig`; those of any configuration are in
//! [`pheye_weights::transformers`].

use std::path::Path;

use pheye_weights::json::parse;
use pheye_weights::transformers::{Kind, Part, is_off};
use serde_json::{Map, Value, json};

use crate::Result;
use crate::json::fault;

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

/// A Phi configuration.
pub(crate) struct Text {
    pub(crate) config: pheye_phi::Config,
    /// Whether the output head shares the embedding matrix.
    pub(crate) tied: bool,
}

/// The Phi configuration `value` of the file `path`.
///
/// # Errors
/// When a key is invalid; the error names it.
pub(crate) fn text(path: &Path, value: &Value) -> Result<Text> {
    let part = Part::new(path, "", value)?;
    let mut sizes = part.fields::<pheye_phi::Config>(&PHI)?;
    part.one_of(
        "hidden_act",
        &["gelu_new", "gelu_pytorch_tanh"],
        "what this network has is the tanh form of GELU",
    )?;
    sizes.extend(rope(&part)?);
    let config: pheye_phi::Config = parse(path, "", Value::Object(sizes))?;
    let [heads, width] = [config.num_attention_heads, config.hidden_size].map(|n| n as u128);
    part.number("num_key_value_heads", "it must be the number of attention heads", |n| n == heads)?;
    part.number("head_dim", "it must be hidden_size / num_attention_heads", |n| n * heads == width)?;
    let tied = match part.get("tie_word_embeddings") {
        None => false,
        Some(Value::Bool(tied)) => *tied,
        Some(_) => return Err(part.refused("tie_word_embeddings", "it must be true or false").into()),
    };
    Ok(Text { config, tied })
}

/// The vision tower of the CLIP configuration `value` of the file `path`, which describes a complete CLIP
/// model or only its tower.
///
/// # Errors
/// When a key is invalid; the error names it.
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
        return Err(whole.refused("vision_config_dict", "`vision_config` says otherwise").into());
    }
    Ok(config)
}

/// The configuration `value` of a vision tower alone, from the file `path`; `within` is put before its keys in messages.
///
/// # Errors
/// When a key is invalid, not known, or asks for something that this network does not compute; the error names it.
pub fn vision_config(path: &Path, within: &'static str, value: &Value) -> Result<pheye_vit::Config> {
    tower_part(&Part::new(path, within, value)?)
}

fn tower_part(part: &Part) -> Result<pheye_vit::Config> {
    let sizes = part.fields::<pheye_vit::Config>(&TOWER)?;
    part.number("num_channels", "images have 3", |n| n == 3)?;
    Ok(parse(part.path, part.within, Value::Object(sizes))?)
}

/// The connector of the released configuration `value` of the file `path`.
///
/// # Errors
/// When a key is invalid; the error names it.
pub(crate) fn connector(path: &Path, value: &Value) -> Result<pheye_xattn::Config> {
    let part = Part::new(path, "", value)?;
    let mut keys = part.fields::<pheye_xattn::Config>(&PHEYE)?;
    // Released configurations without the key predate adapters on the global image.
    keys.entry("first_level").or_insert(json!(false));
    Ok(parse(path, "", Value::Object(keys))?)
}

/// The rotary keys as in [`pheye_phi::Config`]. `rope_parameters` takes precedence over the keys next to
/// it, as in transformers 5, which writes defaults there.
fn rope(part: &Part) -> pheye_weights::Result<Map<String, Value>> {
    let dict = |key: &'static str| part.get(key).filter(|value| !is_off(value)).map(|value| (key, value));
    let (within, value) = match (dict("rope_parameters"), dict("rope_scaling")) {
        (Some((_, a)), Some((_, b))) if a != b => {
            return Err(part.refused("rope_scaling", "`rope_parameters` says otherwise"));
        }
        (Some(new), _) => new,
        (None, old) => old.unwrap_or(("rope_parameters", &Value::Null)),
    };
    let (empty, within) =
        (Map::new(), if within == "rope_scaling" { "rope_scaling." } else { "rope_parameters." });
    let nested = match value {
        Value::Null => Part { path: part.path, within, keys: &empty },
        value => Part::new(part.path, within, value)?,
    };
    let mut keys = Map::new();
    for key in ["rope_theta", "partial_rotary_factor"] {
        let value = nested.get(key).or(part.get(key));
        keys.extend(value.map(|value| (key.to_owned(), value.clone())));
    }
    keys.insert("rope_factor".to_owned(), rope_factor(&nested)?);
    Ok(keys)
}

/// The divisor of positions, from the nested rotary keys.
fn rope_factor(part: &Part) -> pheye_weights::Result<Value> {
    const KEYS: [&str; 5] = ["rope_type", "type", "factor", "rope_theta", "partial_rotary_factor"];
    const KINDS: [&str; 2] = ["default", "linear"];
    for key in ["rope_type", "type"] {
        part.one_of(key, &KINDS, "this network has no other rotary positions")?;
    }
    if let (Some(new), Some(old)) = (part.get("rope_type"), part.get("type"))
        && new != old
    {
        return Err(part.refused("type", "`rope_type` says otherwise"));
    }
    let other = part.keys.iter().find(|(key, value)| !KEYS.contains(&key.as_str()) && !value.is_null());
    if let Some((key, _)) = other {
        return Err(part.refused(key, "this key is not known, and may change what the network computes"));
    }
    let linear = part.get("rope_type").or(part.get("type")) == Some(&json!("linear"));
    match (linear, part.get("factor").map(Value::as_f64)) {
        (false, None) => Ok(json!(1)),
        (true, Some(Some(factor))) if factor > 0.0 => Ok(json!(factor)),
        (true, _) => Err(part.refused("factor", "it must be a positive number")),
        (false, _) => {
            Err(part.refused("factor", "it belongs to scaled positions, and these are not `linear`"))
        }
    }
}
