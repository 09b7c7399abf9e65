//! The arena of a GPU that runs out of memory.
#![cfg(feature = "emulator")]

use pheye_tensor::{Arena, DType, Device, Error, GpuError, Tensor};

/// A device with 10,000 bytes of memory.
fn small() -> (Device, Arena) {
    let device: Device = "emulator:memory=10000".parse().unwrap();
    let arena = Arena::of(&device);
    (device, arena)
}

fn take(arena: &Arena, elements: usize) -> Result<Tensor, Error> {
    Tensor::empty(arena, [elements], DType::F32)
}

fn free(device: &Device) -> u64 {
    let Device::Gpu(gpu) = device else { unreachable!() };
    gpu.memory().unwrap().0
}

#[test]
fn idle_buffers_are_given_back_for_one_of_another_size() {
    let (device, arena) = small();
    for elements in [1500, 2000, 1000, 2300] {
        drop(take(&arena, elements).unwrap());
    }
    let used = arena.stats();
    assert_eq!((used.in_use, used.allocations), (0, 4));
    let held = take(&arena, 1500).unwrap();
    // Freeing idle buffers is no longer enough.
    let before = arena.stats();
    match take(&arena, 1500).unwrap_err() {
        Error::Gpu(GpuError::OutOfMemory { wanted, free, total: 10000 }) => {
            assert!(wanted > free, "{wanted} {free}")
        }
        other => panic!("{other}"),
    }
    assert_eq!(arena.stats(), before);
    drop(held);
    take(&arena, 1500).unwrap();
    arena.trim();
    assert_eq!(free(&device), 10000);
}

#[test]
fn a_tensor_moves_from_one_gpu_to_another() {
    let [a, b] = ["emulator", "emulator"].map(|name| name.parse::<Device>().unwrap());
    let gpu = |device: &Device| match device {
        Device::Gpu(gpu) => gpu.clone(),
        Device::Cpu => unreachable!(),
    };
    let on_a = Tensor::from_f32([2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap().to_device(&a).unwrap();
    let again = on_a.to_device(&a).unwrap();
    assert_eq!(again.region().unwrap().addr(), on_a.region().unwrap().addr());
    let on_b = on_a.to_device(&b).unwrap();
    assert!(on_b.gpu().unwrap().same(&gpu(&b)) && !on_b.gpu().unwrap().same(&gpu(&a)));
    assert_eq!(on_b.to_vec_f32().unwrap(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn held_buffers_stay() {
    let (device, arena) = small();
    let hold = arena.hold();
    drop(take(&arena, 1000).unwrap());
    // The recording after a dry run must get the same memory.
    assert!(take(&arena, 2000).is_err());
    assert!(free(&device) < 10000);
    drop(hold);
    take(&arena, 2000).unwrap();
}

#[test]
fn memory_with_a_region_is_not_given_out() {
    let (_, arena) = small();
    let t = take(&arena, 100).unwrap();
    let region = t.region().unwrap();
    let addr = region.addr();
    drop(t);
    assert_ne!(take(&arena, 100).unwrap().region().unwrap().addr(), addr);
    drop(region);
    let addrs = [take(&arena, 100).unwrap(), take(&arena, 100).unwrap()].map(|t| t.region().unwrap().addr());
    assert!(addrs.contains(&addr));
}

#[test]
fn a_size_beyond_all_memory_is_an_error() {
    let (_, arena) = small();
    for arena in [arena, Arena::default()] {
        for elements in [usize::MAX, usize::MAX / 4, 1 << 62, 1 << 60] {
            let error = take(&arena, elements).unwrap_err().to_string();
            assert!(error.contains("out of"), "{error}");
        }
    }
}
