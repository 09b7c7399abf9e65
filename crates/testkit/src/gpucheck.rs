//! One operation on a GPU or the emulator against its formula, at any size: the output and the gradients in three thread orders.

use pheye_tensor::Device;

use crate::gpu::{bf16_values, on_all_orders};
use crate::{Formula, Ran, Real, Report, Rule, vjp};

/// What the gradient of a parameter holds before backward adds to it.
pub const BEFORE: f32 = 0.5;

/// What a formula gives in f64, and in the plain version of the precision under test.
#[derive(Debug)]
pub struct Expected {
    names: Vec<&'static str>,
    output: (Vec<f64>, Vec<f32>),
    gradients: Vec<(Vec<f64>, Vec<f32>)>,
}

impl Expected {
    /// Of these inputs and gradients of the outputs, with `P` as the plain version: f32, or [`crate::Rounded`] where tensors
    /// between kernels are bf16. The gradients of `activations` are written as they are stored; those of the other inputs,
    /// the parameters, are added to [`BEFORE`] in f32.
    pub fn of<P: Real>(
        formula: &impl Formula,
        inputs: &[(&'static str, Vec<f32>)],
        activations: &[&str],
        dy: &[f32],
    ) -> Expected {
        let values: Vec<Vec<f32>> = inputs.iter().map(|(_, x)| x.clone()).collect();
        let active: Vec<bool> = inputs.iter().map(|(name, _)| activations.contains(name)).collect();
        let before: Vec<f32> = active.iter().map(|&a| if a { 0.0 } else { BEFORE }).collect();
        let (y, truth) = vjp::<f64>(formula, &values, &before, dy);
        let (plain_y, plain) = vjp::<P>(formula, &values, &before, dy);
        let narrow = |x: Vec<P>| -> Vec<f32> { x.into_iter().map(|x| x.value() as f32).collect() };
        let kept = |(g, active): (Vec<P>, bool)| {
            narrow(if active { g.into_iter().map(P::stored).collect() } else { g })
        };
        let plain = plain.into_iter().zip(active).map(kept);
        Expected {
            names: inputs.iter().map(|(name, _)| *name).collect(),
            output: (y, narrow(plain_y)),
            gradients: truth.into_iter().zip(plain).collect(),
        }
    }

    /// The plain version of the output.
    pub fn plain_output(&self) -> &[f32] {
        &self.output.1
    }

    /// The plain version of the gradient of this input.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn plain_gradient(&self, name: &str) -> &[f32] {
        &self.gradients[self.place(name)].1
    }

    fn place(&self, name: &str) -> usize {
        let place = self.names.iter().position(|n| *n == name);
        place.unwrap_or_else(|| panic!("a gradient of `{name}`, which is no input"))
    }

    /// The output by a rule.
    pub fn output(&self, rule: Rule, op: &str, out: &[f32]) -> Report {
        rule.compare(format!("{op}: output"), out, &self.output.1, &self.output.0)
    }

    /// The gradient of this input by a rule.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn gradient(&self, rule: Rule, op: &str, name: &str, out: &[f32]) -> Report {
        let (truth, plain) = &self.gradients[self.place(name)];
        rule.compare(format!("{op}: gradient of {name}"), out, plain, truth)
    }

    /// Stops the test unless the output and all gradients that an implementation returned are as near as the rules ask.
    ///
    /// # Panics
    /// When one is not; the message names all that are not.
    pub fn check(&self, op: &str, ran: &Ran) {
        let gradient = |(name, g): &(&'static str, Vec<f32>)| self.gradient(Rule::GRADIENT, op, name, g);
        let all = [self.output(Rule::OUTPUT, op, &ran.y)].into_iter().chain(ran.grads.iter().map(gradient));
        let faults: Vec<String> = all.filter(|r| !r.ok()).map(|r| r.to_string()).collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// Runs forward and backward of an operation on every order of the emulator, on `inputs` and a random `dy` of bf16 values, and
/// compares with its formula as [`Expected::of`] evaluates it. The bits must be the same in all orders.
///
/// # Panics
/// When they are not, or the output or a gradient is further off than the rule allows.
pub fn gpucheck<P: Real>(
    op: &str,
    formula: &impl Formula,
    inputs: &[(&'static str, Vec<f32>)],
    activations: &[&str],
    run: impl Fn(&Device, &[Vec<f32>], &[f32]) -> Ran,
) {
    let values: Vec<Vec<f32>> = inputs.iter().map(|(_, x)| x.clone()).collect();
    let lifted: Vec<Vec<f64>> = values.iter().map(|x| crate::gpu::wide(x)).collect();
    let dy = bf16_values(formula.eval(&lifted).len(), 0xd7);
    let expected = Expected::of::<P>(formula, inputs, activations, &dy);
    expected.check(op, &ran_on_all_orders(|device| run(device, &values, &dy)));
}

/// What an implementation returned on every order of the emulator, the same bits on each.
fn ran_on_all_orders(run: impl Fn(&Device) -> Ran) -> Ran {
    let names = std::cell::RefCell::new(Vec::new());
    let mut all = on_all_orders(|device| {
        let Ran { y, grads } = run(device);
        let (which, grads): (Vec<_>, Vec<_>) = grads.into_iter().unzip();
        *names.borrow_mut() = which;
        std::iter::once(y).chain(grads).collect()
    })
    .into_iter();
    let y = all.next().expect("an output");
    Ran { y, grads: names.into_inner().into_iter().zip(all).collect() }
}
