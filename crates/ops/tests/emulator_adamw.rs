//! AdamW and the norm of gradients on the emulator against their formulas.
#![cfg(feature = "emulator")]

mod common;

use common::param;
use pheye_ops::adamw::{AdamW, Moments, global_norm, queue_norm, queue_step, step};
use pheye_ops::{Cx, Graphs};
use pheye_tensor::{DType, Device, Grads, Masters, Param, ParamTable, Tensor};
use pheye_testkit::gpu::{assert_rule, download, on_all_orders, orders, round_bf16, upload_f32};
use pheye_testkit::{Real, Rule, normal};

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

/// Trained parameters, matrices and one vector, and a frozen one.
struct Model {
    params: Vec<Param>,
    masters: Masters,
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
    let masters = table.upload(params.iter_mut(), device).unwrap();
    let zeros = || Tensor::zeros_on(device, [table.len()], moments).unwrap();
    let moments = Moments { m: zeros(), v: zeros() };
    Model { params, masters, moments, grads: Grads::on(device, table).unwrap() }
}

/// Gives every trained parameter a gradient; the space between parameters stays zero.
fn set_gradients(model: &mut Model, device: &Device, t: u64) -> Vec<Vec<f32>> {
    let mut flat = vec![0.0; model.grads.table.len()];
    let mut all = Vec::new();
    for (i, (_, at)) in model.grads.table.entries().iter().enumerate() {
        all.push(normal(t * 10 + i as u64, at.len()));
        flat[at.clone()].copy_from_slice(&all[i]);
    }
    model.grads.flat = upload_f32(device, [flat.len()], &flat);
    all
}

/// Steps by one launch for all parameters, or by one for each.
fn check(sizes: &[usize], steps: u64, flat: bool) {
    let start = |n: usize| normal(n as u64, n);
    let lift = |n: usize| start(n).into_iter().map(f64::from).collect::<Vec<f64>>();
    let zeros = |n: usize| vec![0.0; n];
    let mut truth: Vec<[Vec<f64>; 3]> = sizes.iter().map(|&n| [lift(n), zeros(n), zeros(n)]).collect();
    let mut naive: Vec<[Vec<f32>; 3]> =
        sizes.iter().map(|&n| [start(n), vec![0.0; n], vec![0.0; n]]).collect();
    let ran = on_all_orders(|device| {
        let cx = Cx::new(device.clone());
        let mut model = model(device, sizes, DType::F32);
        for t in 1..=steps {
            set_gradients(&mut model, device, t);
            let Model { params, masters, grads, moments } = &mut model;
            if flat {
                let norm = queue_norm(&cx, grads, 0.25, None).unwrap();
                queue_step(&cx, masters, grads, moments, &HP, t, &norm).unwrap();
            } else {
                step(&cx, &mut params.iter_mut().collect::<Vec<_>>(), grads, moments, &HP, t, 0.25).unwrap();
            }
        }
        let mut out = Vec::new();
        for p in &model.params[..sizes.len()] {
            let at = model.grads.table.range(p).unwrap();
            let view = |t: &Tensor| download(&t.view(at.start, [at.len()]).unwrap());
            out.extend([
                download(&p.value),
                view(&model.moments.m),
                view(&model.moments.v),
                download(p.matrix()),
            ]);
        }
        out.push(download(&model.params[sizes.len()].value));
        out
    });
    let any = &orders()[0];
    for t in 1..=steps {
        let gradients = set_gradients(&mut model(any, sizes, DType::F32), any, t);
        for (i, g) in gradients.iter().enumerate() {
            reference(&mut truth[i], g, t as i32, 0.25);
            reference(&mut naive[i], g, t as i32, 0.25);
        }
    }
    for (i, &n) in sizes.iter().enumerate() {
        for (k, name) in ["p", "m", "v"].iter().enumerate() {
            assert_rule(&ran[4 * i + k], &truth[i][k], &naive[i][k], Rule::OUTPUT, &format!("{name} of {n}"));
        }
        let mut copy = ran[4 * i].clone();
        if n % 2 == 0 {
            round_bf16(&mut copy);
        }
        assert_eq!(ran[4 * i + 3], copy, "the matrix that products take");
    }
    let mut frozen = normal(9, 6);
    round_bf16(&mut frozen);
    assert_eq!(ran[4 * sizes.len()], frozen);
}

#[test]
fn all_parameters_in_one_launch() {
    check(&[5000, 33, 1, 34], 5, true);
    check(&[1], 2, true);
}

#[test]
fn one_parameter_at_a_time() {
    check(&[1030, 33, 1, 2], 3, false);
}

#[test]
fn norm_and_clip() {
    for n in [1, 3, 4, 5, 1023, 70_001] {
        let g: Vec<f32> = normal(n as u64, n);
        let truth = g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
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
            let before = download(&masters.values);
            let mut g = vec![1.0; grads.table.len()];
            g[7] = bad;
            grads.flat = upload_f32(device, [g.len()], &g);
            let norm = queue_norm(&cx, &grads, 1.0, Some(1.0)).unwrap();
            queue_step(&cx, &masters, &grads, &mut moments, &HP, 1, &norm).unwrap();
            assert!(download(&norm)[1].is_nan());
            assert_eq!(download(&masters.values), before);
            assert!(download(&moments.m).iter().chain(&download(&moments.v)).all(|&x| x == 0.0));
            vec![]
        });
    }
}

/// A recorded step is the same launch with other numbers.
#[test]
fn recorded_steps_are_those_of_the_formula() {
    let run = |recorded: bool| {
        let device: Device = "emulator".parse().unwrap();
        let cx = Cx::new(device.clone());
        let mut model = model(&device, &[300], DType::F32);
        set_gradients(&mut model, &device, 1);
        let Model { masters, grads, moments, .. } = &mut model;
        let mut graphs = Graphs::default();
        for t in 1..=4 {
            let mut work = |cx: &Cx| -> pheye_ops::Result<()> {
                let norm = queue_norm(cx, grads, 1.0 / t as f64, Some(1.0))?;
                queue_step(cx, masters, grads, moments, &HP, t, &norm)
            };
            if recorded { cx.replay(&mut graphs, work).unwrap() } else { work(&cx).unwrap() }
        }
        // The memory of the first time need not be the lowest; that of all later times is.
        assert!(graphs.len() <= 2 && graphs.is_empty() != recorded, "{} recordings", graphs.len());
        download(&masters.values)
    };
    assert_eq!(run(true), run(false));
}

/// A launch for all and one for each parameter differ in the random bits alone.
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

/// bf16 moments are one of the two neighbours, and right on the average.
#[test]
fn narrow_moments_are_rounded_without_bias() {
    let n = 8190;
    let ran = on_all_orders(|device| {
        let cx = Cx::new(device.clone());
        let Model { masters, mut grads, mut moments, .. } = model(device, &[n], DType::Bf16);
        let mut g = vec![0.0; grads.table.len()];
        g[..n].fill(0.123);
        grads.flat = upload_f32(device, [g.len()], &g);
        let norm = queue_norm(&cx, &grads, 1.0, None).unwrap();
        queue_step(&cx, &masters, &grads, &mut moments, &HP, 1, &norm).unwrap();
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
        // Five standard deviations of the mean of n draws.
        assert!((mean - truth).abs() < 5.0 * 0.5 * step / (n as f64).sqrt(), "{mean} {truth}");
        assert!(ran[k][n..].iter().all(|&x| x == 0.0));
    }
    let expected = |p: f32| f64::from(p) * (1.0 - HP.lr * HP.weight_decay) - HP.lr;
    let near = |(&p, &p0): (&f32, &f32)| (f64::from(p) - expected(p0)).abs() < 1e-6;
    assert!(ran[2].iter().zip(&normal(n as u64, n)).all(near));
}
