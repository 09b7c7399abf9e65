//! Trains a small byte-level Phi on one sentence, then generates from its first three bytes with a key-value cache:
//! `cargo run -p pheye-phi --example generate`
#![allow(clippy::print_stdout, clippy::print_stderr)]

use pheye_ops::adamw::{AdamW, Moments, step};
use pheye_ops::{Cx, RandomInit, argmax};
use pheye_phi::{Cache, Config, Layout, Phi};
use pheye_tensor::{Grads, ParamTable, Scope};

const SENTENCE: &str = "the quick brown fox jumps over the lazy dog.";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sizes = Config { vocab_size: 128, hidden_size: 64, intermediate_size: 128, ..Config::default() };
    let config =
        Config { num_hidden_layers: 2, num_attention_heads: 4, max_position_embeddings: 64, ..sizes };
    let (cx, mut random) = (Cx::cpu(), RandomInit::new(1));
    let mut phi = Phi::new(&mut Scope::new(&mut random, ""), &config)?;

    let ids: Vec<u32> = SENTENCE.bytes().map(u32::from).collect();
    let targets: Vec<i64> = ids[1..].iter().map(|&id| id.into()).collect();
    let layout = Layout::packed(&[targets.len()]);
    let table = ParamTable::assign(phi.params_mut(), |_| true)?;
    let mut moments = Moments { m: table.zeros(), v: table.zeros() };
    let mut grads = Grads::new(table);
    let adamw = AdamW { lr: 3e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
    for i in 1..=60 {
        let (sum, n) =
            phi.next_token_loss(&cx, &ids[..targets.len()], &targets, &layout, Some(&mut grads))?;
        step(&cx, &mut phi.params_mut(), &grads, &mut moments, &adamw, i, 1.0 / n as f32)?;
        grads.clear()?;
        if i % 10 == 0 {
            println!("step {i}: loss {:.3}", sum / n as f64);
        }
    }

    let cache = |_| Cache::new(&cx, 1, ids.len(), config.hidden_size);
    let mut caches = (0..config.num_hidden_layers).map(cache).collect::<Result<Vec<_>, _>>()?;
    let (mut text, mut past) = (ids[..3].to_vec(), 0);
    while text.len() < ids.len() {
        let new = &text[past..];
        let logits =
            phi.logits(&cx, new, &Layout::cached(&[past], &[new.len()], ids.len()), Some(&mut caches))?;
        past = text.len();
        text.extend(argmax::forward(&cx, &logits)?.last());
    }
    println!("{}", text.iter().filter_map(|&id| char::from_u32(id)).collect::<String>());
    Ok(())
}
