//! What the targets share.

use std::fs;
use std::path::{Path, PathBuf};

use pheye_tensor::DType;
use pheye_weights::Checkpoint;

/// A folder of this process's own; in memory where the system has that.
pub fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let top = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = top.join(format!("pheye-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the input");
    folder
}

/// Opens `bytes` as a checkpoint, lists it, and reads every tensor in every way, which may end in errors only. Tensors that
/// repeat their elements until they are much larger than the file are only listed: nobody reads them without having asked
/// for one of that shape.
pub fn read_checkpoint(bytes: &[u8]) {
    let path = folder().join("checkpoint");
    fs::write(&path, bytes).expect("the input is written");
    let checkpoint = match Checkpoint::open(&path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let small = checkpoint.tensors().filter(|tensor| tensor.bytes <= 1 << 20);
    let names: Vec<String> = small.map(|tensor| tensor.name.to_owned()).collect();
    for name in &names {
        let info = checkpoint.info(name);
        for dtype in [DType::F32, DType::Bf16, DType::Int8] {
            if let Ok(tensor) = checkpoint.tensor(name, dtype) {
                assert_eq!(info.map(|(shape, _)| shape), Some(tensor.shape()));
            }
        }
        // As in conversions from file to file.
        for dtype in [None, Some(DType::Bf16)] {
            if let Ok(item) = checkpoint.item(name, dtype) {
                let mut out = Vec::new();
                if checkpoint.write_to(name, dtype, &mut out).is_ok() {
                    assert_eq!(out.len() as u64, item.bytes());
                }
            }
        }
        let _ = (checkpoint.f64s(name), checkpoint.integers(name));
    }
}
