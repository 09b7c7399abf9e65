//! LoRA adapters in the folders of PEFT's `save_pretrained`: `adapter_config.json` and
//! `adapter_model.safetensors`.

use std::path::Path;

use pheye_vit::AdapterSpec;
use pheye_weights::json::{read_json, shown};
use pheye_weights::{Checkpoint, NameMap, first_in};
use serde_json::{Value, json};

use crate::json::decimal;
use crate::pheye::VIT_PREFIX;
use crate::{Error, LoraSet, LoraSpec, Result};

pub(crate) const CONFIG: &str = "adapter_config.json";
/// File name without its extension.
pub(crate) const STEM: &str = "adapter_model";
const WEIGHTS: &[&str] = &["adapter_model.safetensors", "adapter_model.bin"];

/// Prefix of a tower module's name in PEFT.
const PREFIX: &str = "base_model.model";
/// The prefix when the adapters belong to a complete `CLIPVisionModel` rather than its inner transformer.
const WHOLE_PREFIX: &str = "base_model.model.vision_model";

/// The modules that Pheye adapts, by the last part of their names.
const MODULES: [&str; 7] = ["fc1", "fc2", "k_proj", "out_proj", "patch_embedding", "q_proj", "v_proj"];

/// An opened adapter folder.
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) checkpoint: Checkpoint,
    /// Maps our names to the file's.
    pub(crate) names: NameMap,
    pub(crate) spec: LoraSpec,
}

/// Maps our names to PEFT's, which omit the adapter's name.
pub(crate) fn names(set: LoraSet) -> NameMap {
    map(set, PREFIX)
}

fn map(set: LoraSet, prefix: &str) -> NameMap {
    NameMap::default()
        .prefix(&format!("{VIT_PREFIX}."), &format!("{prefix}."))
        .drop(&format!(".{}", set.adapter()))
}

impl Adapter {
    /// Opens the adapter in `folder` as the LoRA set `set` of the model.
    pub(crate) fn open(folder: &Path, set: LoraSet) -> Result<Adapter> {
        let spec = spec(&folder.join(CONFIG))?;
        let file = first_in(folder, WEIGHTS)
            .ok_or_else(|| Error::NoBackbone { path: folder.into(), looked_for: WEIGHTS })?;
        let checkpoint = Checkpoint::open(file)?;
        let whole = checkpoint.names().any(|name| name.starts_with(&format!("{WHOLE_PREFIX}.")));
        let names = map(set, if whole { WHOLE_PREFIX } else { PREFIX });
        Ok(Adapter { checkpoint, names, spec })
    }
}

/// The first key that changes what an adapter computes in a way that Pheye does not support, with the
/// condition that it violates.
fn unsupported(config: &Value) -> Option<(&'static str, &'static str)> {
    let empty = |v: &Value| {
        v.is_null()
            || *v == json!(false)
            || v.as_object().is_some_and(serde_json::Map::is_empty)
            || v.as_array().is_some_and(Vec::is_empty)
    };
    let off = [
        "use_rslora",
        "use_dora",
        "fan_in_fan_out",
        "lora_bias",
        "rank_pattern",
        "alpha_pattern",
        "modules_to_save",
        "layer_replication",
        "trainable_token_indices",
        "use_qalora",
        "target_parameters",
        "arrow_config",
        "alora_invocation_tokens",
    ];
    let set = off.into_iter().find(|key| config.get(key).is_some_and(|v| !empty(v)));
    if let Some(key) = set {
        return Some((key, "it must be off: Pheye's adapters are plain LoRA, α / r everywhere"));
    }
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    if text("bias").is_some_and(|bias| bias != "none") {
        return Some(("bias", "it must be `none`: the tower's biases are frozen"));
    }
    // All other values change the base weights as well.
    match text("init_lora_weights") {
        None | Some("gaussian" | "orthogonal" | "eva") => None,
        Some(_) => Some(("init_lora_weights", "it must leave the base weights as they are")),
    }
}

/// Rank and α of an `adapter_config.json`.
fn spec(path: &Path) -> Result<LoraSpec> {
    let config = read_json(path)?;
    let fault = |key: &str, rule: &str| {
        let found = config.get(key).map_or("missing".to_owned(), shown);
        Error::Config { path: path.into(), why: format!("`{key}` is {found}, but {rule}") }
    };
    if config.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        return Err(fault("peft_type", "it must be \"LORA\""));
    }
    if let Some((key, rule)) = unsupported(&config) {
        return Err(fault(key, rule));
    }
    let rank = config.get("r").and_then(Value::as_u64).filter(|r| (1..=AdapterSpec::MOST as u64).contains(r));
    let rank = rank.ok_or_else(|| fault("r", "it must be an integer from 1 to 65536"))? as usize;
    let alpha = config.get("lora_alpha").and_then(Value::as_f64).filter(|a| (*a as f32).is_finite());
    let alpha = alpha.ok_or_else(|| fault("lora_alpha", "it must be a finite number"))? as f32;
    // α = 2r is represented by omitting α.
    Ok(LoraSpec { rank, alpha: (alpha != 2.0 * rank as f32).then_some(alpha) })
}

/// The `adapter_config.json` of a set.
pub(crate) fn config(spec: LoraSpec, base: Option<&str>) -> Value {
    let alpha = spec.alpha.unwrap_or(2.0 * spec.rank as f32);
    // PEFT expects an integer if α is one.
    let alpha = if alpha.fract() == 0.0 { json!(alpha as i64) } else { decimal(alpha) };
    json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": base,
        "inference_mode": true,
        "r": spec.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": MODULES,
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "modules_to_save": null,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": false,
    })
}
