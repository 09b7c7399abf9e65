//! The parameters of a network as inputs of its formula, and its gradients for the comparison with it.

use pheye_tensor::{DType, Device, Grads, Param, ParamTable, Tensor};

use crate::gpu::download;
use crate::normal;

/// The inputs of a formula: names and values.
pub type Inputs = Vec<(&'static str, Vec<f32>)>;

/// Sets each parameter to random values for which every part of a network contributes: matrices with variance
/// 1 / fan-in, LayerNorm weights around 1, biases around 0. Returns names and values.
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

/// Makes all parameters trained and moves them to `device`. Returns their gradients, zeros on the same device.
///
/// # Panics
/// If the device reports an error.
pub fn train_all(device: &Device, mut params: Vec<&mut Param>) -> Grads {
    let table = ParamTable::assign(params.iter_mut().map(|p| &mut **p), |_| true).expect("on the CPU");
    if let Device::Gpu(_) = device {
        table.upload(params, device).expect("upload");
    }
    Grads::on(device, table).expect("gradients")
}

/// The gradients with the names of their parameters, in the order of the `ParamTable`.
pub fn gradients(grads: &Grads) -> Inputs {
    let flat = download(&grads.flat);
    grads.table.entries().iter().map(|(name, at)| (leak(name), flat[at.clone()].to_vec())).collect()
}

/// Leaks a name, so that it is `'static`; a test has few of them.
fn leak(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}

/// The inputs of a formula, accessed by name.
#[derive(Debug)]
pub struct Named<'a, T> {
    /// The names.
    pub names: &'a [&'static str],
    /// The values, in the order of the names.
    pub values: &'a [Vec<T>],
    /// Prepended to every name in [`Named::get`].
    pub prefix: String,
}

impl<'a, T> Named<'a, T> {
    /// All inputs.
    pub fn new(names: &'a [&'static str], values: &'a [Vec<T>]) -> Named<'a, T> {
        Named { names, values, prefix: String::new() }
    }

    /// The inputs whose names begin with `name` and a dot, after the current prefix.
    pub fn at(&self, name: impl std::fmt::Display) -> Named<'a, T> {
        Named { prefix: format!("{}{name}.", self.prefix), ..*self }
    }

    /// The input `name`, after the prefix.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn get(&self, name: &str) -> &'a [T] {
        let name = format!("{}{name}", self.prefix);
        let at = self.names.iter().position(|n| *n == name);
        &self.values[at.unwrap_or_else(|| panic!("no input `{name}`"))]
    }
}
