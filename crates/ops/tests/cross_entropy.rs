//! Cross entropy, of logits and with the output head, on every device, compared with its formula.

mod common;

use common::{added, linear, place, product, sum, upload};
use pheye_ops::{Cx, cross_entropy};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::download;
use pheye_testkit::{Formula, Ran, Real, gradcheck, normal, plain};
use proptest::prelude::*;

/// Σ of the losses of rows with `v` logits.
fn losses<T: Real>(z: &[T], targets: &[usize], v: usize) -> T {
    sum(z.chunks(v).zip(targets).map(|(z, &target)| plain::log_sum_exp(z) - z[target]))
}

/// x [n, d], and the weight [v, d] and bias of the head.
struct Head<'a> {
    targets: &'a [i64],
    d: usize,
}

impl Formula for Head<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let [x, w, b] = inputs else { unreachable!() };
        let rows = x.chunks(self.d).zip(self.targets).filter(|&(_, &t)| t != cross_entropy::IGNORE);
        let (x, targets): (Vec<&[T]>, Vec<usize>) = rows.map(|(x, &t)| (x, t as usize)).unzip();
        let z = product(&x.concat(), w, self.d).into_iter().enumerate();
        let z: Vec<T> = z.map(|(i, z)| (z + b[i % b.len()]).stored()).collect();
        vec![losses(&z, &targets, b.len())]
    }
}

/// The loss and the gradient of x for a frozen head, or also the gradients of a trained head, times `dy`.
fn run(device: &Device, dtype: DType, targets: &[i64], i: &[Vec<f32>], dy: f32, trained: bool) -> Ran {
    let (n, v, cx) = (targets.len(), i[2].len(), Cx::new(device.clone()));
    let d = i[1].len() / v;
    let mut head = linear(v, d, &i[1], Some(&i[2]));
    let mut grads = place(device, head.params_mut(), |_| trained);
    let x = upload(device, dtype, [n, d], &i[0]);
    let alone = cross_entropy::run(&cx, &x, &head, targets, false, None).unwrap();
    let loss = cross_entropy::run(&cx, &x, &head, targets, true, Some(&mut grads)).unwrap();
    assert_eq!((alone.sum, alone.tokens), (loss.sum, loss.tokens));
    assert_eq!(loss.tokens, targets.iter().filter(|&&t| t >= 0).count());
    let mut all = vec![("x", download(&loss.dx.unwrap()))];
    if trained {
        let bias = head.bias.as_ref().unwrap();
        all.extend([("weight", added(&grads, &head.weight)), ("bias", added(&grads, bias))]);
    } else {
        assert_eq!(grads.table.len(), 0, "no gradients of a frozen head");
    }
    all.iter_mut().flat_map(|(_, x)| x).for_each(|x| *x *= dy);
    Ran { y: vec![loss.sum as f32], grads: all }
}

fn check(targets: &[i64], v: usize, d: usize) {
    let inputs = [("x", normal(1, targets.len() * d)), ("weight", normal(2, v * d)), ("bias", normal(3, v))];
    gradcheck("cross_entropy", &Head { targets, d }, &inputs, |i, dy| {
        run(&Device::Cpu, DType::F32, targets, i, dy[0], true)
    });
}

#[test]
fn at_sizes_of_use() {
    check(&[4, -100, 0, 10, -100], 11, 16);
}

proptest! {
    #![proptest_config(common::repeatable(32))]

    #[test]
    fn any_shape(
        targets in prop::collection::vec(prop_oneof![Just(-100), 0..5i64], 0..8),
        more in 0..60usize,
        d in 1..12usize,
    ) {
        check(&targets, 5 + more, d);
    }
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_ops::Graphs;
    use pheye_testkit::gpu::{bf16_values, on_all_orders, orders, round_bf16, upload_bf16, wide};
    use pheye_testkit::{Expected, Rounded, cases};

    use super::*;

    /// Logits with these targets of their rows.
    struct Logits<'a>(&'a [u32]);

    impl Formula for Logits<'_> {
        fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
            let targets: Vec<usize> = self.0.iter().map(|&t| t as usize).collect();
            vec![losses(&inputs[0], &targets, inputs[0].len() / targets.len())]
        }
    }

    /// Rows of `v` logits with this spread; the target of row i is 7i modulo v.
    fn check_logits(rows: usize, v: usize, spread: f32) {
        let mut z: Vec<f32> = bf16_values(rows * v, (rows + v) as u64).iter().map(|z| z * spread).collect();
        round_bf16(&mut z);
        let targets: Vec<u32> = (0..rows).map(|i| (7 * i % v) as u32).collect();
        let mut ran = on_all_orders(|device| {
            let cx = Cx::new(device.clone());
            let mut logits = upload_bf16(device, [rows, v], &z);
            let loss = cross_entropy::of_logits(&cx, &mut logits, &targets, false).unwrap().read().unwrap();
            assert_eq!(download(&logits), z, "the loss alone changes nothing");
            let again = cross_entropy::of_logits(&cx, &mut logits, &targets, true).unwrap().read().unwrap();
            assert_eq!(loss, again);
            vec![vec![loss as f32], download(&logits)]
        });
        let expected = Expected::of::<Rounded<f32>>(&Logits(&targets), &[("z", z)], &["z"], &[1.0]);
        let ran = Ran { grads: vec![("z", ran.pop().unwrap())], y: ran.pop().unwrap() };
        expected.check(&format!("cross entropy of {rows} rows of {v}, spread {spread}"), &ran);
    }

    #[test]
    fn logits_of_any_shape() {
        for (rows, v) in [(1, 1), (1, 7), (3, 8), (5, 33), (9, 513), (2, 4096), (3, 5003)] {
            check_logits(rows, v, 1.0);
        }
        for spread in [0.1, 20.0] {
            check_logits(3, 1031, spread);
        }
    }

    #[test]
    fn no_rows_are_zero() {
        for device in orders() {
            let cx = Cx::new(device.clone());
            let mut z = upload_bf16(&device, [0, 5], &[]);
            assert_eq!(cross_entropy::of_logits(&cx, &mut z, &[], true).unwrap().read().unwrap(), 0.0);
        }
    }

    /// A logit of -∞ adds nothing to the loss, and NaN propagates.
    #[test]
    fn logits_that_are_not_finite() {
        let device = &orders()[0];
        let cx = Cx::new(device.clone());
        let run = |z: &[f32]| {
            let mut logits = upload_bf16(device, [1, z.len()], z);
            let loss = cross_entropy::of_logits(&cx, &mut logits, &[1], true).unwrap().read().unwrap();
            (loss, download(&logits))
        };
        let (loss, dz) = run(&[f32::NEG_INFINITY, 1.0, 1.0, f32::NEG_INFINITY]);
        assert!((loss - 2f64.ln()).abs() < 1e-6);
        assert_eq!(dz, [0.0, -0.5, 0.5, 0.0]);
        let (loss, dz) = run(&[f32::NAN, 1.0, 1.0]);
        assert!(loss.is_nan() && dz.iter().all(|x| x.is_nan()));
    }

    /// The sum of many losses needs more digits than f32 has.
    #[test]
    fn the_sum_keeps_its_digits() {
        let (rows, v) = (3000, 3);
        let z = bf16_values(rows * v, 5);
        let targets = vec![2; rows];
        let [device, ..] = orders();
        let mut logits = upload_bf16(&device, [rows, v], &z);
        let cx = Cx::new(device);
        let sum = cross_entropy::of_logits(&cx, &mut logits, &targets, false).unwrap().read().unwrap();
        let truth = Logits(&targets).eval(&[wide(&z)])[0];
        assert!((sum / truth - 1.0).abs() < 2e-8, "{sum} {truth}");
    }

    fn check_head(targets: &[i64], v: usize, d: usize, trained: bool) {
        let n = targets.len();
        let inputs =
            [("x", bf16_values(n * d, 1)), ("weight", bf16_values(v * d, 2)), ("bias", bf16_values(v, 3))];
        let values = inputs.each_ref().map(|(_, x)| x.clone());
        let names = if trained { &["x", "weight", "bias"][..] } else { &["x"] };
        let mut ran = on_all_orders(|device| {
            let Ran { y, grads } = run(device, DType::Bf16, targets, &values, 1.0, trained);
            assert!(grads.iter().map(|(name, _)| name).eq(names));
            [y].into_iter().chain(grads.into_iter().map(|(_, x)| x)).collect()
        })
        .into_iter();
        let ran = Ran { y: ran.next().unwrap(), grads: names.iter().copied().zip(ran).collect() };
        let expected = Expected::of::<Rounded<f32>>(&Head { targets, d }, &inputs, &["x"], &[1.0]);
        expected.check(&format!("head of {n} rows, {v} by {d}"), &ran);
    }

    #[test]
    fn through_the_head() {
        let every: Vec<i64> = (0..37).map(|i| i * 5 % 41).collect();
        check_head(&every, 41, 24, false);
        check_head(&every, 48, 64, true);
        check_head(&[3], 9, 16, false);
    }

    #[test]
    fn random_sizes() {
        for mut draw in cases(6) {
            check_logits(draw.size(40), draw.size(3000), draw.pick(&[0.5, 1.0, 5.0]));
            let (v, d) = (draw.size(300), draw.size(90));
            let target = |_| if draw.below(3) == 0 { cross_entropy::IGNORE } else { draw.below(v) as i64 };
            let targets: Vec<i64> = (0..70).map(target).collect();
            check_head(&targets[..draw.size(70)], v, d, draw.coin());
        }
    }

    #[test]
    fn a_batch_of_several_chunks_is_its_parts() {
        let [_, device, _] = orders();
        let cx = Cx::new(device.clone());
        let (n, v, d) = (1030, 11, 8);
        let mut head = linear(v, d, &bf16_values(v * d, 2), None);
        place(&device, head.params_mut(), |_| false);
        let x = upload_bf16(&device, [n, d], &bf16_values(n * d, 1));
        let targets: Vec<i64> = (0..n as i64).map(|i| i % 11).collect();
        let run = |rows: std::ops::Range<usize>| {
            let x = x.rows(rows.clone()).unwrap();
            let loss = cross_entropy::run(&cx, &x, &head, &targets[rows], true, None).unwrap();
            (loss.sum, download(&loss.dx.unwrap()))
        };
        let (whole, first, last) = (run(0..n), run(0..1024), run(1024..n));
        assert_eq!(whole.1, [first.1, last.1].concat());
        assert!((whole.0 / (first.0 + last.0) - 1.0).abs() < 1e-12);
    }

    /// The work is recorded once, and replayed with other targets and other rows of x in the same memory.
    #[test]
    fn recorded_losses_are_those_of_a_run() {
        let [device, ..] = orders();
        let (cx, mut graphs) = (Cx::new(device.clone()), Graphs::default());
        let mut head = linear(9, 8, &bf16_values(72, 1), Some(&bf16_values(9, 2)));
        place(&device, head.params_mut(), |_| false);
        let x = upload_bf16(&device, [3, 8], &bf16_values(24, 3));
        let rounds = [[3, 6, -100], [5, 8, -100], [-100, 2, 4]].repeat(4);
        for targets in &rounds {
            let queued = cx
                .replay(&mut graphs, |cx| cross_entropy::queue(cx, &x, &head, targets, true, None))
                .unwrap();
            let run = cross_entropy::run(&Cx::new(device.clone()), &x, &head, targets, true, None).unwrap();
            assert_eq!((queued.sum.read().unwrap(), queued.tokens), (run.sum, 2));
            assert_eq!(download(&queued.dx.unwrap()), download(&run.dx.unwrap()));
        }
        // The addresses change until the arena holds all buffers that the work needs.
        assert!(graphs.len() <= 3, "{} recordings", graphs.len());
    }

    #[test]
    fn rows_without_a_target_are_left_out() {
        check_head(&[4, -100, 0, 10, -100, 7], 11, 16, true);
        check_head(&[-100, 8, -100], 11, 16, false);
        let [device, ..] = orders();
        let cx = Cx::new(device.clone());
        let mut head = linear(9, 8, &bf16_values(72, 1), None);
        place(&device, head.params_mut(), |_| false);
        let x = upload_bf16(&device, [2, 8], &bf16_values(16, 2));
        let loss = cross_entropy::run(&cx, &x, &head, &[-100, -100], true, None).unwrap();
        assert_eq!((loss.sum, loss.tokens, download(&loss.dx.unwrap())), (0.0, 0, vec![0.0; 16]));
    }
}
