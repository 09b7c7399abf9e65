//! Several threads on one GPU: each has its own dry runs and recordings, and its tables and memory are not reused
//! before its work is queued.
#![cfg(feature = "emulator")]

use std::sync::Barrier;
use std::thread;

use pheye_ops::linear::{self, Linear};
use pheye_ops::{Cx, Error, Graphs, embedding};
use pheye_tensor::{DType, Device, Param, Tensor};
use pheye_testkit::normal;

fn emulator() -> Device {
    "emulator".parse().unwrap()
}

fn on(device: &Device, shape: [usize; 2], seed: u64) -> Tensor {
    let values = normal(seed, shape[0] * shape[1]);
    Tensor::from_f32(shape, &values).unwrap().to_dtype(DType::Bf16).unwrap().to_device(device).unwrap()
}

/// Looks up rows of a table and passes them through two linears.
struct Net {
    table: Param,
    up: Linear,
    down: Linear,
}

impl Net {
    fn new(device: &Device) -> Net {
        let linear = |shape, seed| Linear { weight: Param::frozen("w", on(device, shape, seed)), bias: None };
        let table = Param::frozen("table", on(device, [50, 16], 1));
        Net { table, up: linear([24, 16], 2), down: linear([16, 24], 3) }
    }

    fn run(&self, cx: &Cx, ids: &[u32]) -> Result<Tensor, Error> {
        let x = embedding::forward(cx, ids, &self.table)?;
        let y = linear::forward(cx, &x, &self.up)?.0;
        Ok(linear::forward(cx, &y, &self.down)?.0)
    }
}

/// The ids of thread `thread` in round `round`; always three, so that all rounds are the same work with other tables.
fn ids(thread: u32, round: u32) -> [u32; 3] {
    [thread * 20 + round, 7 * round % 50, (thread + 3 * round) % 50]
}

#[test]
fn a_launch_while_another_thread_rehearses_is_done() {
    let device = emulator();
    let net = Net::new(&device);
    let expected = net.run(&Cx::new(device.clone()), &[1, 2, 3]).unwrap().to_vec_f32().unwrap();
    let cx = Cx::new(device.clone());
    for visitor in [Cx::new(device.clone()), cx.clone()] {
        let mut visits = 0;
        let visit = || net.run(&visitor, &[1, 2, 3]).unwrap().to_vec_f32().unwrap();
        let work = |cx: &Cx| {
            let y = net.run(cx, &[4, 5, 6])?;
            // Once in the dry run and once in the recording.
            visits += 1;
            assert_eq!(thread::scope(|scope| scope.spawn(visit).join().unwrap()), expected);
            Ok::<_, Error>(y)
        };
        let y = cx.replay(&mut Graphs::default(), work).unwrap().to_vec_f32().unwrap();
        assert_eq!((y, visits), (net.run(&cx, &[4, 5, 6]).unwrap().to_vec_f32().unwrap(), 2));
    }
}

/// Two threads replay concurrently, in separate contexts or in a shared one.
fn at_once(contexts: [Cx; 2], net: &Net) {
    const ROUNDS: u32 = 20;
    let alone = |i: u32| -> Vec<Vec<f32>> {
        let cx = Cx::new(contexts[0].device.clone());
        (0..ROUNDS).map(|round| net.run(&cx, &ids(i, round)).unwrap().to_vec_f32().unwrap()).collect()
    };
    let expected = [alone(0), alone(1)];
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for (i, (cx, expected)) in contexts.iter().zip(&expected).enumerate() {
            let start = &start;
            scope.spawn(move || {
                let mut graphs = Graphs::default();
                for (round, expected) in (0..).zip(expected) {
                    start.wait();
                    let y = cx.replay(&mut graphs, |cx| net.run(cx, &ids(i as u32, round))).unwrap();
                    assert_eq!(&y.to_vec_f32().unwrap(), expected, "thread {i}, round {round}");
                    let y = net.run(cx, &ids(i as u32, round)).unwrap();
                    assert_eq!(&y.to_vec_f32().unwrap(), expected, "thread {i}, round {round}, queued");
                }
            });
        }
    });
}

#[test]
fn two_threads_replay_at_once() {
    let device = emulator();
    let net = Net::new(&device);
    at_once([Cx::new(device.clone()), Cx::new(device.clone())], &net);
    let cx = Cx::new(device);
    at_once([cx.clone(), cx], &net);
}

#[test]
fn memory_of_a_rehearsal_is_nobody_elses_until_it_is_queued() {
    let device = emulator();
    let cx = Cx::new(device);
    let at = |t: &Tensor| t.region().unwrap().addr();
    let hold = cx.arena.hold();
    let mine = cx.empty([64, 64]).unwrap();
    let address = at(&mine);
    drop(mine);
    let theirs = thread::scope(|scope| scope.spawn(|| at(&cx.empty([64, 64]).unwrap())).join().unwrap());
    assert_ne!(theirs, address);
    // This thread may reuse the memory, and after the hold ends so may every other.
    assert_eq!(at(&cx.empty([64, 64]).unwrap()), address.min(theirs));
    drop(hold);
    let both = thread::scope(|scope| {
        let two = || {
            let (a, b) = (cx.empty([64, 64]).unwrap(), cx.empty([64, 64]).unwrap());
            [at(&a), at(&b)]
        };
        scope.spawn(two).join().unwrap()
    });
    assert!(both.contains(&address) && both.contains(&theirs));
}

#[test]
fn a_table_is_kept_while_somebody_uses_it() {
    let device = emulator();
    let cx = Cx::new(device.clone());
    let Device::Gpu(gpu) = &device else { unreachable!() };
    let region = cx.table(&[1, 2, 3]).unwrap();
    // More tables than the cache holds.
    (0..3000).for_each(|i| drop(cx.table(&[i, i + 1, 77]).unwrap()));
    let mut words = [0u8; 12];
    gpu.download(region, &mut words).unwrap();
    assert_eq!(words.map(u32::from), [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
}
