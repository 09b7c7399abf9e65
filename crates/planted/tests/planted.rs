//! The emulator reports the faults planted in `kernels/planted.cu` and accepts the same kernels without them.
#![cfg(feature = "emulator")]

use pheye_kernels::params::GeluFwd;
use pheye_kernels::{Error, Gpu, In, Out, ParamField, Params, Result};
use pheye_planted::KERNELS;
use pheye_planted::params::{Planted, PlantedUpdate};

fn open() -> Gpu {
    let gpu = Gpu::open("emulator").unwrap();
    gpu.load(&KERNELS).unwrap();
    gpu
}

const DEVICES: [&str; 4] = ["emulator", "emulator:reversed", "emulator:shuffled=7", "emulator:shuffled=8"];

/// Runs `kernel` on n = blocks·threads elements, or on three fewer for `planted_global`. Returns y.
fn run(device: &str, kernel: &'static str, fault: i32) -> Result<Vec<f32>> {
    let gpu = Gpu::open(device)?;
    gpu.load(&KERNELS)?;
    let mut launch = gpu.launch(kernel)?;
    let (threads, blocks) = (launch.spec().threads, 3);
    let n = threads * blocks - if kernel == "planted_global" { 3 } else { 0 };
    let (x, y) = (gpu.alloc(4 * n)?, gpu.alloc(4 * n)?);
    let values: Vec<f32> = (0..n).map(|i| 1.0 + i as f32).collect();
    let (x, y) = (x.region(0, "f32", 4, &[n])?, y.region(0, "f32", 4, &[n])?);
    gpu.upload(bytemuck::cast_slice(&values), x.clone())?;
    let params = Planted { x: launch.read(x), y: launch.write(y.clone()), n: n as i32, fault };
    launch.run([blocks, 1, 1], &params)?;
    let mut out = vec![0.0; n];
    gpu.download(y, bytemuck::cast_slice_mut(&mut out))?;
    Ok(out)
}

#[test]
fn right_kernels_pass_and_agree_in_every_order() {
    for kernel in [
        "planted_barrier",
        "planted_warp_barrier",
        "planted_reuse",
        "planted_copy",
        "planted_global",
        "planted_shared",
        "planted_shuffle",
        "planted_reach",
        "planted_race",
        "planted_named",
        "planted_output",
    ] {
        let first = run(DEVICES[0], kernel, 0).unwrap();
        assert!(first.iter().all(|y| *y >= 1.0), "{kernel}: {first:?}");
        for device in DEVICES {
            assert_eq!(run(device, kernel, 0).unwrap(), first, "{kernel} on {device}");
        }
    }
    assert_eq!(run("emulator", "planted_barrier", 0).unwrap()[..2], [64.0, 63.0]);
    assert_eq!(run("emulator", "planted_shuffle", 0).unwrap()[0], 528.0);
}

/// Checks that the emulator reports the fault in every thread order, with `text` and the kernel's name.
fn caught(kernel: &'static str, fault: i32, text: &str) {
    for device in DEVICES {
        let error = run(device, kernel, fault).expect_err(kernel).to_string();
        assert!(error.contains(text) && error.contains(kernel), "{kernel} on {device}: {error}");
    }
}

#[test]
fn a_missing_barrier() {
    // The order decides whether the emulator sees a race or a read of memory that no thread has written yet.
    for device in DEVICES {
        let error = run(device, "planted_barrier", 1).expect_err(device).to_string();
        assert!(error.contains("race on shared memory") || error.contains("nobody wrote"), "{error}");
    }
    caught("planted_reuse", 1, "race on shared memory");
    caught("planted_named", 1, "shared memory");
}

#[test]
fn a_shuffle_is_no_barrier() {
    caught("planted_warp_barrier", 1, "race on shared memory");
}

#[test]
fn a_missing_wait_for_a_copy() {
    caught("planted_copy", 1, "a wait is missing");
    caught("planted_copy", 2, "a wait is missing");
}

#[test]
fn a_copy_of_another_thread_without_a_barrier() {
    for device in DEVICES {
        let error = run(device, "planted_copy", 3).expect_err(device).to_string();
        assert!(
            ["race on shared memory", "in flight", "nobody wrote"].iter().any(|s| error.contains(s)),
            "{error}"
        );
    }
}

#[test]
fn out_of_bounds_in_global_memory() {
    caught("planted_global", 1, "read of 4 bytes out of bounds");
    caught("planted_global", 2, "write of 4 bytes out of bounds");
}

#[test]
fn an_input_written_and_a_misaligned_access() {
    caught("planted_global", 3, "write of `f32 [93]`, which the launch gave as read-only");
    caught("planted_global", 4, "not aligned");
}

#[test]
fn out_of_bounds_in_shared_memory() {
    caught("planted_shared", 1, "read of 4 bytes at byte 1040 of shared memory, which has 1040");
    caught("planted_shared", 2, "write of 4 bytes at byte -4 of shared memory");
}

#[test]
fn a_read_of_shared_memory_that_nobody_wrote() {
    caught("planted_shared", 3, "nobody wrote");
}

#[test]
fn a_shuffle_among_exited_lanes() {
    caught("planted_shuffle", 1, "have exited");
    caught("planted_shuffle", 2, "other lanes of its mask wait in");
}

#[test]
fn a_barrier_that_not_all_threads_reach() {
    caught("planted_reach", 1, "wait at a barrier that thread");
    caught("planted_reach", 2, "wait at a barrier that thread");
}

#[test]
fn two_threads_writing_one_word() {
    caught("planted_race", 1, "race on shared memory at byte 0: write here, write by thread");
}

#[test]
fn an_output_that_nobody_wrote_and_one_written_twice() {
    caught("planted_output", 1, "nobody wrote the element at byte 380 of the output");
    caught("planted_output", 2, "writes too");
}

/// Runs a kernel that updates y of four blocks in place. Returns y, which was 0, 1, 2, …
fn update(device: &str, kernel: &'static str, fault: i32) -> Result<Vec<f32>> {
    let gpu = Gpu::open(device)?;
    gpu.load(&KERNELS)?;
    let mut launch = gpu.launch(kernel)?;
    let (blocks, n) = (4, 256);
    let (y, arrived) = (gpu.alloc(4 * n)?, gpu.alloc(4)?);
    let y = y.region(0, "f32", 4, &[n])?;
    let mut values: Vec<f32> = (0..n).map(|i| i as f32).collect();
    gpu.upload(bytemuck::cast_slice(&values), y.clone())?;
    gpu.clear(arrived.all())?;
    let params = PlantedUpdate { y: launch.update(y.clone()), arrived: launch.update(arrived.all()), fault };
    launch.run([blocks, 1, 1], &params)?;
    gpu.download(y, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

#[test]
fn races_on_global_memory_that_is_updated() {
    for device in DEVICES {
        let y = update(device, "planted_update", 0).unwrap();
        assert_eq!((y[0], y[63], y[255]), (1.0, 63.0, 255.0 + 192.0), "{device}");
        let y = update(device, "planted_last", 0).unwrap();
        assert_eq!(y[1], 1.0 + 2.0 + 3.0 + 4.0, "{device}");
        for (kernel, fault) in [("planted_update", 1), ("planted_update", 2)] {
            let error = update(device, kernel, fault).expect_err(kernel).to_string();
            assert!(error.contains("race on `f32 [256]`") && error.contains(kernel), "{device}: {error}");
        }
        for fault in 1..=3 {
            let error = update(device, "planted_last", fault).expect_err(device).to_string();
            let other_block = error.contains("read here, write by thread 0 of block");
            assert!(other_block && error.contains("race on `f32 [256]`"), "{device}, {fault}: {error}");
        }
    }
}

#[test]
fn no_number_as_an_address_reaches_memory() {
    // Some of these addresses wrap around to the start of a buffer when the size of the access is added.
    for addr in [0u64, 8, u64::MAX, u64::MAX - 3, 1 << 63] {
        let gpu = open();
        let y = gpu.alloc(4 * 64).unwrap();
        for reads in [true, false] {
            let mut launch = gpu.launch("planted_global").unwrap();
            let n = launch.spec().threads;
            let whole = launch.update(y.all());
            let (x, y) = if reads {
                (In::NULL.offset(addr as usize), whole)
            } else {
                (whole.input(), Out::NULL.offset(addr as usize))
            };
            let error =
                launch.run([1, 1, 1], &Planted { x, y, n: n as i32, fault: 0 }).unwrap_err().to_string();
            assert!(error.contains("out of bounds") || error.contains("not aligned"), "{addr:#x}: {error}");
        }
    }
}

#[test]
fn unknown_kernels_options_and_parameters_are_errors() {
    let gpu = Gpu::open("emulator").unwrap();
    let error = gpu.launch("planted_barrier").unwrap_err().to_string();
    for part in ["planted_barrier", "pheye-kernels", "Gpu::load"] {
        assert!(error.contains(part), "{error}");
    }
    for _ in 0..2 {
        gpu.load(&KERNELS).unwrap();
    }
    let error = gpu.clone().launch("no_such_kernel").unwrap_err().to_string();
    assert!(error.contains("no_such_kernel") && error.contains("pheye-planted"), "{error}");
    assert!(Gpu::open("emulator:sideways").unwrap_err().to_string().contains("emulator:sideways"));
    let run = |params: &GeluFwd| gpu.launch("planted_barrier").unwrap().run([1, 1, 1], params);
    let other = Error::OtherParams { kernel: "planted_barrier", given: "GeluFwd" };
    assert_eq!(run(&GeluFwd::default()), Err(other));
    assert!(gpu.alloc(usize::MAX).is_err());
}

/// The parameter struct as in an older version of the source, with another size.
struct Short;

impl ParamField for Short {
    const SIZE: usize = 8;

    fn store(&self, _: &mut [u8]) {}
}

impl Params for Short {
    const NAME: &'static str = "Planted";
}

#[test]
fn parameters_of_another_size_are_an_error() {
    let error = open().launch("planted_barrier").unwrap().run([1, 1, 1], &Short).unwrap_err();
    assert_eq!(error, Error::Params { kernel: "planted_barrier", expected: 24, found: 8 });
}
