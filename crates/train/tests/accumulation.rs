//! The loss of a step is the sum over all its tokens divided by their number, whatever the micro-batches are.

mod common;

use std::collections::BTreeMap;

use common::{Bench, run};
use pheye_train::{Event, Start};

const SAMPLES: usize = 128;

/// Images with answers of 1 to 40 tokens.
fn bench() -> Bench {
    let bench = Bench::new(SAMPLES);
    let line = |i: usize| {
        let answer = "o".repeat(1 + i * i % 40);
        let qa = format!("[[\"what {i}?\", \"{answer}\"]]");
        format!("{{\"image\": \"{i}.png\", \"qa\": {qa}, \"caption\": \"a shape\"}}\n")
    };
    bench.write("m.jsonl", (0..SAMPLES).map(line).collect::<String>());
    bench
}

/// Loss, number of tokens and norm of the gradient of each step.
fn steps(bench: &Bench, out: &str, lr: f64, train: &str) -> Vec<(f64, f64, f64)> {
    let train = format!("lora_dropout = 0.0\ncheckpoint_every = 0\n{train}");
    let mut config = bench.config("pheye", out, "prefetch = 0", &train);
    config.optim.lr = lr;
    run(&config, Start::Over, |_: Event| {}).unwrap();
    let text = std::fs::read_to_string(bench.path(out).join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<BTreeMap<String, f64>>(line).unwrap());
    rows.map(|row| (row["loss"], row["tokens"], row["grad_norm"])).collect()
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * b.abs()
}

#[test]
fn a_step_does_not_depend_on_its_micro_batches() {
    let bench = bench();
    bench.backbones();
    let step = |batch: usize| {
        let train = format!("steps = 2\nbatch = {batch}\naccumulation = {}", SAMPLES / batch);
        steps(&bench, &format!("by-{batch}"), 1e-3, &train)
    };
    let whole = step(128);
    for batch in [16, 1] {
        for (part, whole) in step(batch).iter().zip(&whole) {
            assert_eq!(part.1, whole.1, "tokens");
            // Sums in f32 in another order.
            assert!(near(part.0, whole.0, 1e-5), "loss by {batch}: {part:?}, {whole:?}");
            assert!(near(part.2, whole.2, 1e-4), "gradient by {batch}: {part:?}, {whole:?}");
        }
    }
    // The mean of the means of the samples is another number. The learning rate is too small to change a weight,
    // so that each of these steps sees the weights of the first.
    let single = steps(&bench, "single", 1e-30, "steps = 128\nbatch = 1");
    assert_eq!(single.len(), SAMPLES);
    let tokens: f64 = single.iter().map(|(_, tokens, _)| tokens).sum();
    let summed = single.iter().map(|(loss, tokens, _)| loss * tokens).sum::<f64>() / tokens;
    let means = single.iter().map(|(loss, ..)| loss).sum::<f64>() / SAMPLES as f64;
    assert!(near(summed, whole[0].0, 1e-5), "{summed} {}", whole[0].0);
    assert!(!near(means, whole[0].0, 1e-3), "{means} {}", whole[0].0);
}
