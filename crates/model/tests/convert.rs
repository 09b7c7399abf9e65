//! Converts models to shards, PEFT adapters and plain towers. The adapters in `data/peft` were written by
//! PEFT.

mod common;
#[path = "../../weights/tests/common/torch.rs"]
mod torch;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{config, lively, relative, values};
use pheye_model::{Cast, Conversion, LoraSet, Options, Output, Pheye, names};
use pheye_ops::Cx;
use pheye_ops::lora::{Route, RowRange};
use pheye_tensor::{DType, Scope, Tensor};
use pheye_vit::{AdapterSpec, Vit};
use pheye_weights::{Checkpoint, StoredDType, save_safetensors};
use serde_json::{Value, json};

const TOWER: &str = "vision_encoder.vision_model.base_model.model";

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case)
}

fn peft(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/peft").join(name)
}

fn open(folder: &Path, lora: [Option<&Path>; 2]) -> Result<Conversion, String> {
    Conversion::open(folder, &|_| None, lora).map_err(|e| e.to_string())
}

fn output(folder: &Path) -> Output<'_> {
    Output { folder, keep: Cast::Stored, shard_size: u64::MAX }
}

fn save(model: &Conversion, to: &Output) {
    model.save_weights(to, &mut |_, _| ()).unwrap();
    model.save_config(to.folder).unwrap();
}

/// Names and bits of all parameters.
fn bits(folder: &Path) -> Vec<(String, Vec<u32>)> {
    let mut model = Pheye::load(folder, Options::default()).unwrap();
    let params = model.params_mut().into_iter();
    params.map(|p| (p.name.clone(), values(&p.value).into_iter().map(f32::to_bits).collect())).collect()
}

/// The last hidden state of a tower for `pixels`: of the model in `folder` with a LoRA set, or of a plain
/// tower.
fn hidden(folder: &Path, set: Option<LoraSet>, vision: &pheye_vit::Config, pixels: &Tensor) -> Vec<f32> {
    let checkpoint = Checkpoint::open(folder.join("model.safetensors")).unwrap();
    let map = names::of_vision(&checkpoint);
    let spec = |set: LoraSet, c: &pheye_model::Config| AdapterSpec {
        name: set.adapter().to_owned(),
        rank: c.lora(set).rank,
        alpha: c.lora(set).alpha,
    };
    let adapter = set.map(|set| spec(set, &pheye_model::Config::load(folder).unwrap()));
    let mut source = names::source(&checkpoint, |_| DType::F32).names(map).allow_unused(|_| set.is_some());
    let vit = Vit::new(&mut Scope::new(&mut source, TOWER), vision, &[adapter]).unwrap();
    source.finish().unwrap();
    let tiles = pixels.shape().dims()[0];
    let range = RowRange { rows: 0..tiles, adapter: set.map(|_| 0) };
    values(&vit.infer(&Cx::cpu(), pixels, &Route { ranges: vec![range], dropout: None }).unwrap())
}

#[test]
fn a_conversion_holds_what_loading_and_saving_does() {
    for case in ["level1", "x2-level2", "x4-level3"] {
        let temp = tempfile::tempdir().unwrap();
        let (saved, one, many) = (temp.path().join("s"), temp.path().join("one"), temp.path().join("many"));
        Pheye::load(&golden(case), Options::default()).unwrap().save(&saved).unwrap();
        let model = open(&golden(case), [None, None]).unwrap();
        save(&model, &output(&one));
        let shards = Output { shard_size: 200_000, ..output(&many) };
        let written = model.save_weights(&shards, &mut |_, _| ()).unwrap();
        assert!(!many.join("pheye.json").exists());
        model.save_config(&many).unwrap();
        for name in ["pheye.json", "model.safetensors"] {
            assert!(
                fs::read(one.join(name)).unwrap() == fs::read(saved.join(name)).unwrap(),
                "{case} {name}"
            );
        }
        // The released file contains each decoder layer twice; only one copy is written.
        let copies = Checkpoint::open(golden(case).join("checkpoint.pt")).unwrap();
        assert!(copies.names().any(|n| n.contains(".decoder_layer.")), "{case}");
        let index = Checkpoint::open(many.join("model.safetensors.index.json")).unwrap();
        assert!(!index.names().any(|n| n.contains(".decoder_layer.")), "{case}");
        assert!(written.files.len() > 3, "{case}: {}", written.files.len());
        assert!(bits(&many) == bits(&saved), "{case}");
        // A sharded model can be converted again.
        let again = temp.path().join("again");
        save(&open(&many, [None, None]).unwrap(), &output(&again));
        assert!(bits(&again) == bits(&saved), "{case}");
    }
}

#[test]
fn elements_keep_their_type_unless_told() {
    let temp = tempfile::tempdir().unwrap();
    let (from, half) = (temp.path().join("from"), temp.path().join("half"));
    lively(&config()).save(&from).unwrap();
    let types = |folder: &Path| {
        let checkpoint = Checkpoint::open(folder.join("model.safetensors")).unwrap();
        let info = checkpoint.names().map(|n| (n.to_owned(), checkpoint.info(n).unwrap().1));
        info.collect::<BTreeMap<_, _>>()
    };
    save(&open(&from, [None, None]).unwrap(), &Output { keep: Cast::FrozenBf16, ..output(&half) });
    let mixed = types(&half);
    assert!(mixed.iter().all(|(n, t)| (*t == StoredDType::Bf16) != Pheye::is_pheye_param(n)));
    let kept = temp.path().join("kept");
    save(&open(&half, [None, None]).unwrap(), &output(&kept));
    assert_eq!(types(&kept), mixed);
    for (name, dtype, stored) in
        [("all16", DType::Bf16, StoredDType::Bf16), ("all32", DType::F32, StoredDType::F32)]
    {
        let to = temp.path().join(name);
        save(&open(&half, [None, None]).unwrap(), &Output { keep: Cast::All(dtype), ..output(&to) });
        assert!(types(&to).values().all(|t| *t == stored), "{name}");
    }
    // The rounding is the same as when loading.
    let mut rounded = Pheye::load(&from, Options::BF16).unwrap();
    rounded.save(&temp.path().join("rounded")).unwrap();
    assert!(bits(&temp.path().join("rounded")) == bits(&temp.path().join("all16")));
}

#[test]
fn peft_computes_the_same_with_its_adapters() {
    let temp = tempfile::tempdir().unwrap();
    let out = Checkpoint::open(peft("out.safetensors")).unwrap();
    let pixels = out.tensor("pixels", DType::F32).unwrap();
    let theirs = |name: &str| values(&out.tensor(name, DType::F32).unwrap());
    let vision = pheye_model::Config::load(&golden("level1")).unwrap().vision;
    for (name, rank, alpha) in [("first", 3, Some(5.0)), ("second", 2, None)] {
        let model = open(&golden("level1"), [Some(&peft(name)), None]).unwrap();
        let spec = model.config().lora_global;
        assert_eq!((spec.rank, spec.alpha), (rank, alpha));
        let (whole, merged) = (temp.path().join(name), temp.path().join(format!("{name}-merged")));
        save(&model, &output(&whole));
        model.merge_lora(LoraSet::Global, &output(&merged), &mut |_, _| ()).unwrap();
        let routed = hidden(&whole, Some(LoraSet::Global), &vision, &pixels);
        let plain = hidden(&merged, None, &vision, &pixels);
        assert!(relative(&routed, &theirs(name)) < 1e-5, "{}", relative(&routed, &theirs(name)));
        assert!(relative(&plain, &theirs(name)) < 1e-5, "{}", relative(&plain, &theirs(name)));
        // The adapter has an effect.
        assert!(relative(&theirs("plain"), &theirs(name)) > 1e-2);
        // Extracting gives back the adapter that was imported.
        let extracted = temp.path().join(format!("{name}-extracted"));
        model.extract_lora(LoraSet::Global, &output(&extracted), &mut |_, _| ()).unwrap();
        let file = |folder: &Path| Checkpoint::open(folder.join("adapter_model.safetensors")).unwrap();
        let (ours, pefts) = (file(&extracted), file(&peft(name)));
        assert!(ours.names().eq(pefts.names()));
        assert!(ours.names().all(|n| ours.f64s(n).unwrap() == pefts.f64s(n).unwrap()));
        assert_eq!(ours.metadata()["format"], "pt");
        let json = |folder: &Path| -> Value {
            serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
        };
        let (mut ours, mut pefts) = (json(&extracted), json(&peft(name)));
        for config in [&mut ours, &mut pefts] {
            let modules = config["target_modules"].as_array_mut().unwrap();
            modules.sort_by_key(Value::to_string);
        }
        for (key, value) in ours.as_object().unwrap() {
            let different = ["base_model_name_or_path", "lora_dropout"].contains(&key.as_str());
            assert!(different || *value == pefts[key], "{key}");
        }
        assert_eq!(ours["base_model_name_or_path"], "encoder");
    }
}

#[test]
fn both_sets_leave_and_come_back_and_each_merges() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    lively(&config()).save(&at("from")).unwrap();
    let model = open(&at("from"), [None, None]).unwrap();
    for set in LoraSet::ALL {
        model.extract_lora(set, &output(&at(set.adapter())), &mut |_, _| ()).unwrap();
    }
    // Imported into a model with other adapters.
    let mut other = lively(&config());
    for p in other.params_mut() {
        if p.name.contains(".lora_") {
            p.value.f32_mut().unwrap().fill(0.25);
        }
    }
    other.save(&at("other")).unwrap();
    let joined = open(&at("other"), [Some(&at("first")), Some(&at("second"))]).unwrap();
    save(&joined, &output(&at("back")));
    for name in ["pheye.json", "model.safetensors"] {
        assert!(fs::read(at("back").join(name)).unwrap() == fs::read(at("from").join(name)).unwrap());
    }

    let vision = config().vision;
    let pixels = common::pixels(&config(), 1, 9);
    let plain = |name: &str| hidden(&at(name), None, &vision, &pixels);
    for set in LoraSet::ALL {
        let merged = format!("merged-{set}");
        model.merge_lora(set, &output(&at(&merged)), &mut |_, _| ()).unwrap();
        let routed = hidden(&at("from"), Some(set), &vision, &pixels);
        assert!(relative(&plain(&merged), &routed) < 1e-5, "{set}: {}", relative(&plain(&merged), &routed));
        // The merged tower can be used as a backbone of a new model.
        let text = fs::read_to_string(at(&merged).join("config.json")).unwrap();
        assert!(text.contains("\"layer_norm_eps\": 1e-5") || text.contains("0.00001"), "{text}");
        let sizes = pheye_model::Config::default().with_backbones(Some(&at(&merged)), None).unwrap();
        assert_eq!(sizes.vision, vision);
    }
    assert!(relative(&plain("merged-global"), &plain("merged-local")) > 1e-2);
}

/// Opens a copy of the adapter `first` with changed tensors or configuration; returns the error message, or
/// "".
fn tampered(
    folder: &Path,
    tensors: impl Fn(&mut BTreeMap<String, Tensor>),
    config: impl Fn(&mut Value),
) -> String {
    let checkpoint = Checkpoint::open(peft("first").join("adapter_model.safetensors")).unwrap();
    let read = |n: &str| (n.to_owned(), checkpoint.tensor(n, DType::F32).unwrap());
    let mut all: BTreeMap<String, Tensor> = checkpoint.names().map(read).collect();
    tensors(&mut all);
    let all = all.iter().map(|(name, t)| (name.as_str(), t));
    save_safetensors(folder.join("adapter_model.safetensors"), all, &BTreeMap::new()).unwrap();
    let mut json: Value =
        serde_json::from_slice(&fs::read(peft("first").join("adapter_config.json")).unwrap()).unwrap();
    config(&mut json);
    fs::write(folder.join("adapter_config.json"), json.to_string()).unwrap();
    open(&golden("level1"), [Some(folder), None]).map_or_else(|e| e, |_| String::new())
}

#[test]
fn an_adapter_in_torchs_format_is_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let [bin, from_bin, from_safetensors] = ["bin", "a", "b"].map(|name| temp.path().join(name));
    let checkpoint = Checkpoint::open(peft("first").join("adapter_model.safetensors")).unwrap();
    let tensors: Vec<(String, Tensor)> =
        checkpoint.names().map(|n| (n.to_owned(), checkpoint.tensor(n, DType::F32).unwrap())).collect();
    fs::create_dir(&bin).unwrap();
    torch::save_f32(fs::File::create(bin.join("adapter_model.bin")).unwrap(), &tensors);
    fs::copy(peft("first").join("adapter_config.json"), bin.join("adapter_config.json")).unwrap();
    for (adapter, to) in [(&bin, &from_bin), (&peft("first"), &from_safetensors)] {
        save(&open(&golden("level1"), [Some(adapter), None]).unwrap(), &output(to));
    }
    assert!(bits(&from_bin) == bits(&from_safetensors));
    assert!(bits(&from_bin) != bits(&golden("level1")));
}

#[test]
fn adapters_that_do_not_fit_say_where() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(tampered(temp.path(), |_| (), |_| ()), "");
    // A renamed key is reported as one missing and one unused key; other mismatches are reported with it.
    let fc1 = "base_model.model.encoder.layers.1.mlp.fc1.lora_B.weight";
    let said = tampered(
        temp.path(),
        |all| {
            let moved = all.remove(fc1).unwrap();
            all.insert(fc1.replace("fc1", "fc3"), moved);
            let short = Tensor::zeros([64, 2], DType::F32);
            all.insert(fc1.replace("mlp.fc1", "self_attn.q_proj"), short);
        },
        |_| (),
    );
    for part in [
        "adapter_model.safetensors",
        "3 mismatches",
        &format!("missing `{fc1}`"),
        &format!("unused `{}`", fc1.replace("fc1", "fc3")),
        "self_attn.q_proj.lora_B.weight` has shape [64, 2]",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    for (key, value) in [
        ("peft_type", json!("IA3")),
        ("use_rslora", json!(true)),
        ("use_dora", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("rank_pattern", json!({"fc1": 9})),
        ("alpha_pattern", json!({"fc1": 9})),
        ("modules_to_save", json!(["head"])),
        ("bias", json!("all")),
        ("init_lora_weights", json!("pissa")),
        ("r", json!(0)),
        ("lora_alpha", json!("many")),
    ] {
        let said = tampered(temp.path(), |_| (), |config| config[key] = value.clone());
        assert!(said.contains("adapter_config.json") && said.contains(&format!("`{key}`")), "{key}: {said}");
    }
    let said = tampered(temp.path(), |_| (), |config| config["r"] = json!(4));
    assert!(said.contains("has rank 3, but the set has rank 4"), "{said}");
    // Adapters of a complete CLIPVisionModel have one more component in their keys.
    let whole = |all: &mut BTreeMap<String, Tensor>| {
        let renamed = std::mem::take(all).into_iter();
        all.extend(
            renamed.map(|(n, t)| (n.replace("base_model.model.", "base_model.model.vision_model."), t)),
        );
    };
    assert_eq!(tampered(temp.path(), whole, |_| ()), "");

    let said = open(&golden("level1"), [None, Some(&peft("second"))]).unwrap_err();
    assert!(said.contains("no local LoRA set"), "{said}");
    let model = open(&golden("level1"), [None, None]).unwrap();
    let merged = model.merge_lora(LoraSet::Local, &output(&temp.path().join("m")), &mut |_, _| ());
    assert!(merged.unwrap_err().to_string().contains("no local LoRA set"));
    assert!(!temp.path().join("m").exists());
}

#[test]
fn a_model_that_does_not_fit_itself_is_not_merged() {
    let temp = tempfile::tempdir().unwrap();
    let mut model = lively(&config());
    model.save(temp.path()).unwrap();
    // An adapter without its linear layer, and a linear layer without its adapter.
    for (from, to) in
        [("q_proj.base_layer.weight", "q_proj.weight"), ("fc1.lora_A.first", "fc9.lora_A.first")]
    {
        let renamed: Vec<_> = model
            .params_mut()
            .iter()
            .map(|p| {
                (
                    p.name
                        .replace(&format!("layers.0.self_attn.{from}"), &format!("layers.0.self_attn.{to}"))
                        .replace(&format!("layers.0.mlp.{from}"), &format!("layers.0.mlp.{to}")),
                    p.value.clone(),
                )
            })
            .collect();
        let tensors = renamed.iter().map(|(n, t)| (n.as_str(), t));
        save_safetensors(temp.path().join("model.safetensors"), tensors, &BTreeMap::new()).unwrap();
        let said = open(temp.path(), [None, None]).unwrap_err();
        assert!(said.contains("2 mismatches") && said.contains(from) && said.contains(to), "{said}");
    }
}
