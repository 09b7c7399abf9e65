//! Trains a low-rank adapter with explicit forward, backward and AdamW calls, until a frozen linear behaves like
//! another one that differs from it by a matrix of rank 2: `cargo run -p pheye-ops --example lora`
#![allow(clippy::print_stdout, clippy::print_stderr)]

use pheye_ops::adamw::{AdamW, Moments, step};
use pheye_ops::linear::Linear;
use pheye_ops::lora::{self, Adapter, LoraLinear, Route};
use pheye_ops::{Cx, RandomInit};
use pheye_tensor::{Grads, Init, ParamTable, Scope, Source, Tensor};

const ROWS: usize = 64;
const K: usize = 16;
const N: usize = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (cx, mut random) = (Cx::cpu(), RandomInit::new(1));
    let x = random.tensor("x", [ROWS, K].into(), Init::Normal(1.0));
    let mut layer = |name: &str, rank: usize, b: Init| {
        let mut scope = Scope::new(&mut random, "");
        let base = Linear::new(&mut scope, K, N, true, Init::Normal(0.25));
        let a = scope.at(name).param("A", [rank, K], Init::Uniform(0.25));
        let b = scope.at(name).param("B", [N, rank], b);
        LoraLinear { base, adapters: vec![Some(Adapter { a, b, scale: 1.0 })], module: 0 }
    };
    let goal = layer("goal", 2, Init::Normal(1.0));
    let mut ours = layer("ours", 2, Init::Zeros);

    // Every row takes adapter 0.
    let route = Route::all(ROWS, 0);
    let (wanted, _) = lora::forward(&cx, &x, &goal, &route)?;
    let table = ParamTable::assign(ours.params_mut(), |p| p.name.starts_with("ours"))?;
    let mut moments = Moments { m: table.zeros(), v: table.zeros() };
    let mut grads = Grads::new(table);
    let adamw = AdamW { lr: 0.03, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    for i in 1..=120 {
        let (y, saved) = lora::forward(&cx, &x, &ours, &route)?;
        // The gradient of half the squared error is the error.
        let dy: Vec<f32> = y.f32()?.iter().zip(wanted.f32()?).map(|(y, w)| y - w).collect();
        let loss = dy.iter().map(|d| d * d).sum::<f32>() / 2.0 / ROWS as f32;
        let dy = Tensor::from_f32([ROWS, N], &dy)?;
        lora::backward_params(&cx, &saved, &dy, &ours, &route, Some(&mut grads))?;
        step(&cx, &mut ours.params_mut(), &grads, &mut moments, &adamw, i, 1.0 / ROWS as f32)?;
        grads.clear()?;
        if i == 1 || i % 20 == 0 {
            println!("step {i:3}: loss {loss:.6}");
        }
    }
    Ok(())
}
