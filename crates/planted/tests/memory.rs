//! GPU memory and its regions: safe code on any thread can access only memory that is allocated and belongs
//! to the GPU.
#![cfg(feature = "emulator")]

use std::sync::mpsc::channel;
use std::thread;

use pheye_kernels::{Error, Gpu, Memory, Region, Result};
use pheye_planted::KERNELS;
use pheye_planted::params::Planted;

fn gpu() -> Gpu {
    let gpu = Gpu::open("emulator").unwrap();
    gpu.load(&KERNELS).unwrap();
    gpu
}

fn filled(gpu: &Gpu, bytes: &[u8]) -> Memory {
    let memory = gpu.alloc(bytes.len()).unwrap();
    gpu.upload(bytes, memory.all()).unwrap();
    memory
}

fn content(gpu: &Gpu, region: Region) -> Vec<u8> {
    let mut bytes = vec![0; region.bytes()];
    gpu.download(region, &mut bytes).unwrap();
    bytes
}

/// Launches a kernel that copies x to y.
fn launch(gpu: &Gpu, x: Region, y: Region) -> Result<()> {
    let mut launch = gpu.launch("planted_output")?;
    let (blocks, n) = (1, launch.spec().threads);
    let params = Planted { x: launch.read(x), y: launch.write(y), n: n as i32, fault: 0 };
    launch.run([blocks, 1, 1], &params)
}

/// The number of elements that [`launch`] copies.
fn elements(gpu: &Gpu) -> usize {
    gpu.launch("planted_output").unwrap().spec().threads
}

#[test]
fn a_region_lies_inside_its_memory() {
    let gpu = gpu();
    let memory = gpu.alloc(64).unwrap();
    assert_eq!(memory.region(60, "f32", 4, &[1]).unwrap().addr(), memory.addr() + 60);
    let outside: [(usize, usize, &[usize]); 7] = [
        (usize::MAX - 3, 4, &[1]),
        (61, 4, &[1]),
        (65, 1, &[0]),
        (0, 4, &[1 << 62]),
        (0, 1, &[1 << 32, 1 << 32]),
        (8, usize::MAX - 7, &[1]),
        (0, 1, &[usize::MAX, 3]),
    ];
    for (start, element, dims) in outside {
        let outcome = memory.region(start, "f32", element, dims);
        assert!(matches!(outcome, Err(Error::Size { what: "a view", found: 64, .. })), "{start} {dims:?}");
    }
}

#[test]
fn a_region_keeps_its_memory_alive() {
    let gpu = Gpu::open("emulator:memory=1000").unwrap();
    let memory = filled(&gpu, &[7; 600]);
    assert!(!memory.has_regions());
    let region = memory.region(100, "u8", 1, &[50]).unwrap();
    assert!(memory.has_regions());
    drop(memory);
    assert_eq!(gpu.memory().unwrap().0, 400);
    gpu.upload(&[8; 50], region.clone()).unwrap();
    assert_eq!(content(&gpu, region), [8; 50]);
    // The last region was dropped, so the memory is free again.
    assert_eq!(gpu.memory().unwrap().0, 1000);
}

#[test]
fn memory_of_another_gpu_is_refused() {
    let (one, other) = (gpu(), gpu());
    let n = 4 * elements(&one);
    let (mine, theirs) = (filled(&one, &vec![1; n]), filled(&other, &vec![2; n]));
    let refused = [
        one.upload(&[0], theirs.all()),
        one.upload_ahead(&[0], theirs.all()).map(drop),
        one.download(theirs.all(), &mut [0]),
        one.copy(theirs.all(), mine.all()),
        one.copy(mine.all(), theirs.all()),
        one.clear(theirs.all()),
        launch(&one, theirs.all(), mine.all()),
    ];
    for outcome in refused {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::OtherGpu { .. }), "{error}");
    }
    assert_eq!((content(&one, mine.all()), content(&other, theirs.all())), (vec![1; n], vec![2; n]));
    one.clone().clear(mine.all()).unwrap();
}

#[test]
fn a_recording_does_not_outlive_its_memory() {
    let gpu = gpu();
    let (a, b) = (filled(&gpu, &[1; 100]), filled(&gpu, &[2; 100]));
    let ((), graph) = gpu.record::<_, Error>(|| gpu.copy(a.all(), b.all())).unwrap();
    graph.launch().unwrap();
    assert_eq!(content(&gpu, b.all()), [1; 100]);
    drop(a);
    assert_eq!(graph.launch(), Err(Error::Gone));
    // The same work on other memory has another fingerprint, even if that memory has the same address.
    let fingerprint = |from: &Memory| gpu.dry_run::<_, Error>(|| gpu.copy(from.all(), b.all())).unwrap().1;
    for _ in 0..10 {
        assert_ne!(fingerprint(&gpu.alloc(100).unwrap()), graph.fingerprint());
    }
}

#[test]
fn a_recording_within_a_recording() {
    let gpu = gpu();
    let (a, b) = (filled(&gpu, &[1; 100]), filled(&gpu, &[2; 100]));
    let ((), inner) = gpu.record::<_, Error>(|| gpu.copy(a.all(), b.all())).unwrap();
    let ((), fingerprint) = gpu.dry_run::<_, Error>(|| inner.launch()).unwrap();
    let ((), outer) = gpu.record::<_, Error>(|| inner.launch()).unwrap();
    assert_eq!(content(&gpu, b.all()), [2; 100], "a launch in a dry run or a recording was done");
    assert_eq!(outer.fingerprint(), fingerprint);
    outer.launch().unwrap();
    assert_eq!(content(&gpu, b.all()), [1; 100]);
    let nested = gpu.record::<_, Error>(|| gpu.record::<_, Error>(|| gpu.clear(a.all())).map(drop));
    assert!(matches!(nested.err(), Some(Error::Unsupported(_))));
    // A dry run inside a dry run adds nothing to the outer fingerprint.
    let outcome = gpu.dry_run::<_, Error>(|| {
        gpu.dry_run::<_, Error>(|| gpu.clear(a.all()))?;
        gpu.clear(b.all())
    });
    assert_eq!(outcome.unwrap().1, gpu.dry_run::<_, Error>(|| gpu.clear(b.all())).unwrap().1);
    drop(a);
    assert_eq!(outer.launch(), Err(Error::Gone));
}

#[test]
fn work_during_another_threads_dry_run_or_recording_is_done() {
    let gpu = gpu();
    let n = 4 * elements(&gpu);
    let (mine, alone) = (filled(&gpu, &vec![5; n]), filled(&gpu, &vec![0; n]));
    launch(&gpu, mine.all(), alone.all()).unwrap();
    let expected = content(&gpu, alone.all());
    assert_eq!(expected, vec![5; n]);
    // Another thread does all kinds of work, and this thread waits for it.
    let visit = || {
        let (x, y) = (filled(&gpu, &expected), filled(&gpu, &vec![0xee; n]));
        launch(&gpu, x.all(), y.all()).unwrap();
        assert_eq!(content(&gpu, y.all()), expected);
        gpu.clear(x.all()).unwrap();
        gpu.synchronize().unwrap();
        assert_eq!(content(&gpu, x.all()), vec![0; n]);
        let ((), graph) = gpu.record::<_, Error>(|| gpu.copy(y.all(), x.all())).unwrap();
        graph.launch().unwrap();
        assert_eq!(content(&gpu, x.all()), expected);
    };
    let (out, copy) = (filled(&gpu, &vec![0xee; n]), filled(&gpu, &vec![0xee; n]));
    let work = || {
        launch(&gpu, mine.all(), out.all())?;
        thread::scope(|scope| scope.spawn(visit).join().unwrap());
        gpu.copy(out.all(), copy.all())
    };
    let ((), dry) = gpu.dry_run::<_, Error>(work).unwrap();
    let ((), graph) = gpu.record::<_, Error>(work).unwrap();
    assert_eq!(graph.fingerprint(), dry, "the visitor's work was noted");
    assert_eq!(content(&gpu, out.all()), vec![0xee; n], "the work was done");
    graph.launch().unwrap();
    assert_eq!(content(&gpu, copy.all()), expected);
}

#[test]
fn work_that_panics_leaves_the_gpu_as_it_was() {
    let gpu = gpu();
    let memory = filled(&gpu, &[1; 10]);
    let panics = |recorded: bool| {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let work = || -> Result<()> { panic!("as the test wishes") };
            if recorded { gpu.record(work).map(drop) } else { gpu.dry_run(work).map(drop) }
        }));
        assert!(outcome.is_err());
    };
    panics(false);
    panics(true);
    gpu.clear(memory.all()).unwrap();
    assert_eq!(content(&gpu, memory.all()), [0; 10]);
}

#[test]
fn launches_from_the_workers_of_a_pool_wait_for_each_other() {
    // A worker that waits for its launch must not start another, which would wait for the first.
    let gpu = gpu();
    let n = 4 * elements(&gpu);
    let (x, y) = (filled(&gpu, &vec![0; n]), filled(&gpu, &vec![0; n]));
    let (done, wait) = channel();
    let work = {
        let gpu = gpu.clone();
        move || {
            rayon::scope(|scope| {
                for _ in 0..40 {
                    scope.spawn(|_| launch(&gpu, x.all(), y.all()).unwrap());
                }
            });
            let _ = done.send(());
        }
    };
    thread::spawn(work);
    wait.recv_timeout(std::time::Duration::from_secs(60)).expect("the workers wait for each other");
}

#[test]
fn many_threads_share_what_memory_there_is() {
    let gpu = Gpu::open("emulator:memory=4000").unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let outcome = gpu.alloc(1500);
                    assert!(gpu.memory().unwrap().0 <= 4000);
                    if let Err(error) = outcome {
                        assert!(
                            matches!(error, Error::OutOfMemory { wanted: 1500, total: 4000, .. }),
                            "{error}"
                        );
                    }
                }
            });
        }
    });
    assert_eq!(gpu.memory().unwrap(), (4000, 4000));
}
