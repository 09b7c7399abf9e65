//! `pheye train CONFIG --plan`: what a run will take, before it starts.

use std::time::{Duration, Instant};

use pheye::ops::linear::{Linear, forward};
use pheye::ops::{Cx, RandomInit};
use pheye::tensor::{DType, Device, Init, Scope, Tensor};
use pheye::train::{Config, Plan, plan};
use serde::Serialize;

use crate::numbers::{bytes, duration, flops, grouped};
use crate::out::say;

/// How long GEMM is timed.
const TIMED: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Report<'a> {
    device: String,
    #[serde(flatten)]
    plan: &'a Plan,
    /// Sum of `memory`, in bytes.
    memory_total: u64,
    /// Operations per second with which `seconds` is computed.
    rate: f64,
    /// Duration of the run at that rate, without loading, evaluation and checkpoints.
    seconds: f64,
}

/// Prints the plan of `config` on the device of `cx`. `rate` is in operations per second; without it, GEMM of
/// the size of the vision tower's is timed.
pub(crate) fn show(cx: &Cx, config: &Config, json: bool, rate: Option<f64>) -> anyhow::Result<()> {
    let gpu = matches!(cx.device, Device::Gpu(_));
    let plan = plan(config, pheye::encoder(config)?, gpu)?;
    let (rate, measured) = match rate {
        Some(rate) => (rate, false),
        None => (gemm_rate(cx, config)?, true),
    };
    let seconds = plan.flops / rate;
    let memory_total = plan.memory.total();
    let report = Report { device: cx.device.to_string(), plan: &plan, memory_total, rate, seconds };
    if json {
        say!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let Plan { texts, memory, .. } = &plan;
    say!(
        "samples     {} in {} steps of {}; an epoch has {}",
        grouped(plan.samples),
        grouped(plan.steps),
        grouped(plan.step_samples),
        grouped(plan.epoch)
    );
    say!(
        "tokens      {} of text, {:.1} a sample with the prompt, of which {:.1} are targets ({} samples looked at)",
        grouped(plan.tokens),
        texts.mean,
        texts.targets,
        grouped(texts.samples)
    );
    if texts.unusable > 0 {
        say!("            {} of these samples cannot be used", grouped(texts.unusable));
    }
    say!("            no padding: the sequences of a batch are packed");
    say!("            {} image tokens an image", grouped(plan.image_tokens as u64));
    say!("operations  {} a step, {} in all", flops(plan.step_flops.total() as f64), flops(plan.flops));
    say!(
        "memory      {}: frozen weights {}, trained weights and optimizer {}, activations {}, batches {}, cache of \
         images {}, process {}",
        bytes(memory_total),
        bytes(memory.frozen),
        bytes(memory.trained),
        bytes(memory.activations),
        bytes(memory.data),
        bytes(memory.cache),
        bytes(memory.process)
    );
    let source = if measured { "the rate of GEMM measured here" } else { "the given rate" };
    say!("time        {} at {}/s, {source}", duration(seconds), flops(rate));
    Ok(())
}

/// Operations per second of GEMM of the size of the vision tower's first MLP layer.
fn gemm_rate(cx: &Cx, config: &Config) -> anyhow::Result<f64> {
    let network = config.network()?;
    let (k, n) = (network.vision.hidden_size, network.vision.intermediate_size);
    let rows = (network.media_tokens() * config.train.batch).clamp(64, 4096);
    let mut random = RandomInit::new(0);
    let mut linear = Linear::new(&mut Scope::new(&mut random, "timed"), k, n, false, Init::Normal(0.02));
    let (x, weight) = (Tensor::from_f32([rows, k], &vec![0.5; rows * k])?, linear.weight.value.clone());
    let dtype = if matches!(cx.device, Device::Gpu(_)) { DType::Bf16 } else { DType::F32 };
    linear.weight.value = cx.upload(&weight.to_dtype(dtype)?)?;
    let x = cx.upload(&x.to_dtype(dtype)?)?;
    let run = || {
        forward(cx, &x, &linear)?;
        match &cx.device {
            Device::Gpu(gpu) => Ok::<_, anyhow::Error>(gpu.synchronize()?),
            Device::Cpu => Ok(()),
        }
    };
    run()?;
    let (began, mut times) = (Instant::now(), 0);
    while began.elapsed() < TIMED {
        run()?;
        times += 1;
    }
    Ok(linear.flops(rows) as f64 * f64::from(times) / began.elapsed().as_secs_f64())
}
