//! What the children of `tests/driver.rs` do; their files of kernels hold `standin_add`.

use std::sync::mpsc::channel;
use std::thread;

use pheye_tensor::{Arena, Device};

use super::*;

struct StandIn {
    x: In,
    y: Out,
}

impl ParamField for StandIn {
    const SIZE: usize = 16;

    fn store(&self, to: &mut [u8]) {
        self.x.store(&mut to[..8]);
        self.y.store(&mut to[8..]);
    }
}

impl Params for StandIn {
    const NAME: &'static str = "StandIn";
}

/// The same struct in another state of the source.
struct Narrow(In);

impl ParamField for Narrow {
    const SIZE: usize = 8;

    fn store(&self, to: &mut [u8]) {
        self.0.store(to);
    }
}

impl Params for Narrow {
    const NAME: &'static str = "StandIn";
}

/// Opens a device.
pub(crate) fn open(device: &str) -> Result<String> {
    let gpu = Gpu::open(device)?;
    let (free, total) = gpu.memory()?;
    Ok(format!("{gpu}, {} multiprocessors, {free} of {total} bytes free", gpu.sms()))
}

/// `standin_add` on `blocks`·2 blocks, x in bf16 and y in f32.
fn add(gpu: &Gpu, blocks: usize, x: &Memory, y: &Memory) -> Result<()> {
    let mut launch = gpu.launch("standin_add")?;
    let (x, y) = (x.region(0, "bf16", 2, &[4, 8])?, y.region(0, "f32", 4, &[32])?);
    let params = StandIn { x: launch.read(x), y: launch.write(y) };
    launch.run([blocks, 2, 1], &params)
}

/// Something of everything: memory, copies, launches, a recording, a clock.
fn work_on(gpu: &Gpu) -> Result<Duration> {
    let (x, y) = (gpu.alloc(64)?, gpu.alloc(128)?);
    let sent: Vec<u8> = (0..64).collect();
    gpu.upload(&sent, x.all())?;
    add(gpu, 3, &x, &y)?;
    gpu.synchronize()?;
    gpu.clear(y.all())?;
    gpu.copy(x.all(), y.all())?;
    let record = || {
        // Given back while recording.
        drop(gpu.alloc(100)?);
        add(gpu, 3, &x, &y)
    };
    let ((), graph) = gpu.record::<_, Error>(record)?;
    graph.launch()?;
    let time = gpu.time(|| graph.launch())?;
    let ahead = gpu.upload_ahead(&sent[..8], x.all())?;
    ahead.join()?;
    let mut back = vec![0; 128];
    gpu.download(y.all(), &mut back)?;
    assert!(back[..64] == sent && back[64..] == [0; 64]);
    gpu.memory()?;
    Ok(time)
}

/// [`work_on`] a GPU; the time the driver says.
pub(crate) fn work() -> Result<String> {
    Ok(format!("{:?}", work_on(&Gpu::open("cuda")?)?))
}

/// Allocations of the sizes given, all alive at once.
pub(crate) fn alloc(sizes: &str) -> Result<String> {
    let gpu = Gpu::open("cuda")?;
    let sizes = sizes.split(' ').map(|size| size.parse().expect("a size"));
    let all = sizes.map(|size| gpu.alloc(size)).collect::<Result<Vec<_>>>()?;
    Ok(format!("{} allocations", all.len()))
}

/// What a kernel says of itself.
pub(crate) fn kernel(name: &str) -> Result<String> {
    let gpu = Gpu::open("cuda")?;
    // The name of a kernel is a constant of the program that launches it.
    let launch = gpu.launch(String::leak(name.to_owned()))?;
    Ok(format!("{:?}", launch.spec()))
}

/// A launch on `blocks`·2 blocks, and the wait for it.
pub(crate) fn launch(blocks: &str) -> Result<String> {
    let gpu = Gpu::open("cuda")?;
    let (x, y) = (gpu.alloc(64)?, gpu.alloc(128)?);
    let mut odd = gpu.launch("standin_add")?;
    let params = Narrow(odd.read(x.all()));
    let narrow = Error::Params { kernel: "standin_add", expected: 16, found: 8 };
    assert_eq!(odd.run([1, 1, 1], &params), Err(narrow));
    let other = gpu.launch("standin_add")?.run([1, 1, 1], &pheye_kernels::params::GeluFwd::default());
    assert_eq!(other, Err(Error::OtherParams { kernel: "standin_add", given: "GeluFwd" }));
    add(&gpu, blocks.parse().expect("a number"), &x, &y)?;
    gpu.synchronize()?;
    Ok("done".to_owned())
}

/// Work until it fails, and then work that does not.
pub(crate) fn failures() -> Result<String> {
    let gpu = Gpu::open("cuda")?;
    let mut failed = 0;
    while work_on(&gpu).is_err() && failed < 10 {
        failed += 1;
    }
    Ok(format!("{failed} failed, then {:?}", work_on(&gpu)?))
}

/// Two threads on one GPU: one does a dry run and a recording, the other queues work that is executed.
pub(crate) fn threads() -> Result<String> {
    let gpu = Gpu::open("cuda")?;
    let (x, y) = (gpu.alloc(64)?, gpu.alloc(128)?);
    let (of_one, of_other) = (
        || add(&gpu, 1, &x, &y),
        |blocks| {
            (0..10).try_for_each(|_| {
                drop(gpu.alloc(100)?);
                add(&gpu, blocks, &x, &y)
            })
        },
    );
    gpu.dry_run::<_, Error>(|| {
        of_one()?;
        thread::scope(|scope| scope.spawn(|| of_other(2)).join().expect("no panic"))?;
        of_one()
    })?;
    thread::scope(|scope| {
        let (started, wait) = channel();
        let mut other = None;
        let ((), graph) = gpu.record::<_, Error>(|| {
            of_one()?;
            other = Some(scope.spawn(move || {
                let _ = started.send(());
                of_other(3)
            }));
            let _ = wait.recv();
            // Time to queue something, were it let.
            thread::sleep(Duration::from_millis(30));
            of_one()
        })?;
        other.map_or(Ok(()), |other| other.join().expect("no panic"))?;
        graph.launch()
    })?;
    gpu.synchronize()?;
    Ok("done".to_owned())
}

/// Buffers of these sizes from one arena, each given back before the next.
pub(crate) fn arena(sizes: &str) -> Result<String> {
    let gpu = Gpu::open("cuda")?;
    let arena = Arena::of(&Device::Gpu(gpu));
    let sizes: Vec<usize> = sizes.split(' ').map(|size| size.parse().expect("a size")).collect();
    for &size in &sizes {
        arena.take(size).map_err(|error| error.gpu().cloned().expect("an error of the GPU"))?;
    }
    Ok(format!("{} buffers, one after another", sizes.len()))
}
