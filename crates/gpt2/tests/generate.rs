//! The example continues a prompt with a miniature of a published folder.

#[allow(dead_code)]
#[path = "../examples/generate.rs"]
mod example;

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::data;
use pheye_tensor::{DType, Tensor};
use pheye_testkit::Golden;
use pheye_text::Tokenizer;
use pheye_weights::{Checkpoint, save_safetensors};
use serde_json::{Map, Value, json};

/// GPT-2's tokenizer with a token for each byte, which has its number as id, and the end token.
fn tokenizer() -> Value {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    let spelled = |byte: u32| if printable(&byte) { byte } else { others.next().unwrap() };
    let characters: Vec<u32> = (0..256).map(spelled).collect();
    let vocabulary: Map<String, Value> = characters
        .iter()
        .zip(0..)
        .map(|(&c, id)| (char::from_u32(c).unwrap().to_string(), json!(id)))
        .collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0",
        "added_tokens": [{
            "id": 256, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    })
}

#[test]
fn the_example_continues_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let weights = Checkpoint::open(data("plain").join("model.safetensors")).unwrap();
    let read = |name: &str| {
        let short = name.strip_prefix("transformer.").unwrap().to_owned();
        (short, weights.tensor(name, DType::F32).unwrap())
    };
    let mut tensors: Vec<(String, Tensor)> = weights.names().map(read).collect();
    let mask = Tensor::from_f32([1, 1, 24, 24], &[1.0; 24 * 24]).unwrap();
    tensors.extend([0, 1].map(|i| (format!("h.{i}.attn.bias"), mask.clone())));
    let named = tensors.iter().map(|(name, t)| (name.as_str(), t));
    save_safetensors(path("model.safetensors"), named, &BTreeMap::new()).unwrap();
    fs::copy(data("plain").join("config.json"), path("config.json")).unwrap();
    fs::write(path("tokenizer.json"), tokenizer().to_string()).unwrap();

    let golden = Golden::open(data("plain").join("golden.safetensors"));
    let greedy: Vec<u32> = golden.i64("greedy").iter().map(|&id| id as u32).collect();
    let tokenizer = Tokenizer::from_file(folder.path(), None).unwrap();
    assert_eq!(tokenizer.encode("tower").unwrap(), greedy[..5]);
    let place = folder.path().to_str().unwrap();
    let written = example::generate(place, "tower", 0.0).unwrap();
    assert_eq!(written, tokenizer.decode(&greedy).unwrap());
    let sampled = example::generate(place, "tower", 2.0).unwrap();
    assert!(sampled.starts_with("tower") && sampled != written);
    assert_eq!(sampled, example::generate(place, "tower", 2.0).unwrap(), "the seed is fixed");
    assert!(example::generate(place, "tower", f32::NAN).unwrap_err().to_string().contains("temperature"));
}
