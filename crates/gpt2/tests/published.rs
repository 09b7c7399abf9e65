//! Folders as on the hub: every spelling of the names, what is passed over, and writing what was read.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::data;
use pheye_gpt2::{Config, Error, Gpt2, Layout, hub};
use pheye_ops::Cx;
use pheye_tensor::{DType, Scope, Shape, Tensor};
use pheye_weights::{Checkpoint, save_safetensors};
use serde_json::{Value, json};

/// The tensors of the folder `plain` under the names that `rename` gives them, with those of `more`, in a new folder.
fn folder(rename: impl Fn(&str) -> String, more: &[(&str, Tensor)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let weights = Checkpoint::open(data("plain").join("model.safetensors")).unwrap();
    let read = |name: &str| (rename(name), weights.tensor(name, DType::F32).unwrap());
    let mut tensors: Vec<(String, Tensor)> = weights.names().map(read).collect();
    tensors.extend(more.iter().map(|(name, t)| ((*name).to_owned(), t.clone())));
    let named = tensors.iter().filter(|(name, _)| !name.is_empty()).map(|(name, t)| (name.as_str(), t));
    save_safetensors(folder.path().join("model.safetensors"), named, &BTreeMap::new()).unwrap();
    fs::copy(data("plain").join("config.json"), folder.path().join("config.json")).unwrap();
    folder
}

fn logits(folder: &Path) -> Result<Vec<f32>, Error> {
    let gpt2 = Gpt2::load(folder, DType::F32)?;
    let logits = gpt2.logits(&Cx::cpu(), &[7, 250, 3], &Layout::packed(&[3]), None).unwrap();
    Ok(logits.f32().unwrap().to_vec())
}

fn without_prefix(name: &str) -> String {
    name.strip_prefix("transformer.").unwrap().to_owned()
}

#[test]
fn names_may_have_any_prefix_and_what_is_no_parameter_is_passed_over() {
    let expected = logits(&data("plain")).unwrap();
    let zeros = |shape: &[usize]| Tensor::zeros(Shape::try_new(shape).unwrap(), DType::F32);
    for prefix in ["", "transformer.", "decoder.", "decoder.transformer.", "module.transformer."] {
        let plain = folder(|name| format!("{prefix}{}", without_prefix(name)), &[]);
        assert_eq!(logits(plain.path()).unwrap(), expected, "{prefix}");
        let all = if prefix.starts_with("module.") { "module." } else { "" };
        let head =
            format!("{all}{}lm_head.weight", if prefix.starts_with("decoder.") { "decoder." } else { "" });
        let mask = [0, 1].map(|i| format!("{prefix}h.{i}.attn.bias"));
        let low = format!("{prefix}h.1.attn.masked_bias");
        let more = [
            (mask[0].as_str(), zeros(&[1, 1, 24, 24])),
            (mask[1].as_str(), zeros(&[1, 1, 24, 24])),
            (low.as_str(), zeros(&[])),
            (head.as_str(), zeros(&[257, 16])),
        ];
        let old = folder(|name| format!("{prefix}{}", without_prefix(name)), &more);
        assert_eq!(logits(old.path()).unwrap(), expected, "{prefix} with masks");
    }
}

/// A network with a GPT-2 inside reads it from its own scope.
#[test]
fn the_model_may_be_at_any_scope() {
    let checkpoint = Checkpoint::open(data("plain").join("model.safetensors")).unwrap();
    for scope in ["", "decoder.transformer"] {
        let mut source = hub::source(&checkpoint, scope, |_| DType::F32);
        let config = Config::load(&data("plain")).unwrap();
        let mut gpt2 = Gpt2::new(&mut Scope::new(&mut source, scope), &config).unwrap();
        source.finish().unwrap();
        assert!(gpt2.params_mut().iter().all(|p| p.name.starts_with(scope)));
        let logits = gpt2.logits(&Cx::cpu(), &[7, 250, 3], &Layout::packed(&[3]), None).unwrap();
        assert_eq!(logits.f32().unwrap(), self::logits(&data("plain")).unwrap());
    }
}

#[test]
fn what_does_not_fit_is_told_at_once() {
    let vector = Tensor::zeros([48], DType::F32);
    let cross = [("h.0.crossattention.c_attn.bias", vector.clone()), ("h.0.attn.c_attn.extra", vector)];
    // Without one of the tensors, and with another of the wrong shape.
    let rename = |name: &str| match without_prefix(name).as_str() {
        "h.1.attn.c_attn.weight" => String::new(),
        "wpe.weight" => "wte.weight".to_owned(),
        "wte.weight" => "wpe.weight".to_owned(),
        name => name.to_owned(),
    };
    let error = logits(folder(rename, &cross).path()).unwrap_err().to_string();
    for part in [
        "5 mismatches",
        "missing `h.1.attn.c_attn.weight` [16, 48]",
        "`wte.weight` has shape [24, 16], the network needs [257, 16]",
        "`wpe.weight` has shape [257, 16], the network needs [24, 16]",
        "unused `h.0.crossattention.c_attn.bias`",
        "unused `h.0.attn.c_attn.extra`",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }

    let empty = tempfile::tempdir().unwrap();
    let error = logits(empty.path()).unwrap_err().to_string();
    assert!(error.contains("config.json: cannot be read"), "{error}");
    fs::copy(data("plain").join("config.json"), empty.path().join("config.json")).unwrap();
    let error = logits(empty.path()).unwrap_err();
    assert!(matches!(&error, Error::NoWeights { path, .. } if path == empty.path()), "{error}");
}

/// The names, shapes and elements of the parameters in a file, without a prefix of the names.
fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let file = Checkpoint::open(path).unwrap();
    let named = file.tensors().filter(|t| !hub::is_passed_over(t.name)).map(|t| {
        let name = t.name.strip_prefix("transformer.").unwrap_or(t.name).to_owned();
        (name, (t.dims.to_vec(), file.f64s(t.name).unwrap()))
    });
    named.collect()
}

#[test]
fn what_was_read_is_written_the_same() {
    for (case, file) in [("plain", "model.safetensors"), ("old", "pytorch_model.bin")] {
        let to = tempfile::tempdir().unwrap();
        let mut gpt2 = Gpt2::load(data(case), DType::F32).unwrap();
        gpt2.save(to.path().join("new")).unwrap();
        let to = to.path().join("new");
        assert_eq!(tensors(&to.join("model.safetensors")), tensors(&data(case).join(file)), "{case}");
        assert_eq!(Config::load(&to).unwrap(), Config::load(&data(case)).unwrap(), "{case}");
        let written: Value = serde_json::from_slice(&fs::read(to.join("config.json")).unwrap()).unwrap();
        let eps = if case == "plain" { 1e-5 } else { 1e-3 };
        let expected =
            json!({ "model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": eps });
        assert!(expected.as_object().unwrap().iter().all(|(key, value)| written[key] == *value), "{written}");
        // A model may be written over the folder it was read from.
        Gpt2::load(&to, DType::F32).unwrap().save(&to).unwrap();
        assert_eq!(tensors(&to.join("model.safetensors")), tensors(&data(case).join(file)), "{case}");
    }
}

#[test]
fn weights_may_be_bf16() {
    let [exact, rounded] = [DType::F32, DType::Bf16].map(|dtype| {
        let mut gpt2 = Gpt2::load(data("plain"), dtype).unwrap();
        assert!(gpt2.params_mut().iter().all(|p| p.value.dtype() == dtype));
        let values = gpt2.params_mut().into_iter().map(|p| p.value.to_dtype(DType::Bf16).unwrap());
        values.flat_map(|t| t.to_vec_f32().unwrap()).collect::<Vec<f32>>()
    });
    assert_eq!(exact, rounded);
    let gpt2 = Gpt2::load(data("plain"), DType::Bf16).unwrap();
    let logits = gpt2.logits(&Cx::cpu(), &[7, 250, 3], &Layout::packed(&[3]), None).unwrap();
    assert_ne!(logits.f32().unwrap(), self::logits(&data("plain")).unwrap());
}
