//! Loading needs little more memory than the loaded tensors, and streaming from file to file almost none.
//! This is a test program of its own with one test, because the peak memory is that of the process.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/torch.rs"]
mod torch;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use pheye_tensor::{DType, Slice, Tensor};
use pheye_weights::{Checkpoint, Item, ShardedWriter, save_safetensors};

/// The number of tensors of the model, and the elements of each.
const TENSORS: usize = 6;
const ELEMENTS: usize = 16 << 20;
/// The memory allowed in addition to the model, for stacks, the allocator and pieces in flight, in bytes.
const CONSTANT: usize = 16 << 20;

/// The value of a line of /proc/self/status, in bytes.
fn status(key: &str) -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap() << 10
}

/// The i-th value, which bf16 represents exactly.
fn value(i: usize) -> f32 {
    (i % 251) as f32 - 125.0
}

fn write(path: &Path, dtype: DType) {
    let values: Vec<f32> = (0..ELEMENTS).map(value).collect();
    let one = Tensor::from_f32([ELEMENTS / 1024, 1024], &values).unwrap().to_dtype(dtype).unwrap();
    let names: Vec<String> = (0..TENSORS).map(|i| format!("layers.{i}.weight")).collect();
    if path.extension().is_some_and(|e| e == "pt") {
        let class = if dtype == DType::F32 { "FloatStorage" } else { "BFloat16Storage" };
        let dims = vec![ELEMENTS / 1024, 1024];
        let bytes = one.host_bytes().unwrap();
        let stored: Vec<_> = names
            .iter()
            .map(|name| torch::Stored { name: name.clone(), dims: dims.clone(), class, bytes })
            .collect();
        torch::save(File::create(path).unwrap(), &stored);
    } else {
        save_safetensors(path, names.iter().map(|n| (n.as_str(), &one)), &BTreeMap::new()).unwrap();
    }
}

/// Loads all tensors of `path` as `dtype` and reads every element. Returns the tensors and the growth of peak
/// memory in bytes.
fn load(path: &Path, dtype: DType) -> (Vec<Tensor>, usize) {
    // Resets the peak to the current memory.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let checkpoint = Checkpoint::open(path).unwrap();
    let tensors: Vec<Tensor> = checkpoint.names().map(|n| checkpoint.tensor(n, dtype).unwrap()).collect();
    for tensor in &tensors {
        match tensor.slice().unwrap() {
            Slice::F32(x) => assert!(x.iter().enumerate().all(|(i, &x)| x == value(i))),
            Slice::Bf16(x) => assert!(x.iter().enumerate().all(|(i, x)| x.to_f32() == value(i))),
            Slice::Int8(..) => panic!("nothing was asked for in int8"),
        }
    }
    (tensors, status("VmHWM:").saturating_sub(before))
}

/// Writes all tensors of `path` into shards as `dtype`, and returns the growth of peak memory in bytes.
fn stream(path: &Path, dtype: DType) -> usize {
    let to = tempfile::tempdir().unwrap();
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let checkpoint = Checkpoint::open(path).unwrap();
    let items = checkpoint.names().map(|n| checkpoint.item(n, Some(dtype)).unwrap());
    let items: Vec<Item> = items.collect();
    let none = BTreeMap::new();
    let shards = ShardedWriter { folder: to.path(), stem: "model", limit: 100_000_000, metadata: &none };
    let mut elements =
        |item: &Item, out: &mut dyn std::io::Write| checkpoint.write_to(&item.name, Some(dtype), out);
    let written = shards.save(&items, &mut elements, &mut |_, _| ()).unwrap();
    assert!(written.files.len() > 1);
    status("VmHWM:").saturating_sub(before)
}

#[test]
fn loading_peaks_at_the_models_size() {
    let folder = tempfile::tempdir().unwrap();
    for (name, stored, wanted) in [
        ("a.safetensors", DType::Bf16, DType::Bf16),
        ("b.pt", DType::Bf16, DType::Bf16),
        ("c.safetensors", DType::F32, DType::Bf16),
        ("d.pt", DType::F32, DType::Bf16),
        ("e.pt", DType::F32, DType::F32),
        ("f.pt", DType::Bf16, DType::F32),
    ] {
        let path = folder.path().join(name);
        write(&path, stored);
        let (tensors, peak) = load(&path, wanted);
        let model: usize = tensors.iter().map(Tensor::bytes).sum();
        assert_eq!(model, TENSORS * ELEMENTS * wanted.size());
        assert!(tensors.iter().all(|t| t.is_shared() == (stored == wanted)), "{name}");
        assert!(peak <= model * 115 / 100 + CONSTANT, "{name}: {peak} bytes for a model of {model}");
        assert!(peak >= model * 9 / 10, "{name}: the peak of {peak} cannot be right");
        drop(tensors);
        let peak = stream(&path, wanted);
        assert!(peak <= CONSTANT, "{name}: {peak} bytes to write what was read");
        fs::remove_file(path).unwrap();
    }
}
