//! A network's parameters as the inputs of its formula, and its gradients as what the formula is compared with.

use pheye_tensor::{DType, Grads, Param, Tensor};

use crate::normal;

/// Names and values: the inputs of a formula.
pub type Inputs = Vec<(&'static str, Vec<f32>)>;

/// Gives each parameter random values at which no part of a network is idle: matrices of variance 1 / fan-in, gains
/// around 1, biases around 0. Returns them.
pub fn randomize(params: Vec<&mut Param>, seed: u64) -> Inputs {
    let start = |(i, p): (usize, &mut Param)| {
        let shape = p.shape();
        let (spread, middle) = match *shape.dims() {
            [n] => (0.3, if p.name.ends_with("weight") && n > 0 { 1.0 } else { 0.0 }),
            _ => ((shape.dims()[1..].iter().product::<usize>() as f32).sqrt().recip(), 0.0),
        };
        let values = normal(seed ^ (i as u64) << 32, shape.elements());
        let values: Vec<f32> = values.into_iter().map(|x| middle + spread * x).collect();
        p.value = Tensor::zeros(shape, DType::F32);
        p.value.f32_mut().expect("f32 of its own").copy_from_slice(&values);
        (leak(&p.name), values)
    };
    params.into_iter().enumerate().map(start).collect()
}

/// The gradients by name, in the order of training.
pub fn gradients(grads: &Grads) -> Inputs {
    let flat = grads.flat.f32().expect("gradients are f32");
    grads.table.entries().iter().map(|(name, at)| (leak(name), flat[at.clone()].to_vec())).collect()
}

/// Names are few and a test is short.
fn leak(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}

/// Inputs of a formula by name.
#[derive(Debug)]
pub struct Named<'a, T> {
    /// The names.
    pub names: &'a [&'static str],
    /// The values, in the order of the names.
    pub values: &'a [Vec<T>],
    /// Put before every name asked for.
    pub prefix: String,
}

impl<'a, T> Named<'a, T> {
    /// All inputs.
    pub fn new(names: &'a [&'static str], values: &'a [Vec<T>]) -> Named<'a, T> {
        Named { names, values, prefix: String::new() }
    }

    /// Those below `name`.
    pub fn at(&self, name: impl std::fmt::Display) -> Named<'a, T> {
        Named { prefix: format!("{}{name}.", self.prefix), ..*self }
    }

    /// The input `name`.
    ///
    /// # Panics
    /// When there is none.
    pub fn get(&self, name: &str) -> &'a [T] {
        let name = format!("{}{name}", self.prefix);
        let at = self.names.iter().position(|n| *n == name);
        &self.values[at.unwrap_or_else(|| panic!("no input `{name}`"))]
    }
}
