//! Checks an operation against its formula: the output, and the gradient of each input that backward returns.

use crate::{Dual, Real, Report, Rule, normal};

/// The reference of an operation, generic over the number type.
pub trait Formula {
    /// The output for the inputs, in the order given to [`gradcheck`].
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T>;
}

/// The results of the implementation under test.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The output y.
    pub y: Vec<f32>,
    /// The gradients of Σ dy·y with respect to inputs, by the name of the input.
    pub grads: Vec<(&'static str, Vec<f32>)>,
}

/// Runs forward and backward of an operation on `inputs` and a random `dy`, and compares the results with its
/// formula.
///
/// # Panics
/// If the output or a gradient exceeds its tolerance. The message names every such tensor.
pub fn gradcheck(
    op: &str,
    formula: &impl Formula,
    inputs: &[(&str, Vec<f32>)],
    run: impl FnOnce(&[Vec<f32>], &[f32]) -> Ran,
) {
    let faults: Vec<_> =
        reports(op, formula, inputs, run).iter().filter(|r| !r.ok()).map(Report::to_string).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The comparisons of [`gradcheck`]: the output first, then the gradients.
///
/// # Panics
/// If a gradient is not named after an input, or a tensor has the wrong number of elements.
pub fn reports(
    op: &str,
    formula: &impl Formula,
    inputs: &[(&str, Vec<f32>)],
    run: impl FnOnce(&[Vec<f32>], &[f32]) -> Ran,
) -> Vec<Report> {
    let values: Vec<Vec<f32>> = inputs.iter().map(|(_, x)| x.clone()).collect();
    let (truth, naive) = (eval::<f64>(formula, &values), eval::<f32>(formula, &values));
    let dy = normal(0xd7, truth.len());
    let ran = run(&values, &dy);
    let mut all = vec![Rule::OUTPUT.compare(format!("{op}: output"), &ran.y, &naive, &truth)];
    for (name, grad) in &ran.grads {
        let which = inputs.iter().position(|(n, _)| n == name);
        let which = which.unwrap_or_else(|| panic!("{op}: a gradient of `{name}`, which is no input"));
        let (truth, naive) =
            (gradient::<f64>(formula, &values, which, &dy), gradient(formula, &values, which, &dy));
        all.push(Rule::GRADIENT.compare(format!("{op}: gradient of {name}"), grad, &naive, &truth));
    }
    all
}

fn lift<T: Real>(x: &[f32]) -> Vec<T> {
    x.iter().map(|&x| T::of(x.into())).collect()
}

fn eval<T: Real>(formula: &impl Formula, values: &[Vec<f32>]) -> Vec<T> {
    formula.eval(&values.iter().map(|x| lift(x)).collect::<Vec<_>>())
}

/// d(Σ dy·y)/d(input `which`), with one forward-mode evaluation per element of the input.
fn gradient<T: Real>(formula: &impl Formula, values: &[Vec<f32>], which: usize, dy: &[f32]) -> Vec<T> {
    let mut inputs: Vec<Vec<Dual<T>>> = values.iter().map(|x| lift(x)).collect();
    let mut gradient = Vec::new();
    for i in 0..values[which].len() {
        inputs[which][i].d = T::of(1.0);
        let mut sum = T::of(0.0);
        for (y, &dy) in formula.eval(&inputs).iter().zip(dy) {
            sum += y.d * T::of(dy.into());
        }
        gradient.push(sum);
        inputs[which][i].d = T::of(0.0);
    }
    gradient
}
