//! Which names a file of weights has, and which tensors of it may remain unused.

use std::collections::BTreeMap;
use std::path::Path;

use pheye_model::names;
use pheye_tensor::{DType, Init, Shape, Source, Tensor};
use pheye_weights::{Checkpoint, CheckpointSource, Error, Fault, NameMap, save_safetensors};

/// A file of scalars with these names; the value of each is its index.
fn file(path: &Path, names: &[&str]) -> Checkpoint {
    let tensors: Vec<Tensor> =
        (0..names.len()).map(|i| Tensor::from_f32([1], &[i as f32]).unwrap()).collect();
    save_safetensors(path, names.iter().copied().zip(&tensors), &BTreeMap::new()).unwrap();
    Checkpoint::open(path).unwrap()
}

fn ask(source: &mut CheckpointSource, name: &str) -> Vec<f32> {
    source.tensor(name, Shape::from([1]), Init::Zeros).to_vec_f32().unwrap()
}

#[test]
fn the_published_vision_tower_is_known_by_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    let ours = "vision_encoder.vision_model.base_model.model.embeddings.patch_embedding.base_layer.weight";
    let theirs = "embeddings.patch_embedding.weight";
    // The layouts of CLIPModel and CLIPVisionModel, saved by transformers before and since 5.6, with and
    // without a prefix of a wrapper.
    for prefix in ["vision_model.", "", "module.vision_model.", "module.", "_orig_mod.module."] {
        for more in ["pre_layrnorm.weight", "post_layernorm.weight"] {
            let names = [theirs, more].map(|n| format!("{prefix}{n}"));
            let c = file(&path, &names.each_ref().map(String::as_str));
            let mut s = names::source(&c, |_| DType::F32)
                .names(names::of_vision(&c))
                .allow_unused(|n| n.ends_with(more));
            assert_eq!(ask(&mut s, ours), [0.0], "{prefix}");
            s.finish().unwrap();
        }
    }
    let c = file(&path, &["module.vision_encoder.x", "module.lang_encoder.x"]);
    assert_eq!((names::of_vision(&c), names::of_text(&c)), (NameMap::default(), NameMap::default()));
    assert_eq!(names::of_vision(&file(&path, &["something.else", "other"])), names::clip());
    assert_eq!(names::of_text(&file(&path, &["model.layers.0.x", "lm_head.x"])), names::phi());
}

/// Released checkpoints contain the layers twice; nothing else of such a file may remain unused.
#[test]
fn duplicates_and_position_ids_may_remain_unused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    let all = [
        "lang_encoder.old_decoder_blocks.0.fc.weight",
        "lang_encoder.model.layers.0.decoder_layer.fc.weight",
        "lang_encoder.model.layers.0.cross_attn_layer.attn.to_q.weight",
        "vision_encoder.vision_model.embeddings.position_ids",
    ];
    let c = file(&path, &all);
    let mut s = names::source(&c, |_| DType::F32);
    assert_eq!(s.bytes(), 4);
    assert_eq!(ask(&mut s, all[0]), [0.0]);
    s.finish().unwrap();
    let other = "lang_encoder.model.layers.0.self_attn.weight";
    let c = file(&path, &[all[0], other]);
    let mut s = names::source(&c, |_| DType::F32);
    ask(&mut s, all[0]);
    let Err(Error::Mismatch(m)) = s.finish() else { panic!("`{other}` was accepted") };
    assert!(matches!(&m.faults[..], [Fault::Unused { tensor }] if tensor == other));
}
