//! AdamW and the gradient norm on every device, compared with their formulas.

mod common;

use common::{param, train_all, values};
use pheye_ops::adamw::{AdamW, Moments, global_norm, step};
use pheye_ops::{Cx, Error};
use pheye_tensor::{DType, Device, Grads, Masters, Param, ParamTable, Tensor};
use pheye_testkit::gpu::{download, round_bf16, upload_f32};
use pheye_testkit::{Real, Rule, normal};
use proptest::prelude::*;

const HP: AdamW = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };

/// State [p, m, v] after a step with gradient g.
fn reference<T: Real>(state: &mut [Vec<T>; 3], g: &[f32], t: i32, scale: f64) {
    let [p, m, v] = state;
    let c = T::of;
    for (i, &g) in g.iter().enumerate() {
        let g = c(g.into()) * c(scale);
        m[i] = c(HP.beta1) * m[i] + c(1.0 - HP.beta1) * g;
        v[i] = c(HP.beta2) * v[i] + c(1.0 - HP.beta2) * g * g;
        let m = m[i] / c(1.0 - HP.beta1.powi(t));
        let v = v[i] / c(1.0 - HP.beta2.powi(t));
        p[i] = p[i] - c(HP.lr * HP.weight_decay) * p[i] - c(HP.lr) * m / (v.sqrt() + c(HP.eps));
    }
}

/// Trained parameters (matrices and one vector) and a frozen one.
struct Model {
    params: Vec<Param>,
    /// The master weights for the launch over all parameters; only on a GPU.
    #[cfg_attr(not(feature = "emulator"), expect(dead_code, reason = "only for the GPU tests"))]
    masters: Option<Masters>,
    grads: Grads,
    moments: Moments,
}

fn model(device: &Device, sizes: &[usize], moments: DType) -> Model {
    let named = |&n: &usize| match n % 2 {
        0 => param(&n.to_string(), [2, n / 2], &normal(n as u64, n)),
        _ => param(&n.to_string(), [n], &normal(n as u64, n)),
    };
    let mut params: Vec<Param> =
        sizes.iter().map(named).chain([param("frozen", [3, 2], &normal(9, 6))]).collect();
    let table = ParamTable::assign(params.iter_mut(), |p| p.name != "frozen").unwrap();
    let masters = match device {
        Device::Cpu => None,
        _ => Some(table.upload(params.iter_mut(), device).unwrap()),
    };
    let zeros = || Tensor::zeros_on(device, [table.len()], moments).unwrap();
    let moments = Moments { m: zeros(), v: zeros() };
    Model { params, masters, moments, grads: Grads::on(device, table).unwrap() }
}

/// The gradient of parameter i in step t.
fn gradient(t: u64, i: usize, n: usize) -> Vec<f32> {
    normal(t * 10 + i as u64, n)
}

/// Sets the gradient of every trained parameter; the padding between parameters stays zero.
fn set_gradients(model: &mut Model, device: &Device, t: u64) {
    let mut flat = vec![0.0; model.grads.table.len()];
    for (i, (_, at)) in model.grads.table.entries().iter().enumerate() {
        flat[at.clone()].copy_from_slice(&gradient(t, i, at.len()));
    }
    model.grads.flat = upload_f32(device, [flat.len()], &flat);
}

/// The state after `steps` steps: p, m, v and the matrix for GEMMs of each parameter, then the frozen parameter.
fn after(device: &Device, sizes: &[usize], steps: u64, one: impl Fn(&Cx, &mut Model, u64)) -> Vec<Vec<f32>> {
    let cx = Cx::new(device.clone());
    let mut model = model(device, sizes, DType::F32);
    for t in 1..=steps {
        set_gradients(&mut model, device, t);
        one(&cx, &mut model, t);
    }
    let mut out = Vec::new();
    for p in &model.params[..sizes.len()] {
        let at = model.grads.table.range(p).unwrap();
        let view = |t: &Tensor| download(&t.view(at.start, [at.len()]).unwrap());
        let Moments { m, v } = &model.moments;
        out.extend([download(&p.value), view(m), view(v), download(p.matrix())]);
    }
    out.push(download(&model.params[sizes.len()].value));
    out
}

/// One launch per parameter.
fn each(cx: &Cx, model: &mut Model, t: u64) {
    let Model { params, grads, moments, .. } = model;
    step(cx, &mut params.iter_mut().collect::<Vec<_>>(), grads, moments, &HP, t, 0.25).unwrap();
}

/// Compares the result of [`after`] with the formula; `narrow` means that the matrices are bf16.
fn check(sizes: &[usize], steps: u64, narrow: bool, ran: &[Vec<f32>]) {
    let start = |n: usize| normal(n as u64, n);
    let lift = |n: usize| start(n).into_iter().map(f64::from).collect::<Vec<f64>>();
    let mut truth: Vec<[Vec<f64>; 3]> =
        sizes.iter().map(|&n| [lift(n), vec![0.0; n], vec![0.0; n]]).collect();
    let mut naive: Vec<[Vec<f32>; 3]> =
        sizes.iter().map(|&n| [start(n), vec![0.0; n], vec![0.0; n]]).collect();
    for t in 1..=steps {
        for (i, &n) in sizes.iter().enumerate() {
            let g = gradient(t, i, n);
            reference(&mut truth[i], &g, t as i32, 0.25);
            reference(&mut naive[i], &g, t as i32, 0.25);
        }
    }
    let kept = |mut matrix: Vec<f32>| {
        if narrow {
            round_bf16(&mut matrix);
        }
        matrix
    };
    for (i, &n) in sizes.iter().enumerate() {
        for (k, name) in ["p", "m", "v"].iter().enumerate() {
            let name = format!("{name} of {n} values");
            Rule::OUTPUT.compare(name, &ran[4 * i + k], &naive[i][k], &truth[i][k]).check();
        }
        let p = ran[4 * i].clone();
        let matrix = if n % 2 == 0 { kept(p) } else { p };
        assert_eq!(ran[4 * i + 3], matrix, "the matrix for GEMMs");
    }
    assert_eq!(ran[4 * sizes.len()], kept(normal(9, 6)), "the frozen parameter");
}

fn check_on_cpu(sizes: &[usize], steps: u64) {
    check(sizes, steps, false, &after(&Device::Cpu, sizes, steps, each));
}

#[test]
fn follows_the_formula_for_twenty_steps() {
    check_on_cpu(&[5000, 33, 1], 20);
}

proptest! {
    #![proptest_config(common::repeatable(16))]

    #[test]
    fn any_sizes(sizes in prop::collection::vec(1..200usize, 1..5), steps in 1..4u64) {
        check_on_cpu(&sizes, steps);
    }
}

#[test]
fn a_zero_gradient_at_the_first_step_leaves_only_decay() {
    let (cx, mut p) = (Cx::cpu(), param("p", [2], &[1.0, -2.0]));
    let grads = train_all(vec![&mut p]);
    let mut moments = Moments { m: grads.table.zeros(), v: grads.table.zeros() };
    step(&cx, &mut [&mut p], &grads, &mut moments, &HP, 1, 1.0).unwrap();
    assert_eq!(values(&p.value), [0.999, -1.998]);
}

/// The gradient norm by its definition, in f64.
fn norm_of(g: &[f32]) -> f64 {
    g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn norm_is_that_of_all_gradients() {
    let mut all = [param("a", [50_001], &vec![0.0; 50_001]), param("b", [3], &[0.0; 3])];
    let mut grads = train_all(all.iter_mut().collect());
    let (a, b) = (normal(1, 50_001), [3e20, -4e20, 0.0]);
    grads.of(&all[0]).unwrap().unwrap().copy_from_slice(&a);
    let norm = global_norm(&Cx::cpu(), &grads).unwrap();
    assert!((norm / norm_of(&a) - 1.0).abs() < 1e-13);
    // Values whose squares exceed the range of f32.
    grads.of(&all[1]).unwrap().unwrap().copy_from_slice(&b);
    assert!((global_norm(&Cx::cpu(), &grads).unwrap() / 5e20 - 1.0).abs() < 1e-7);
}

#[test]
fn moments_of_another_length_are_refused() {
    let mut p = param("p", [2], &[1.0, -2.0]);
    let grads = train_all(vec![&mut p]);
    let mut moments = Moments { m: grads.table.zeros(), v: Tensor::zeros([1], DType::F32) };
    let fault = step(&Cx::cpu(), &mut [&mut p], &grads, &mut moments, &HP, 1, 1.0).unwrap_err();
    assert!(matches!(fault, Error::Shapes { op: "adamw", left_name: "v", .. }));
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_ops::Graphs;
    use pheye_ops::adamw::{Group, queue_norm, queue_step};
    use pheye_testkit::gpu::{on_all_orders, orders};

    use super::*;

    /// All parameters.
    fn whole(grads: &Grads) -> Group {
        Group { at: 0..grads.flat.shape().elements(), hp: HP }
    }

    #[test]
    fn two_ranges_are_updated_as_one() {
        let (sizes, steps) = (&[40, 5000, 33][..], 3);
        let all = |cx: &Cx, model: &mut Model, t| {
            let Model { masters, grads, moments, .. } = model;
            let norm = queue_norm(cx, grads, 0.25, None).unwrap();
            let cut = grads.table.entries()[1].1.start;
            for at in [0..cut, cut..grads.flat.shape().elements()] {
                let group = Group { at, hp: HP };
                queue_step(cx, masters.as_ref().unwrap(), &group, grads, moments, t, &norm).unwrap();
            }
        };
        check(sizes, steps, true, &on_all_orders(|device| after(device, sizes, steps, all)));
    }

    #[test]
    fn all_parameters_in_one_launch() {
        for (sizes, steps) in [(&[5000, 33, 1, 34][..], 5), (&[1], 2)] {
            let all = |cx: &Cx, model: &mut Model, t| {
                let Model { masters, grads, moments, .. } = model;
                let norm = queue_norm(cx, grads, 0.25, None).unwrap();
                queue_step(cx, masters.as_ref().unwrap(), &whole(grads), grads, moments, t, &norm).unwrap();
            };
            check(sizes, steps, true, &on_all_orders(|device| after(device, sizes, steps, all)));
        }
    }

    #[test]
    fn one_parameter_at_a_time() {
        let (sizes, steps) = (&[1030, 33, 1, 2], 3);
        check(sizes, steps, true, &on_all_orders(|device| after(device, sizes, steps, each)));
    }

    #[test]
    fn norm_and_clip() {
        for n in [1, 3, 4, 5, 1023, 70_001] {
            let g: Vec<f32> = normal(n as u64, n);
            let truth = norm_of(&g);
            let ran = on_all_orders(|device| {
                let cx = Cx::new(device.clone());
                let grads = Grads { flat: upload_f32(device, [n], &g), table: ParamTable::default() };
                let norm = global_norm(&cx, &grads).unwrap();
                assert!((norm / truth - 1.0).abs() < 1e-7, "{n}: {norm} {truth}");
                let queue = |scale, clip| download(&queue_norm(&cx, &grads, scale, clip).unwrap());
                vec![queue(0.5, Some(truth)), queue(0.5, Some(truth / 4.0)), queue(0.5, None)]
            });
            for (k, factor) in [(0, 0.5), (1, 0.25), (2, 0.5)] {
                assert!((f64::from(ran[k][0]) / truth - 0.5).abs() < 1e-6);
                assert!((f64::from(ran[k][1]) - factor).abs() < 1e-6, "{n}, {k}: {:?}", ran[k]);
            }
        }
    }

    #[test]
    fn squares_beyond_the_range_of_f32() {
        for device in orders() {
            let cx = Cx::new(device.clone());
            let flat = upload_f32(&device, [3], &[3e20, -4e20, 1e-30]);
            let norm = global_norm(&cx, &Grads { flat, table: ParamTable::default() }).unwrap();
            assert!((norm / 5e20 - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_norm_that_is_not_finite_changes_nothing() {
        for bad in [f32::NAN, f32::INFINITY] {
            on_all_orders(|device| {
                let cx = Cx::new(device.clone());
                let Model { masters, mut grads, mut moments, .. } = model(device, &[40], DType::F32);
                let masters = masters.unwrap();
                let before = download(&masters.values);
                let mut g = vec![1.0; grads.table.len()];
                g[7] = bad;
                grads.flat = upload_f32(device, [g.len()], &g);
                let norm = queue_norm(&cx, &grads, 1.0, Some(1.0)).unwrap();
                queue_step(&cx, &masters, &whole(&grads), &grads, &mut moments, 1, &norm).unwrap();
                assert!(download(&norm)[1].is_nan());
                assert_eq!(download(&masters.values), before);
                assert!(download(&moments.m).iter().chain(&download(&moments.v)).all(|&x| x == 0.0));
                vec![]
            });
        }
    }

    /// A recorded step is replayed with other scalars.
    #[test]
    fn recorded_steps_are_those_of_the_formula() {
        let run = |recorded: bool| {
            let [device, ..] = orders();
            let cx = Cx::new(device.clone());
            let mut model = model(&device, &[300], DType::F32);
            set_gradients(&mut model, &device, 1);
            let Model { masters, grads, moments, .. } = &mut model;
            let masters = masters.as_ref().unwrap();
            let mut graphs = Graphs::default();
            for t in 1..=4 {
                let mut work = |cx: &Cx| -> pheye_ops::Result<()> {
                    let norm = queue_norm(cx, grads, 1.0 / t as f64, Some(1.0))?;
                    queue_step(cx, masters, &whole(grads), grads, moments, t, &norm)
                };
                if recorded { cx.replay(&mut graphs, work).unwrap() } else { work(&cx).unwrap() }
            }
            // The first run may use memory other than the lowest free address; all later runs use the same memory.
            assert!(graphs.len() <= 2 && graphs.is_empty() != recorded, "{} recordings", graphs.len());
            download(&masters.values)
        };
        assert_eq!(run(true), run(false));
    }

    /// One launch for all parameters and one per parameter differ only in the random bits of the stochastic rounding.
    #[test]
    fn narrow_moments_one_parameter_at_a_time() {
        let sizes = [1, 2, 3, 7, 258];
        let ran = on_all_orders(|device| {
            let cx = Cx::new(device.clone());
            let mut model = model(device, &sizes, DType::Bf16);
            set_gradients(&mut model, device, 1);
            let Model { params, grads, moments, .. } = &mut model;
            step(&cx, &mut params.iter_mut().collect::<Vec<_>>(), grads, moments, &HP, 1, 1.0).unwrap();
            vec![download(&moments.m), download(&moments.v), download(&grads.flat)]
        });
        for (i, &g) in ran[2].iter().enumerate() {
            let g = f64::from(g);
            for (k, truth) in [(0, 0.1 * g), (1, 0.001 * g * g)] {
                let off = (f64::from(ran[k][i]) - truth).abs();
                assert!(off < 2f64.powi(-7) * truth.abs() + 1e-12, "element {i}: {} of {truth}", ran[k][i]);
            }
        }
    }

    /// bf16 moments are rounded to one of the two neighbours, and without bias.
    #[test]
    fn narrow_moments_are_rounded_without_bias() {
        let n = 8190;
        let ran = on_all_orders(|device| {
            let cx = Cx::new(device.clone());
            let Model { masters, mut grads, mut moments, .. } = model(device, &[n], DType::Bf16);
            let masters = masters.unwrap();
            let mut g = vec![0.0; grads.table.len()];
            g[..n].fill(0.123);
            grads.flat = upload_f32(device, [g.len()], &g);
            let norm = queue_norm(&cx, &grads, 1.0, None).unwrap();
            queue_step(&cx, &masters, &whole(&grads), &grads, &mut moments, 1, &norm).unwrap();
            vec![download(&moments.m), download(&moments.v), download(&masters.values)]
        });
        let g = f64::from(0.123f32);
        for (k, truth) in [(0, 0.1 * g), (1, 0.001 * g * g)] {
            let step = (truth.log2().floor() - 7.0).exp2();
            let low = (truth / step).floor() * step;
            let mean = ran[k][..n].iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
            for &x in &ran[k][..n] {
                assert!([low, low + step].contains(&f64::from(x)), "{x} is not a neighbour of {truth}");
            }
            // Five standard deviations of the mean of n random roundings.
            assert!((mean - truth).abs() < 5.0 * 0.5 * step / (n as f64).sqrt(), "{mean} {truth}");
            assert!(ran[k][n..].iter().all(|&x| x == 0.0));
        }
        let expected = |p: f32| f64::from(p) * (1.0 - HP.lr * HP.weight_decay) - HP.lr;
        let near = |(&p, &p0): (&f32, &f32)| (f64::from(p) - expected(p0)).abs() < 1e-6;
        assert!(ran[2].iter().zip(&normal(n as u64, n)).all(near));
    }
}
