//! The optimizer step: division by tokens, clipping, and gradients that are not finite.

use pheye_ops::Cx;
use pheye_ops::adamw::Moments;
use pheye_optim::{AdamWConfig, Error, Optimizer};
use pheye_tensor::{DType, Param, ParamTable, Tensor};

const START: [f32; 3] = [1.0, -2.0, 0.5];

fn setup(config: AdamWConfig) -> (Cx, Param, Optimizer) {
    let mut param = Param::frozen("w", Tensor::from_f32([3], &START).unwrap());
    let table = ParamTable::assign([&mut param], |_| true).unwrap();
    (Cx::cpu(), param, Optimizer::new(table, config).unwrap())
}

fn add(optimizer: &mut Optimizer, param: &Param, grad: [f32; 3]) {
    let sum = optimizer.grads.of(param).unwrap().unwrap();
    sum.iter_mut().zip(grad).for_each(|(s, g)| *s += g);
}

fn values(param: &Param) -> Vec<f32> {
    param.value.f32().unwrap().to_vec()
}

/// The gradient that AdamW received: after one step, the first moment is (1 − β₁)·g.
fn seen(optimizer: &Optimizer) -> Vec<f32> {
    optimizer.moments.m.f32().unwrap()[..3].iter().map(|m| m / 0.1).collect()
}

fn close(a: &[f32], b: &[f32]) {
    assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
}

#[test]
fn unequal_micro_batches_weigh_by_their_tokens() {
    let (cx, mut param, mut optimizer) = setup(AdamWConfig::default());
    // Gradient sums over 3 tokens and over 1 token.
    add(&mut optimizer, &param, [3.0, 0.0, 6.0]);
    add(&mut optimizer, &param, [1.0, 4.0, -2.0]);
    let norm = optimizer.apply(&cx, &mut [&mut param], 0.1, 4, None).unwrap();
    assert!((norm - 3f64.sqrt()).abs() < 1e-6);
    close(&seen(&optimizer), &[1.0, 1.0, 1.0]);
    // The first step of AdamW changes a value by lr after the decay: w − lr·(0.01·w + 1).
    close(&values(&param), &START.map(|w| w - 0.1 * (0.01 * w + 1.0)));
    assert_eq!(optimizer.step, 1);
    assert!(optimizer.grads.flat.f32().unwrap().iter().all(|g| *g == 0.0));
}

#[test]
fn clipping_scales_to_the_norm_and_only_down() {
    for (clip, expected) in [(2.5, [1.5, 0.0, 2.0]), (5.1, [3.0, 0.0, 4.0])] {
        let (cx, mut param, mut optimizer) = setup(AdamWConfig::default());
        add(&mut optimizer, &param, [6.0, 0.0, 8.0]);
        let norm = optimizer.apply(&cx, &mut [&mut param], 0.1, 2, Some(clip)).unwrap();
        assert!((norm - 5.0).abs() < 1e-6);
        close(&seen(&optimizer), &expected);
    }
}

#[test]
fn a_bad_gradient_changes_nothing() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (cx, mut param, mut optimizer) = setup(AdamWConfig::default());
        add(&mut optimizer, &param, [1.0, bad, 0.0]);
        let error = optimizer.apply(&cx, &mut [&mut param], 0.1, 2, Some(1.0)).unwrap_err();
        assert!(matches!(error, Error::NonFinite { .. }));
        assert_eq!((values(&param), optimizer.step), (START.to_vec(), 0));
        assert_eq!(seen(&optimizer), [0.0; 3]);
    }
    let (cx, mut param, mut optimizer) = setup(AdamWConfig::default());
    assert!(matches!(optimizer.apply(&cx, &mut [&mut param], 0.1, 0, None), Err(Error::NoTokens)));
}

#[test]
fn a_restored_optimizer_goes_on_with_the_same_bits() {
    let run = |from: Option<(Vec<f32>, Vec<f32>, Vec<f32>)>, steps: std::ops::Range<u64>| {
        let (cx, mut param, mut optimizer) = setup(AdamWConfig::default());
        if let Some((w, m, v)) = from {
            param.value.f32_mut().unwrap().copy_from_slice(&w);
            let tensor = |x: &[f32]| Tensor::from_f32([x.len()], x).unwrap();
            optimizer.restore(Moments { m: tensor(&m), v: tensor(&v) }, steps.start).unwrap();
        }
        for step in steps {
            add(&mut optimizer, &param, [1.0, step as f32, 0.3]);
            optimizer.apply(&cx, &mut [&mut param], 0.01, 3, Some(1.0)).unwrap();
        }
        let [m, v] = [&optimizer.moments.m, &optimizer.moments.v].map(|t| t.f32().unwrap().to_vec());
        (values(&param), m, v)
    };
    assert_eq!(run(Some(run(None, 0..3)), 3..7), run(None, 0..7));
}

#[test]
fn wrong_moments_and_options_are_refused() {
    let (_, _, mut optimizer) = setup(AdamWConfig::default());
    let short = || Tensor::zeros([5], DType::F32);
    let error = optimizer.restore(Moments { m: short(), v: short() }, 1).unwrap_err();
    assert!(matches!(error, Error::Moments { found: 5, expected: 32 }));
    let table = ParamTable::default;
    for (config, name) in [
        (AdamWConfig { betas: [0.9, 1.0], ..Default::default() }, "betas"),
        (AdamWConfig { eps: 0.0, ..Default::default() }, "eps"),
        (AdamWConfig { weight_decay: f64::NAN, ..Default::default() }, "weight_decay"),
    ] {
        assert!(
            matches!(Optimizer::new(table(), config), Err(Error::Option { option, .. }) if option == name)
        );
    }
}

/// Three parameters, of which the first and the last have a tenth of the rate: each moves as if it were alone with its own
/// rate.
#[test]
fn parameters_have_shares_of_the_rate() {
    let names = ["tower.w", "connector.w", "tower.b"];
    let share = |name: &str| if name.starts_with("tower.") { 0.1 } else { 1.0 };
    let run = |share: &dyn Fn(&str) -> f64, lr: f64| {
        let new = |name: &str| Param::frozen(name, Tensor::from_f32([3], &START).unwrap());
        let mut params = names.map(new);
        let table = ParamTable::assign(params.iter_mut(), |_| true).unwrap();
        let mut optimizer = Optimizer::new(table, AdamWConfig::default()).unwrap();
        optimizer.set_shares(share).unwrap();
        for step in 0..3 {
            params.iter().for_each(|p| add(&mut optimizer, p, [1.0, -2.0 + step as f32, 0.5]));
            let mut all: Vec<&mut Param> = params.iter_mut().collect();
            optimizer.apply(&Cx::cpu(), &mut all, lr, 1, Some(2.0)).unwrap();
        }
        params.map(|p| values(&p))
    };
    let (both, full, tenth) = (run(&share, 1e-2), run(&|_| 1.0, 1e-2), run(&|_| 1.0, 1e-2 * 0.1));
    assert_eq!(both, [tenth[0].clone(), full[1].clone(), tenth[2].clone()]);
    assert_ne!(both[0], full[0]);

    let (_, _, mut optimizer) = setup(AdamWConfig::default());
    let fault = optimizer.set_shares(|_| f64::NAN).unwrap_err();
    assert!(matches!(fault, Error::Option { option: "the share of a rate", .. }));
}
