//! The launcher on an NVIDIA GPU. Without a driver the errors are tested, and the other tests say that they were skipped.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg(feature = "cuda")]

use pheye_kernels::{Error, Gpu, Memory};

/// The first GPU; none where there is none, or where this build has no kernels for it.
fn gpu() -> Option<Gpu> {
    match Gpu::open("cuda") {
        Ok(gpu) => Some(gpu),
        Err(Error::NoDriver | Error::NoDevice { .. } | Error::NoKernels { .. }) => {
            eprintln!("skipped: no GPU, or no kernels for it");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 31 + (i >> 8) * 7 + seed) as u8).collect()
}

/// Memory that holds `bytes`.
fn filled(gpu: &Gpu, bytes: &[u8]) -> Memory {
    let memory = gpu.alloc(bytes.len()).expect("memory");
    gpu.upload(bytes, memory.all()).expect("an upload");
    memory
}

fn content(gpu: &Gpu, memory: &Memory) -> Vec<u8> {
    let mut bytes = vec![0xaa; memory.bytes()];
    gpu.download(memory.all(), &mut bytes).expect("a download");
    bytes
}

#[test]
fn a_name_that_is_none_is_an_error_everywhere() {
    for name in ["cuda:x", "cuda:-1", "cuda:1:2", "cuda:0x0", "cudas", "cuda:99999999999999999999999"] {
        assert_eq!(Gpu::open(name).err(), Some(Error::Name(name.to_owned())));
    }
}

#[test]
fn opening_says_what_is_missing_and_what_to_do() {
    let message = match Gpu::open("cuda") {
        Ok(gpu) => {
            let (free, total) = gpu.memory().unwrap();
            assert!(gpu.sms() > 0 && free > 0 && free <= total, "{gpu}: {free} of {total}");
            assert!(gpu.to_string().starts_with("cuda:0 ("), "{gpu}");
            return;
        }
        Err(error) => error,
    };
    let text = message.to_string();
    let advice = match message {
        Error::NoDriver => "libcuda cannot be loaded",
        Error::NoKernels { .. } => "this build has no GPU kernels",
        Error::NoDevice { .. } => "the driver sees 0 GPUs",
        Error::OldDriver { .. } => "install a newer driver",
        Error::OldCard { .. } => "8.0 (Ampere) or later",
        other => panic!("{other}"),
    };
    assert!(text.contains(advice), "{text}");
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let error = Gpu::open("cuda:99").err();
    match error {
        Some(Error::NoDevice { index: 99, count }) => assert!(count < 99),
        Some(Error::NoDriver | Error::OldDriver { .. }) => {
            eprintln!("skipped: no driver that could count devices")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_go_to_the_device_and_come_back() {
    let Some(gpu) = gpu() else { return };
    // Smaller than a slot of the staging ring, all of it, and more than the ring.
    for bytes in [1, 255, 4097, 256 << 10, (256 << 10) + 1, (40 << 20) + 3] {
        let sent = pattern(bytes, bytes);
        let memory = filled(&gpu, &sent);
        assert_eq!(memory.addr() % 256, 0);
        assert!(content(&gpu, &memory) == sent, "{bytes} bytes came back changed");
    }
    let empty = filled(&gpu, &[]);
    assert!(content(&gpu, &empty).is_empty());
}

#[test]
fn uploads_may_be_reused_by_the_host_at_once() {
    let Some(gpu) = gpu() else { return };
    let parts: Vec<Memory> = (0..500).map(|_| gpu.alloc(1000).unwrap()).collect();
    let mut host = vec![0; 1000];
    for (i, part) in parts.iter().enumerate() {
        host.copy_from_slice(&pattern(1000, i));
        gpu.upload(&host, part.all()).unwrap();
    }
    for (i, part) in parts.iter().enumerate() {
        assert!(content(&gpu, part) == pattern(1000, i), "upload {i}");
    }
}

#[test]
fn clear_and_copy_keep_their_order() {
    let Some(gpu) = gpu() else { return };
    let (a, b) = (filled(&gpu, &pattern(5000, 1)), filled(&gpu, &pattern(5000, 2)));
    let part = a.region(1000, "u8", 1, &[3000]).unwrap();
    gpu.clear(part).unwrap();
    gpu.copy(a.all(), b.all()).unwrap();
    gpu.clear(a.all()).unwrap();
    let mut expected = pattern(5000, 1);
    expected[1000..4000].fill(0);
    assert_eq!(content(&gpu, &b), expected);
    assert_eq!(content(&gpu, &a), vec![0; 5000]);
    let small = gpu.alloc(10).unwrap();
    assert!(matches!(gpu.copy(a.all(), small.all()), Err(Error::Size { .. })));
    assert!(matches!(gpu.upload(&[0; 11], small.all()), Err(Error::Size { .. })));
}

#[test]
fn a_recording_runs_when_it_is_launched() {
    let Some(gpu) = gpu() else { return };
    let (a, b) = (filled(&gpu, &pattern(5000, 1)), filled(&gpu, &pattern(5000, 2)));
    let work = || {
        // Given back while recording: the recording does not use it, and must not record that.
        drop(gpu.alloc(100)?);
        gpu.copy(a.all(), b.all())?;
        gpu.clear(a.all())
    };
    let ((), graph) = gpu.record::<_, Error>(work).unwrap();
    assert_eq!(content(&gpu, &b), pattern(5000, 2), "recording ran the work");
    for seed in 3..6 {
        gpu.upload(&pattern(5000, seed), a.all()).unwrap();
        graph.launch().unwrap();
        assert_eq!(content(&gpu, &b), pattern(5000, seed));
        assert_eq!(content(&gpu, &a), vec![0; 5000]);
    }
}

#[test]
fn what_cannot_be_recorded_is_an_error_and_the_gpu_goes_on() {
    let Some(gpu) = gpu() else { return };
    let memory = gpu.alloc(100).unwrap();
    let upload = gpu.record::<_, Error>(|| gpu.upload(&[1; 100], memory.all()));
    assert!(matches!(upload.err(), Some(Error::Unsupported(_))));
    let download = gpu.record::<_, Error>(|| gpu.download(memory.all(), &mut [0; 100]));
    assert!(matches!(download.err(), Some(Error::Unsupported(_))));
    let wait = gpu.record::<_, Error>(|| gpu.synchronize());
    assert!(matches!(wait.err(), Some(Error::Unsupported(_))));
    let own = gpu.record::<(), _>(|| Err(Error::Name("mine".to_owned())));
    assert_eq!(own.err(), Some(Error::Name("mine".to_owned())));
    gpu.upload(&[7; 100], memory.all()).unwrap();
    assert_eq!(content(&gpu, &memory), vec![7; 100]);
}

#[test]
fn time_passes_on_the_device() {
    let Some(gpu) = gpu() else { return };
    let memory = gpu.alloc(64 << 20).unwrap();
    let clears = |n: usize| gpu.time(|| (0..n).try_for_each(|_| gpu.clear(memory.all()))).unwrap();
    clears(1);
    let (few, many) = (clears(2), clears(200));
    assert!(many > few && !few.is_zero(), "2 clears take {few:?}, 200 take {many:?}");
}

#[test]
fn too_large_an_allocation_says_what_is_there() {
    let Some(gpu) = gpu() else { return };
    let (_, all) = gpu.memory().unwrap();
    for wanted in [1 << 50, all as usize] {
        match gpu.alloc(wanted) {
            Err(Error::OutOfMemory { wanted: said, free, total }) => {
                assert_eq!(said, wanted as u64);
                assert!(total == all && free <= total, "{free} of {total}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(content(&gpu, &filled(&gpu, &pattern(99, 0))), pattern(99, 0));
}

#[test]
fn memory_given_back_can_be_had_again() {
    let Some(gpu) = gpu() else { return };
    let (_, total) = gpu.memory().unwrap();
    // More in all than the device has.
    let part = 1usize << 30;
    for _ in 0..total as usize / part + 4 {
        let memory = gpu.alloc(part).unwrap();
        gpu.clear(memory.all()).unwrap();
    }
}

#[test]
fn a_kernel_that_is_not_there_is_an_error() {
    let Some(gpu) = gpu() else { return };
    for name in ["no_such_kernel", "", "nul\0inside"] {
        assert!(matches!(gpu.launch(name).err(), Some(Error::NoKernel { name: n, .. }) if n == name));
    }
}

#[test]
fn every_embedded_kernel_loads_with_its_record() {
    let Some(gpu) = gpu() else { return };
    let kernels = pheye_kernels::KERNELS.images().iter().flat_map(|image| image.kernels);
    for &kernel in kernels {
        match gpu.launch(kernel) {
            Ok(launch) => {
                let spec = launch.spec();
                assert!(spec.threads % 32 == 0 && (32..=1024).contains(&spec.threads), "{kernel}: {spec:?}");
                assert!(spec.params > 0, "{kernel}: {spec:?}");
            }
            // Compiled for other architectures, or too large for this card.
            Err(Error::NoKernel { .. } | Error::Driver { .. }) => eprintln!("{kernel} is not for this card"),
            Err(error) => panic!("{kernel}: {error}"),
        }
    }
}

#[test]
fn many_threads_share_a_gpu() {
    let Some(gpu) = gpu() else { return };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let gpu = gpu.clone();
            scope.spawn(move || {
                for i in 0..50 {
                    let sent = pattern(10_000 + i, thread * 50 + i);
                    let (a, b) = (filled(&gpu, &sent), gpu.alloc(sent.len()).unwrap());
                    gpu.copy(a.all(), b.all()).unwrap();
                    assert!(content(&gpu, &b) == sent, "thread {thread}, round {i}");
                }
            });
        }
    });
}
