//! LoRA, also with fused epilogues and for several linears at once, on every device, compared with its formula.

mod common;
#[path = "common/lora_formula.rs"]
mod lora_formula;

use common::{linear as affine, param, rounded, same_on_any_threads, tensor, values};
use lora_formula::{Case, ranges};
use pheye_ops::gelu::{self, Gelu};
use pheye_ops::linear::{self, BackwardEpilogue, Epilogue};
use pheye_ops::lora::{self, Adapter, Dropout, LoraLinear, Route};
use pheye_ops::{Cx, Error};
use pheye_tensor::{DType, Device};
use pheye_testkit::{Ran, gradcheck, normal};
use proptest::prelude::*;

/// Adapters of these ranks for these row ranges, with all parameters trained.
fn trained(
    [m, k, n]: [usize; 3],
    ranks: &[usize],
    all: &[(usize, usize, Option<usize>)],
    dropout: Option<Dropout>,
) -> Case {
    let adapters = ranks.iter().enumerate().map(|(i, &r)| Some((r, 2.0 / (1 + i) as f32))).collect();
    Case { m, k, n, adapters, ranges: ranges(all), dropout, trained: [true; 3] }
}

fn check(case: &Case) {
    let inputs = case.inputs(|n, seed| normal(seed, n));
    gradcheck("lora", case, &inputs, |i, dy| {
        let ran = case.run(&Device::Cpu, DType::F32, i, dy);
        assert_eq!(ran.grads.len(), i.len());
        ran
    });
}

#[test]
fn two_adapters_and_dropout() {
    let dropout = Some(Dropout { p: 0.3, seed: 1 << 40, rng_offset: 7 << 33 });
    let all = [(0, 4, Some(1)), (5, 9, Some(0)), (9, 10, None), (10, 13, Some(1))];
    check(&trained([14, 10, 9], &[3, 8], &all, dropout));
    check(&trained([14, 7, 9], &[3, 8], &all, None));
}

proptest! {
    #![proptest_config(common::repeatable(24))]

    #[test]
    fn any_shape(m in 1usize..9, k in 1usize..12, n in 1usize..12, r in 1usize..10, cut in 0usize..9) {
        let cut = cut.min(m);
        let dropout = Some(Dropout { p: 0.2, seed: 1, rng_offset: 2 });
        check(&trained([m, k, n], &[r, 1], &[(0, cut, Some(0)), (cut, m, Some(1))], dropout));
    }
}

#[test]
fn frozen_bf16_weights_give_the_same_dx_and_no_gradients() {
    let (cx, case) = (Cx::cpu(), trained([6, 24, 16], &[4], &[(0, 6, Some(0))], None));
    let inputs: Vec<Vec<f32>> = case.inputs(|n, seed| normal(seed, n)).into_iter().map(|(_, x)| x).collect();
    let (mut p, route) = (case.layer(&inputs), case.route());
    p.params_mut().into_iter().for_each(|p| *p = rounded(p).0);
    let (x, dy) = (tensor([6, 24], &normal(1, 144)), tensor([6, 16], &normal(2, 96)));
    let run = |p: &LoraLinear| {
        let (y, saved) = lora::forward(&cx, &x, p, &route).unwrap();
        let dx = lora::backward(&cx, &saved, &dy, p, &route, None).unwrap();
        [values(&y), values(&dx)]
    };
    let half = run(&p);
    for p in p.params_mut() {
        p.value = p.value.to_dtype(DType::F32).unwrap();
    }
    assert_eq!(half, run(&p));
}

/// y, dx and all gradients of a LoRA linear, with enough rows for several tasks.
fn everything(m: usize, all: &[(usize, usize, Option<usize>)], dropout: Option<Dropout>) -> Vec<Vec<f32>> {
    let case = trained([m, 64, 48], &[8], all, dropout);
    let inputs: Vec<Vec<f32>> = case.inputs(|n, seed| normal(seed, n)).into_iter().map(|(_, x)| x).collect();
    let Ran { y, grads } = case.run(&Device::Cpu, DType::F32, &inputs, &normal(2, m * 48));
    [y].into_iter().chain(grads.into_iter().map(|(_, g)| g)).collect()
}

#[test]
fn threads_do_not_show() {
    let dropout = Some(Dropout { p: 0.05, seed: 3, rng_offset: 4 });
    same_on_any_threads(|| everything(1501, &[(3, 1500, Some(0))], dropout));
}

#[test]
fn zero_dropout_is_none() {
    let run = |dropout| everything(100, &[(0, 100, Some(0))], dropout);
    assert_eq!(run(Some(Dropout { p: 0.0, seed: 3, rng_offset: 4 })), run(None));
}

#[test]
fn masks_depend_on_the_element_not_on_the_route() {
    let dropout = Some(Dropout { p: 0.5, seed: 3, rng_offset: 4 });
    let whole = everything(100, &[(0, 100, Some(0))], dropout);
    let parts = everything(100, &[(0, 33, Some(0)), (33, 34, None), (34, 100, Some(0))], dropout);
    for (whole, parts, cols) in [(&whole[0], &parts[0], 48), (&whole[1], &parts[1], 64)] {
        for (i, (w, p)) in whole.chunks(cols).zip(parts.chunks(cols)).enumerate() {
            assert_eq!(w == p, i != 33, "row {i}");
        }
    }
}

#[test]
fn masks_drop_the_right_share() {
    let cx = Cx::cpu();
    // With A = B = I, W = 0 and s = 1, y is drop(x) itself.
    let eye: Vec<f32> = (0..64 * 64).map(|i| if i % 65 == 0 { 1.0 } else { 0.0 }).collect();
    let base = affine(64, 64, &[0.0; 64 * 64], None);
    let adapter = Adapter { a: param("a", [64, 64], &eye), b: param("b", [64, 64], &eye), scale: 1.0 };
    let mut p = LoraLinear { base, adapters: vec![Some(adapter)], module: 0 };
    let x = tensor([500, 64], &[1.0; 500 * 64]);
    let mut run = |module, rng_offset| {
        p.module = module;
        let dropout = Some(Dropout { p: 0.05, seed: 9, rng_offset });
        let route = Route { ranges: ranges(&[(0, 500, Some(0))]), dropout };
        let (y, saved) = lora::forward(&cx, &x, &p, &route).unwrap();
        let dx = lora::backward(&cx, &saved, &x, &p, &route, None).unwrap();
        assert_eq!(y.f32().unwrap(), dx.f32().unwrap(), "forward and backward use one mask");
        let y = values(&y);
        assert!(y.iter().all(|&y| y == 0.0 || y == 1.0 / (1.0 - 0.05)));
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
        // Five standard deviations of the mean of 32000 random values.
        assert!((dropped - 0.05).abs() < 5.0 * (0.05f64 * 0.95 / 32000.0).sqrt(), "{dropped}");
        y
    };
    let first = run(0, 0);
    assert_eq!(first, run(0, 0));
    assert!(first != run(1, 0) && first != run(0, 1) && first != run(0, 1 << 32));
}

#[test]
fn wrong_routes_are_errors() {
    let (cx, x) = (Cx::cpu(), tensor([4, 3], &[0.0; 12]));
    let p = LoraLinear { base: affine(2, 3, &[0.0; 6], None), adapters: vec![None], module: 0 };
    let route = |all: &[_]| Route { ranges: ranges(all), dropout: None };
    for (bad, what) in [(route(&[(0, 5, None)]), "range of rows"), (route(&[(0, 4, Some(1))]), "adapter")] {
        match lora::forward(&cx, &x, &p, &bad).unwrap_err() {
            Error::Range { what: w, .. } => assert_eq!(w, what),
            e => panic!("{e}"),
        }
    }
    let dropout = Some(Dropout { p: 1.0, seed: 0, rng_offset: 0 });
    assert!(lora::forward(&cx, &x, &p, &Route { ranges: vec![], dropout }).is_err());
}

/// Without adapters, a LoRA linear with an epilogue equals its base with this epilogue on the CPU.
#[test]
fn with_what_surrounds_it() {
    let (cx, kind) = (Cx::cpu(), Gelu::Tanh);
    let base = affine(5, 3, &normal(1, 15), Some(&normal(2, 5)));
    let (x, r) = (tensor([4, 3], &normal(3, 12)), tensor([4, 5], &normal(4, 20)));
    let after = Epilogue { gelu: Some(kind), residual: Some(&r), keep: true };
    let (y, saved, u) = linear::forward_with(&cx, &x, &base, after).unwrap();
    let (_, v) = gelu::forward(&cx, &x, kind).unwrap();
    let before = BackwardEpilogue { gelu: Some((&v, kind)), sum: Some(&x) };
    let dx = linear::backward_with(&cx, &saved, &r, &base, before, None).unwrap();

    let p = LoraLinear { base, adapters: vec![None], module: 0 };
    let (again, saved, lora_u) = lora::forward_with(&cx, &x, &p, &Route::default(), after).unwrap();
    assert_eq!(values(&again), values(&y));
    let slopes = [u, lora_u].map(|u| values(&gelu::backward(&cx, &u.unwrap(), &r, kind).unwrap()));
    assert_eq!(slopes[0], slopes[1]);
    let lora_dx = lora::backward_with(&cx, &saved, &r, &p, &Route::default(), before, None).unwrap();
    assert_eq!(values(&lora_dx), values(&dx));
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use common::place;
    use lora_formula::DROPOUT;
    use pheye_ops::layernorm::{self, LayerNorm};
    use pheye_testkit::gpu::{bf16_values, download, on_all_orders, orders, upload_bf16};
    use pheye_testkit::plain::gelu_quick;
    use pheye_testkit::{Draw, Expected, Formula, Real, Rounded, Rule, cases, gpucheck};

    use super::*;

    /// y and all gradients.
    fn check(case: &Case) {
        let name = format!("lora of {} x {} x {}", case.m, case.k, case.n);
        gpucheck::<Rounded<f64>>(&name, case, &case.inputs(bf16_values), &["x"], |device, i, dy| {
            case.run(device, DType::Bf16, i, dy)
        });
    }

    #[test]
    fn one_adapter() {
        check(&Case::of(37, 40, 48, &[16]));
        check(&Case::of(1, 8, 8, &[8]));
        check(&Case { dropout: DROPOUT, ..Case::of(37, 40, 48, &[16]) });
    }

    #[test]
    fn two_adapters_and_dropout() {
        check(&Case { dropout: DROPOUT, ..Case::of(50, 72, 88, &[8, 16]) });
        check(&Case { trained: [true; 3], dropout: DROPOUT, ..Case::of(40, 64, 32, &[3, 4]) });
    }

    #[test]
    fn sizes_that_nothing_divides() {
        for k in [13, 28, 31] {
            check(&Case { dropout: DROPOUT, ..Case::of(35, k, 19, &[5, 2]) });
        }
        check(&Case::of(3, 3, 5, &[1]));
    }

    #[test]
    fn large_tiles() {
        check(&Case { dropout: DROPOUT, ..Case::of(260, 136, 144, &[8, 16]) });
    }

    #[test]
    fn high_ranks_and_many_adapters() {
        check(&Case { dropout: DROPOUT, ..Case::of(33, 48, 40, &[40]) });
        check(&Case::of(45, 24, 40, &[4, 8, 1, 8, 16]));
    }

    #[test]
    fn an_adapter_of_two_ranges_and_none() {
        let mut twice = Case::of(41, 48, 24, &[8, 8]);
        twice.ranges = ranges(&[(0, 10, Some(1)), (10, 10, Some(0)), (13, 20, Some(0)), (30, 41, Some(1))]);
        check(&twice);
        check(&Case { trained: [false, true, false], ..twice.clone() });
        check(&Case { trained: [false, false, true], ..twice.clone() });
        check(&Case { ranges: vec![], trained: [true, true, true], ..twice });
    }

    /// Random adapters, each for some row ranges or for none, with rows in between that take no adapter.
    fn random(draw: &mut Draw) -> Case {
        let [m, k, n] = [150, 150, 150].map(|most| draw.size(most));
        let ranks: Vec<usize> =
            (0..1 + draw.below(3)).map(|_| draw.pick(&[1, 3, 8, 8, 16, 16, 24, 40])).collect();
        let mut case = Case::of(m, k, n, &ranks);
        let mut all = Vec::new();
        let mut row = 0;
        while row < m && all.len() < 5 {
            let from = row + draw.below(4) * draw.below(2);
            row = from + draw.size(m);
            all.push((from.min(m), row.min(m), Some(draw.below(ranks.len()))));
        }
        case.ranges = ranges(&all);
        case.dropout = if draw.coin() { DROPOUT } else { None };
        case.trained = [draw.below(4) == 0, draw.coin(), draw.coin()];
        case
    }

    #[test]
    fn random_routes() {
        for mut draw in cases(6) {
            check(&random(&mut draw));
            let ranks: Vec<usize> = (0..1 + draw.below(2)).map(|_| draw.pick(&[2, 8, 16])).collect();
            check_shared(&ranks, draw.size(160), if draw.coin() { DROPOUT } else { None }, draw.coin());
        }
    }

    /// Both epilogues: gelu(u) + r for the result u of a LoRA linear of gelu(t), and t itself. A function of the inputs
    /// of the linear, r, a summand of u, whose gradient is gelu′ at the saved u, and t.
    struct Surrounded<'a>(&'a Case);

    impl Formula for Surrounded<'_> {
        fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
            let [inputs @ .., r, more] = x else { unreachable!() };
            let u = self.0.eval(inputs).into_iter().zip(more).zip(r);
            u.map(|((u, &more), &r)| (gelu_quick(u + more).stored() + r).stored()).collect()
        }
    }

    /// A LoRA linear of gelu(t), and t itself, for x = 0: the gradient of t is that of x times gelu′(t), plus dt.
    struct Behind<'a>(&'a Case, &'a [f32]);

    impl Formula for Behind<'_> {
        fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
            let [inputs @ .., t] = x else { unreachable!() };
            // Dual numbers with the values of x and the derivative of gelu(t), so that the gradients of the linear are
            // those at x.
            let g = t.iter().zip(self.1).map(|(&t, &x)| {
                let g = gelu_quick(t.stored());
                (g - T::of(g.value()) + T::of(x.into())).stored()
            });
            let mut inputs = inputs.to_vec();
            inputs[0] = g.collect();
            let mut y = self.0.eval(&inputs);
            y.extend(t);
            y
        }
    }

    /// y = gelu(u) + r in forward, with u saved, and in backward dx times gelu′, plus x.
    #[test]
    fn what_surrounds_it_in_one_launch() {
        let case = Case { dropout: DROPOUT, ..Case::of(40, 24, 56, &[8, 16]) };
        let Case { m, k, n, .. } = case;
        let (mut inputs, kind) = (case.inputs(bf16_values), Gelu::Quick);
        let v: Vec<Vec<f32>> = inputs.iter().map(|(_, x)| x.clone()).collect();
        let (r, t, dy) = (bf16_values(m * n, 50), bf16_values(m * k, 51), bf16_values(m * n, 4));
        let out = on_all_orders(|device| {
            let cx = &Cx::new(device.clone());
            let (mut p, route) = (case.layer(&v), case.route());
            place(device, p.params_mut(), |_| false);
            let (x, dy) = (upload_bf16(device, [m, k], &v[0]), upload_bf16(device, [m, n], &dy));
            let (r, t) = (upload_bf16(device, [m, n], &r), upload_bf16(device, [m, k], &t));
            let after = Epilogue { gelu: Some(kind), residual: Some(&r), keep: true };
            let (y, saved, u) = lora::forward_with(cx, &x, &p, &route, after).unwrap();
            let (_, t) = gelu::forward(cx, &t, kind).unwrap();
            let before = BackwardEpilogue { gelu: Some((&t, kind)), sum: Some(&x) };
            let dx = lora::backward_with(cx, &saved, &dy, &p, &route, before, None).unwrap();
            let ones = upload_bf16(device, [m, n], &vec![1.0; m * n]);
            let slope = gelu::backward(cx, &u.unwrap(), &ones, kind).unwrap();
            vec![download(&y), download(&slope), download(&dx)]
        });
        let behind = Behind(&case, &v[0]);
        let mut of_t = inputs.clone();
        of_t.push(("t", t));
        let expected = Expected::of::<Rounded<f64>>(&behind, &of_t, &["t"], &[&dy[..], &v[0]].concat());
        expected.gradient(Rule::GRADIENT, "surrounded", "t", &out[2]).check();
        inputs.extend([("r", r), ("more", vec![0.0; m * n])]);
        let ones = vec![1.0; m * n];
        let expected = Expected::of::<Rounded<f64>>(&Surrounded(&case), &inputs, &["more"], &ones);
        expected.output(Rule::OUTPUT, "surrounded", &out[0]).check();
        expected.gradient(Rule::GRADIENT, "surrounded", "more", &out[1]).check();
    }

    /// Linears of one x whose down projections come from one pass over x, or from the LayerNorm that produces x: each
    /// gives the result that it gives alone.
    fn check_shared(ranks: &[usize], k: usize, dropout: Option<Dropout>, norm: bool) {
        let cases = [136, 40, 72].map(|n| Case { dropout, ..Case::of(37, k, n, ranks) });
        let m = cases[0].m;
        let x = bf16_values(m * k, 60);
        let inputs_of =
            |case: &Case| case.inputs(bf16_values).into_iter().map(|(_, x)| x).collect::<Vec<_>>();
        let dy_of = |case: &Case| bf16_values(m * case.n, 4);
        let out = on_all_orders(|device| {
            let cx = &Cx::new(device.clone());
            let route = cases[0].route();
            let values = cases.each_ref().map(inputs_of);
            let mut layers = [0, 1, 2].map(|i| cases[i].layer(&values[i]));
            let params = layers.iter_mut().flat_map(|l| l.params_mut()).collect();
            let mut grads = place(device, params, |p| p.name == "A" || p.name == "B");
            let x = upload_bf16(device, [m, k], &x);
            let ps = layers.each_ref();
            let (y, downs) = match norm {
                true => {
                    let mut norm = LayerNorm {
                        weight: param("w", [k], &bf16_values(k, 61)),
                        bias: param("b", [k], &bf16_values(k, 62)),
                        eps: 1e-5,
                    };
                    place(device, norm.params_mut(), |_| false);
                    let normed = lora::norm_down(cx, &x, &norm, ps, &route).unwrap();
                    let (y, _) = layernorm::forward(cx, &x, &norm).unwrap();
                    assert_eq!(download(&normed.y), download(&y));
                    (normed.y, normed.downs)
                }
                false => (x.clone(), lora::down(cx, &x, ps, &route).unwrap()),
            };
            let mut out = vec![download(&y)];
            let mut downs = downs.into_iter();
            let each = ps.map(|p| (p, downs.next().unwrap(), Epilogue::default()));
            let outputs = lora::forward_several(cx, &y, each, &route).unwrap();
            for ((p, (u, saved, _)), case) in ps.into_iter().zip(outputs).zip(&cases) {
                let dy = upload_bf16(device, u.shape(), &dy_of(case));
                let dx = lora::backward(cx, &saved, &dy, p, &route, Some(&mut grads)).unwrap();
                out.extend([download(&u), download(&dx)]);
                let adapters = p.adapters.iter().flatten().flat_map(|a| [&a.a, &a.b]);
                out.extend(adapters.map(|p| download(&grads.view(p).unwrap().unwrap())));
            }
            out
        });
        let (x, mut rest) = (&out[0], out[1..].iter());
        for case in &cases {
            let mut inputs = case.inputs(bf16_values);
            inputs[0].1.clone_from(x);
            let names =
                inputs.iter().map(|(name, _)| *name).filter(|name| !["weight", "bias"].contains(name));
            let y = rest.next().unwrap().clone();
            let ran = Ran { y, grads: names.zip(rest.by_ref().cloned()).collect() };
            let expected = Expected::of::<Rounded<f64>>(case, &inputs, &["x"], &dy_of(case));
            expected.check(&format!("one of several, {k} x {}", case.n), &ran);
        }
        assert!(rest.next().is_none());
    }

    #[test]
    fn linears_that_take_the_same_x() {
        check_shared(&[8, 16], 40, None, false);
        check_shared(&[8, 3], 40, DROPOUT, false);
        check_shared(&[5], 13, None, false);
    }

    #[test]
    fn linears_behind_a_layernorm() {
        check_shared(&[16], 72, None, true);
        check_shared(&[8, 16], 40, None, true);
        check_shared(&[8], 40, DROPOUT, true);
        check_shared(&[4], 21, None, true);
    }

    #[test]
    fn a_gradient_of_other_rows_is_an_error() {
        let case = Case::of(6, 16, 8, &[8]);
        let [device, ..] = orders();
        let (inputs, cx) = (case.inputs(bf16_values), Cx::new(device.clone()));
        let v: Vec<Vec<f32>> = inputs.into_iter().map(|(_, x)| x).collect();
        let mut p = case.layer(&v);
        let mut grads = place(&device, p.params_mut(), |p| p.name != "weight");
        let (_, saved) =
            lora::forward(&cx, &upload_bf16(&device, [6, 16], &v[0]), &p, &case.route()).unwrap();
        let dy = upload_bf16(&device, [7, 8], &bf16_values(56, 9));
        let fault = lora::backward(&cx, &saved, &dy, &p, &case.route(), Some(&mut grads)).unwrap_err();
        assert!(matches!(fault, Error::Shapes { op: "lora", .. }), "{fault}");
    }
}
