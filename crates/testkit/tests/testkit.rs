//! Checks that the testkit reports faults: a check that cannot fail is worthless.

use pheye_testkit::{Formula, Golden, Ran, Real, Report, Rule, Values, gradcheck, normal, reports, uniform};

/// yᵢ = aᵢ·bᵢ / Σ a².
struct Scaled;

impl Formula for Scaled {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let mut norm = T::of(0.0);
        inputs[0].iter().for_each(|&a| norm += a * a);
        inputs[0].iter().zip(&inputs[1]).map(|(&a, &b)| a * b / norm).collect()
    }
}

fn inputs() -> Vec<(&'static str, Vec<f32>)> {
    vec![("a", uniform(1, 9, 0.5, 2.0)), ("b", normal(2, 9))]
}

fn run(inputs: &[Vec<f32>], dy: &[f32]) -> Ran {
    let (a, b) = (&inputs[0], &inputs[1]);
    let norm: f32 = a.iter().map(|a| a * a).sum();
    let y: Vec<f32> = a.iter().zip(b).map(|(a, b)| a * b / norm).collect();
    let dot: f32 = y.iter().zip(dy).map(|(y, dy)| y * dy).sum();
    let da = a.iter().zip(b).zip(dy).map(|((a, b), dy)| (dy * b - 2.0 * a * dot) / norm).collect();
    let db = a.iter().zip(dy).map(|(a, dy)| dy * a / norm).collect();
    Ran { y, grads: vec![("a", da), ("b", db)] }
}

fn failing(spoil: impl Fn(&mut Ran)) -> Vec<String> {
    let broken = |inputs: &[Vec<f32>], dy: &[f32]| {
        let mut ran = run(inputs, dy);
        spoil(&mut ran);
        ran
    };
    let all = reports("scaled", &Scaled, &inputs(), broken);
    all.into_iter().filter(|r| !r.ok()).map(|r| r.name).collect()
}

#[test]
fn the_right_gradient_passes() {
    gradcheck("scaled", &Scaled, &inputs(), run);
}

#[test]
fn each_fault_is_found_and_named() {
    assert_eq!(failing(|r| r.y[3] *= 1.0 + 1e-5), ["scaled: output"]);
    assert_eq!(failing(|r| r.grads[0].1[0] = -r.grads[0].1[0]), ["scaled: gradient of a"]);
    assert_eq!(failing(|r| r.grads[1].1.iter_mut().for_each(|g| *g *= 1.0001)), ["scaled: gradient of b"]);
    assert_eq!(failing(|r| r.grads[1].1[8] = f32::NAN), ["scaled: gradient of b"]);
}

#[test]
#[should_panic(expected = "scaled: gradient of a: off by")]
fn a_wrong_gradient_stops_the_test() {
    gradcheck("scaled", &Scaled, &inputs(), |inputs, dy| {
        let mut ran = run(inputs, dy);
        ran.grads[0].1.rotate_left(1);
        ran
    });
}

#[test]
#[should_panic(expected = "which is no input")]
fn a_gradient_of_nothing_stops_the_test() {
    gradcheck("scaled", &Scaled, &inputs(), |inputs, dy| Ran {
        grads: vec![("c", vec![])],
        ..run(inputs, dy)
    });
}

#[test]
fn the_rule_is_the_sum_of_its_two_terms() {
    let truth = [1.0, -4.0];
    let Report { error, allowed, at, .. } = Rule::OUTPUT.compare("t", &[1.0, -4.5], &[1.25, -4.0], &truth);
    assert_eq!((error, allowed, at), (0.5, 0.5 + 4e-6, 1));
    assert_eq!(Rule::GRADIENT.compare("t", &[1.0, -4.5], &[1.25, -4.0], &truth).allowed, 0.75 + 4e-6);
    assert!(!Rule::OUTPUT.compare("t", &[f32::NAN, -4.0], &[1.25, -4.0], &truth).ok());
    assert!(!Rule::OUTPUT.compare("t", &[1.0, -4.0], &[f32::NAN, -4.0], &truth).ok());
}

#[test]
#[should_panic(expected = "t: number of elements")]
fn a_missing_element_stops_the_test() {
    Rule::OUTPUT.compare("t", &[1.0], &[1.0, 2.0], &[1.0, 2.0]);
}

#[test]
fn recorded_tensors_come_back() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/level1/golden.safetensors");
    let golden = Golden::open(path);
    let (shape, values) = golden.get("ids");
    assert!(matches!(values, Values::I64(ids) if ids.len() == shape.iter().product::<usize>()));
    assert_eq!(golden.i64("ids").len(), golden.i64("attention_mask").len());
    for name in golden.names() {
        let (shape, values) = golden.get(name);
        let len = match values {
            Values::F32(x) => x.len(),
            Values::F64(x) => x.len(),
            Values::I64(x) => x.len(),
        };
        assert_eq!(len, shape.iter().product::<usize>(), "{name}");
    }
}

#[test]
#[should_panic(expected = "no `nothing`")]
fn a_missing_tensor_is_named() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/level1/golden.safetensors");
    Golden::open(path).f32("nothing");
}
