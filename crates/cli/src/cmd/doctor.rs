//! `pheye doctor`: what this machine has, and what of it will be used.

use std::process::ExitCode;

use pheye::tensor::{Device, Gpu, KERNELS};
use serde::Serialize;

use super::DeviceArg;
use crate::numbers::bytes;
use crate::out::say;

/// Show what this machine has, what will be used of it, and why
///
/// Nothing is downloaded or computed. Put its output into reports of problems; it has no token and no file's contents.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArg,
}

#[derive(Serialize)]
struct Report {
    program: Program,
    processor: Processor,
    memory: Memory,
    gpu: GpuFacts,
    cache: Option<Cache>,
    /// Environment variables that change what the program does; those with secrets only say that they are set.
    environment: Vec<(String, String)>,
    /// The device that commands use.
    uses: Result<String, String>,
    why: String,
}

#[derive(Serialize)]
struct Program {
    version: &'static str,
    target: String,
    features: Vec<&'static str>,
    /// Bytes of the embedded nano model.
    nano: Option<u64>,
}

#[derive(Serialize)]
struct Processor {
    name: Option<String>,
    threads: usize,
    /// Threads that this process computes with.
    used: usize,
    features: Vec<&'static str>,
    /// What the CPU kernels take of it.
    kernels: &'static str,
}

#[derive(Serialize)]
struct Memory {
    total: Option<u64>,
    available: Option<u64>,
}

#[derive(Serialize)]
struct GpuFacts {
    /// The GPU that `cuda` opens, or why there is none.
    cuda: Result<String, String>,
    memory: Option<(u64, u64)>,
    /// The architectures of the embedded kernels.
    kernels: Vec<&'static str>,
    /// Why there are no embedded kernels.
    without_kernels: Option<&'static str>,
}

#[derive(Serialize)]
struct Cache {
    folder: String,
    models: usize,
    bytes: u64,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let gpu = gpu();
    let uses = args.device.open().map(|cx| cx.device.to_string()).map_err(|error| format!("{error:#}"));
    let why = match (args.device.name(), &gpu.cuda) {
        ("auto", Ok(_)) => "a GPU can be opened, and `--device auto` takes it".to_owned(),
        ("auto", Err(why)) => format!("`--device auto` takes the CPU: {why}"),
        (name, _) => format!("`--device {name}` is given"),
    };
    let report = Report {
        program: Program {
            version: env!("CARGO_PKG_VERSION"),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            features: features(),
            nano: nano(),
        },
        processor: processor(),
        memory: memory(),
        gpu,
        cache: cache(),
        environment: environment(),
        uses,
        why,
    };
    match args.json {
        true => say!("{}", serde_json::to_string(&report)?),
        false => print(&report),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(r: &Report) {
    let of = |title: &str, text: &str| say!("{title:<13}{text}");
    of("program", &format!("pheye {} for {}", r.program.version, r.program.target));
    of("", &format!("features {}", r.program.features.join(" ")));
    of("", &r.program.nano.map_or("no embedded model".to_owned(), |n| format!("nano model, {}", bytes(n))));
    let p = &r.processor;
    of("processor", p.name.as_deref().unwrap_or("unknown"));
    of("", &format!("{} threads, of which {} compute (RAYON_NUM_THREADS)", p.threads, p.used));
    of(
        "",
        &format!(
            "has {}",
            if p.features.is_empty() { "no SIMD that is used".into() } else { p.features.join(" ") }
        ),
    );
    of("", &format!("kernels use {}", p.kernels));
    let size = |n: Option<u64>| n.map_or("unknown".to_owned(), bytes);
    of("memory", &format!("{} of {} available", size(r.memory.available), size(r.memory.total)));
    of(
        "GPU",
        match &r.gpu.cuda {
            Ok(name) => name,
            Err(why) => why,
        },
    );
    if let Some((free, total)) = r.gpu.memory {
        of("", &format!("{} of {} free", bytes(free), bytes(total)));
    }
    match r.gpu.without_kernels {
        Some(why) => of("", &format!("no GPU kernels in this program: {why}")),
        None => of("", &format!("kernels for {}", r.gpu.kernels.join(" "))),
    }
    if let Some(Cache { folder, models, bytes: size }) = &r.cache {
        of("cache", &format!("{models} models, {} in {folder}", bytes(*size)));
    }
    for (i, (name, value)) in r.environment.iter().enumerate() {
        of(if i == 0 { "environment" } else { "" }, &format!("{name}={value}"));
    }
    match &r.uses {
        Ok(device) => of("will use", device),
        Err(why) => of("cannot use", why),
    }
    of("", &r.why);
}

fn features() -> Vec<&'static str> {
    let all = [
        ("cuda", cfg!(feature = "cuda")),
        ("cublaslt", cfg!(feature = "cublaslt")),
        ("emulator", cfg!(feature = "emulator")),
        ("hub", cfg!(feature = "hub")),
        ("nano", cfg!(feature = "nano")),
    ];
    all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect()
}

fn nano() -> Option<u64> {
    #[cfg(feature = "nano")]
    return Some(pheye::nano::files().iter().map(|(_, bytes)| bytes.len() as u64).sum());
    #[cfg(not(feature = "nano"))]
    return None;
}

fn processor() -> Processor {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let features = simd();
    Processor {
        name: name.map(|(_, name)| name.trim().to_owned()),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        used: rayon::current_num_threads(),
        kernels: kernels(&features),
        features,
    }
}

/// The features of the processor that the CPU kernels ask for.
fn simd() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let all = vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let all = vec![("neon", std::arch::is_aarch64_feature_detected!("neon"))];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all: Vec<(&str, bool)> = Vec::new();
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

fn kernels(features: &[&str]) -> &'static str {
    let has = |name| features.contains(&name);
    match () {
        () if has("avx512f") && has("avx512vnni") => "AVX-512, with VNNI for int8 weights",
        () if has("avx512f") => "AVX-512",
        () if has("avx2") && has("fma") => "AVX2 with FMA",
        () if has("neon") => "NEON",
        () => "scalar code",
    }
}

/// The memory of the machine, from `/proc/meminfo`.
fn memory() -> Memory {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
    };
    Memory { total: field("MemTotal:"), available: field("MemAvailable:") }
}

fn gpu() -> GpuFacts {
    let opened = Gpu::open("cuda");
    GpuFacts {
        memory: opened.as_ref().ok().and_then(|gpu| gpu.memory().ok()),
        cuda: opened.map(|gpu| Device::Gpu(gpu).to_string()).map_err(|error| pheye_files::chain(&error)),
        kernels: KERNELS.archs().to_vec(),
        without_kernels: KERNELS.missing(),
    }
}

#[cfg(feature = "hub")]
fn cache() -> Option<Cache> {
    let folder = pheye::hub::Settings::from_env().ok()?.cache;
    let models = pheye::hub::list(&folder);
    let size = models.iter().map(|model| model.bytes + model.incomplete).sum();
    Some(Cache { folder: folder.display().to_string(), models: models.len(), bytes: size })
}

#[cfg(not(feature = "hub"))]
fn cache() -> Option<Cache> {
    None
}

/// The variables that this program reads.
fn environment() -> Vec<(String, String)> {
    let read = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let name = name.into_string().ok()?;
        let known = ["PHEYE_", "HF_", "HUGGING", "TRANSFORMERS_OFFLINE", "CUDA_", "RAYON_", "NO_COLOR"];
        known.iter().any(|start| name.starts_with(start)).then_some(())?;
        let secret = name.contains("TOKEN") && !name.ends_with("PATH");
        let value = if secret { "(set)".to_owned() } else { value.to_string_lossy().into_owned() };
        Some((name, value))
    };
    let mut all: Vec<_> = std::env::vars_os().filter_map(read).collect();
    all.sort();
    all
}
