//! Two threads that generate at the same time on one GPU, with one context each or a shared one, give the
//! same answers as alone.
#![cfg(feature = "emulator")]

use std::thread;

use pheye_model::{Config, GenerationConfig, Hooks, LoraSpec, Pheye};
use pheye_ops::Cx;
use pheye_tensor::{Device, ParamTable, Tensor};
use pheye_testkit::{normal, randomize};

const VOCAB: usize = 23;

/// Level 1, with cross-attention before one of two layers.
fn config() -> Config {
    let mut c = Config::default();
    (c.vision.hidden_size, c.vision.intermediate_size, c.vision.num_hidden_layers) = (16, 24, 1);
    (c.vision.num_attention_heads, c.vision.image_size, c.vision.patch_size) = (2, 8, 4);
    (c.text.hidden_size, c.text.intermediate_size, c.text.num_hidden_layers) = (64, 48, 2);
    (c.text.num_attention_heads, c.text.vocab_size, c.text.max_position_embeddings) = (4, VOCAB, 32);
    (c.connector.level, c.connector.cross_interval, c.connector.reduce) = (1, 2, 2);
    let lora = LoraSpec { rank: 2, alpha: Some(1.0) };
    (c.lora_global, c.lora_local) = (lora, lora);
    c
}

/// The prompts have the same length, so that the steps of both threads launch the same work on different ids.
fn answer(model: &Pheye, cx: &Cx, thread: u32) -> Vec<Vec<u32>> {
    let config = model.config();
    let (tiles, s) = (1 + config.connector.local_tiles(), config.vision.image_size);
    let pixels = Tensor::from_f32([tiles, 3, s, s], &normal(thread.into(), tiles * 3 * s * s)).unwrap();
    let media = model.encode(cx, &cx.upload(&pixels).unwrap(), 1).unwrap();
    let kvs = model.cross_kv(cx, &media).unwrap();
    let prompts = [[1, 2, 3], [4, 5, 6]].map(|p| p.map(|id| (id + 7 * thread) % VOCAB as u32).to_vec());
    model.generate(cx, &kvs, &prompts, &[0, 0], &GenerationConfig::greedy(10), Hooks::default()).unwrap()
}

#[test]
fn two_threads_generate_at_once() {
    let device: Device = "emulator".parse().unwrap();
    let mut model = Pheye::random(&config(), 1).unwrap();
    randomize(model.params_mut(), 3);
    let table = ParamTable::assign(model.params_mut(), |_| false).unwrap();
    model.move_to(&device, &table).unwrap();
    let alone = [0, 1].map(|i| answer(&model, &Cx::new(device.clone()), i));
    assert_ne!(alone[0], alone[1]);
    let one = Cx::new(device.clone());
    for contexts in [[Cx::new(device.clone()), Cx::new(device)], [one.clone(), one]] {
        let model = &model;
        let together = thread::scope(|scope| {
            let threads = [0, 1].map(|i| {
                let cx = &contexts[i as usize];
                scope.spawn(move || answer(model, cx, i))
            });
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(together, alone);
    }
}
