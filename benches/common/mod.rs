//! Shared by the benches: rows from `shapes.json`, criterion with the clock of the device, and one JSON line
//! per row.
//!
//! On a GPU the time of a run is that between two CUDA events around a graph launch, on the CPU the
//! wall-clock time. Before each run, memory larger than the caches is written, so that inputs come from
//! memory. Inputs are random, because zeros run faster.
//!
//! `PHEYE_BENCH_DEVICE` is `cpu` or `cuda` (by default a GPU if there is one). `PHEYE_BENCH_OUT` is the
//! folder of the JSON lines (`target/bench`). `PHEYE_BENCH_PEERS` is a file of lines that `benches/peers`
//! wrote, for the ratio to the fastest rival.

#![allow(dead_code)] // each bench uses some of it

mod device;
mod record;

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use criterion::{Criterion, SamplingMode};
use pheye_ops::gelu::Gelu;
use pheye_ops::linear::{self, Linear};
use pheye_ops::{Cx, RandomInit};
use pheye_tensor::{DType, Device, Grads, Init, Param, ParamTable, Scope, Shape, Source, Tensor};
use serde::de::DeserializeOwned;
use serde_json::Value;

use device::Clock;
use record::OURS;
pub(crate) use record::Rate;
use record::Records;

/// The maximum number of measured runs per criterion sample.
const RUNS: u64 = 20;

/// An error ends its row. For rows of ours the exit code is then 1, after the other rows have run.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One run of the work that is measured.
pub(crate) type Work = Box<dyn FnMut(&Cx) -> Result<()>>;

/// Boxes `run` as work, and keeps the compiler from optimizing its result away.
pub(crate) fn work<T>(mut run: impl FnMut(&Cx) -> pheye_ops::Result<T> + 'static) -> Result<Work> {
    Ok(Box::new(move |cx| {
        black_box(run(cx)?);
        Ok(())
    }))
}

/// The name and the cost of a row.
pub(crate) struct Case {
    /// The name of the operation, as in `shapes.json`.
    pub op: &'static str,
    /// The sizes.
    pub shape: String,
    /// `forward`, `backward`, or `dW`, the gradient of the weight only.
    pub direction: &'static str,
    /// The FLOPs that the operation needs.
    pub flops: u64,
    /// The bytes that it must move: each input read once, each output written once.
    pub bytes: u64,
}

/// The storage type of constant inputs, if it differs from the activations: of weights, or of the keys and
/// values of an image.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kept {
    Bf16,
    Int8,
}

impl Kept {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Kept::Bf16 => DType::Bf16,
            Kept::Int8 => DType::Int8,
        }
    }
}

/// The kind of GELU with this name.
pub(crate) fn gelu(name: &str) -> Result<Gelu> {
    match name {
        "quick" => Ok(Gelu::Quick),
        "exact" => Ok(Gelu::Exact),
        "tanh" => Ok(Gelu::Tanh),
        _ => Err(format!("shapes.json names no GELU by {name:?}").into()),
    }
}

/// A family of rows on one device.
pub(crate) struct Bench {
    family: &'static str,
    criterion: Criterion,
    cx: Cx,
    clock: Clock,
    records: Records,
    roofline: Option<Rate>,
    failed: bool,
}

/// Runs a family: `rows` measures each of its rows.
pub(crate) fn run(family: &'static str, rows: impl FnOnce(&mut Bench) -> Result<()> + Send) {
    // In rayon's pool, as operations run in a model.
    if let Err(e) = pheye_cpu::par::inside(|| try_run(family, rows).map_err(|e| e.to_string())) {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}

fn try_run(family: &'static str, rows: impl FnOnce(&mut Bench) -> Result<()>) -> Result<()> {
    let device = device::open(std::env::var("PHEYE_BENCH_DEVICE").ok().as_deref())?;
    // Rows on the CPU take up to half a second, so ten samples must suffice for the median.
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    let (clock, cx) = (Clock::new(&device)?, Cx::new(device));
    let records = Records::new(family, &cx)?;
    let mut bench = Bench { family, criterion, cx, clock, records, roofline: None, failed: false };
    rows(&mut bench)?;
    bench.criterion.final_summary();
    bench.records.write()?;
    if bench.failed { Err("some rows could not be measured".into()) } else { Ok(()) }
}

impl Bench {
    /// The rows of this family for the device. On the CPU these are the rows with a `cpu` entry, which
    /// overrides their sizes, and the rows marked `only`, which no GPU runs.
    pub(crate) fn rows<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let shapes: Value = serde_json::from_str(include_str!("../shapes.json"))?;
        let on_cpu = !self.on_gpu();
        let mut rows = Vec::new();
        for row in shapes[self.family].as_array().ok_or("shapes.json lacks this family")? {
            let mut row = row.as_object().ok_or("a row of shapes.json is no object")?.clone();
            if row.remove("only").is_some() && !on_cpu {
                continue;
            }
            match (on_cpu, row.remove("cpu")) {
                (true, None) => continue,
                (true, Some(Value::Object(smaller))) => row.extend(smaller),
                _ => {}
            }
            rows.push(serde_json::from_value(Value::Object(row))?);
        }
        Ok(rows)
    }

    /// The bytes of an element of activations and frozen matrices.
    pub(crate) fn element(&self) -> u64 {
        self.cx.dtype().size() as u64
    }

    /// Measures one row. `make` creates its inputs, and is not called if the command line excludes the row.
    pub(crate) fn row(&mut self, case: Case, make: impl FnOnce(&Cx) -> Result<Work>) {
        if let Err(e) = self.try_row(&case, OURS, make) {
            eprintln!("error: {} {} {}: {e}", case.op, case.shape, case.direction);
            self.failed = true;
        }
    }

    /// Measures another implementation of `case` with the same clock. If it fails, the reason is printed and
    /// the row is left out.
    pub(crate) fn rival(
        &mut self,
        case: Case,
        backend: &'static str,
        make: impl FnOnce(&Cx) -> Result<Work>,
    ) {
        if let Err(e) = self.try_row(&case, backend, make) {
            eprintln!("left out: {} {} {} {backend}: {e}", case.op, case.shape, case.direction);
        }
    }

    /// Whether rows run on a GPU.
    pub(crate) fn on_gpu(&self) -> bool {
        matches!(self.cx.device, Device::Gpu(_))
    }

    fn try_row(
        &mut self,
        case: &Case,
        backend: &'static str,
        make: impl FnOnce(&Cx) -> Result<Work>,
    ) -> Result<()> {
        let mut name = format!("{} {} {}", case.shape, self.cx.dtype(), case.direction);
        if backend != OURS {
            name += &format!(" {backend}");
        }
        let (cx, clock) = (&self.cx, &self.clock);
        let (mut make, mut runner) = (Some(make), None);
        let (mut times, mut last, mut fault) = (Vec::new(), 0, None);
        let mut group = self.criterion.benchmark_group(case.op);
        group.sampling_mode(SamplingMode::Flat);
        let all = catch_unwind(AssertUnwindSafe(|| {
            group.bench_function(name, |b| {
                if let Some(make) = make.take() {
                    match make(cx).and_then(|work| clock.prepare(cx, work)) {
                        Ok(prepared) => runner = Some(prepared),
                        Err(e) => {
                            fault = Some(e);
                            // Criterion cannot abandon a row, and must not report one that did not run.
                            resume_unwind(Box::new(()));
                        }
                    }
                }
                b.iter_custom(|runs| {
                    if runs != last {
                        // Criterion changes the number of runs during warm-up, and keeps it constant while it
                        // measures.
                        times.clear();
                        last = runs;
                    }
                    // Evicting the caches takes longer than a short run, so only some of the runs are
                    // measured.
                    let few = runs.min(RUNS);
                    let mut sum = Duration::ZERO;
                    for _ in 0..few {
                        match runner.as_mut().map(|r| clock.time(cx, r)) {
                            Some(Ok(time)) => {
                                sum += time;
                                times.push(time);
                            }
                            Some(Err(e)) => fault = Some(e),
                            None => {}
                        }
                    }
                    sum.mul_f64(runs as f64 / few.max(1) as f64)
                });
            });
        }));
        group.finish();
        if let Some(e) = fault {
            return Err(e);
        }
        if let Err(panic) = all {
            resume_unwind(panic);
        }
        drop(runner);
        if times.is_empty() {
            return Ok(());
        }
        if self.roofline.is_none() {
            self.roofline = Some(self.measure_roofline()?);
        }
        if let Some(roofline) = self.roofline {
            self.records.add(case, backend, &mut times, roofline);
        }
        Ok(())
    }

    /// The best rates of this device in this run: a copy for bytes, a large GEMM for FLOPs.
    fn measure_roofline(&mut self) -> Result<Rate> {
        let (bytes, copy) = device::copy(&self.cx)?;
        let copy = self.best(copy)?;
        let [m, k, n] = match self.cx.device {
            Device::Cpu => [1024, 2048, 2048],
            Device::Gpu(_) => [8192; 3],
        };
        let (x, mut layer) = (random(&self.cx, "x", [m, k])?, linear(n, k, false));
        place(&self.cx, vec![&mut layer.weight], false)?;
        let flops = layer.flops(m);
        let product = self.best(work(move |cx| linear::forward(cx, &x, &layer))?)?;
        let rate =
            Rate { flops: flops as f64 / product.as_secs_f64(), bytes: bytes as f64 / copy.as_secs_f64() };
        self.records.roofline(rate);
        Ok(rate)
    }

    /// The shortest of ten runs.
    fn best(&self, work: Work) -> Result<Duration> {
        let mut runner = self.clock.prepare(&self.cx, work)?;
        let times: Result<Vec<_>> = (0..10).map(|_| self.clock.time(&self.cx, &mut runner)).collect();
        Ok(times?.into_iter().min().unwrap_or_default())
    }
}

/// Random values of the device's activation type, on the device.
pub(crate) fn random(cx: &Cx, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
    let t = RandomInit::new(1).tensor(name, shape.into(), Init::Uniform(1.0));
    Ok(t.to_dtype(cx.dtype())?.to_device(&cx.device)?)
}

/// Random f32 values in 0..1, on the device.
pub(crate) fn random_f32(cx: &Cx, name: &str, len: usize) -> Result<Tensor> {
    let mut t = RandomInit::new(1).tensor(name, [len].into(), Init::Uniform(1.0));
    t.f32_mut()?.iter_mut().for_each(|v| *v = v.abs());
    Ok(t.to_device(&cx.device)?)
}

/// A random linear with W `[n, k]`, on the CPU.
pub(crate) fn linear(n: usize, k: usize, bias: bool) -> Linear {
    let mut source = RandomInit::new(2);
    let init = Init::Uniform((k as f32).powf(-0.5));
    let mut layer = Linear::new(&mut Scope::new(&mut source, "linear"), k, n, bias, init);
    if let Some(b) = &mut layer.bias {
        b.value = source.tensor("bias", b.shape(), init);
    }
    layer
}

/// Marks `params` as trained or frozen and moves them to the device. Returns the gradients of the trained
/// ones.
pub(crate) fn place(cx: &Cx, mut params: Vec<&mut Param>, train: bool) -> Result<Grads> {
    let table = ParamTable::assign(params.iter_mut().map(|p| &mut **p), |_| train)?;
    device::place(cx, params, table)
}
