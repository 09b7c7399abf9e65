//! The source of a network's parameters when it is built: a checkpoint or a random initialization.

use crate::{DType, Param, Shape, Tensor};

/// The initialization of a parameter that is in no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Uniform in ±bound.
    Uniform(f32),
}

impl Init {
    /// The initialization of the weight of a linear layer with `n` inputs, for training from scratch. The outputs have
    /// about half the variance of the inputs, for every width.
    pub fn fan_in(n: usize) -> Init {
        Init::Normal(0.7 / (n as f32).sqrt())
    }
}

/// Provides the parameters of a network, from a checkpoint or by random initialization.
///
/// A source collects the problems it finds (a missing tensor, a wrong shape or type) and reports all of them after the
/// network is built. Until then it returns a tensor of zeros in place of each.
pub trait Source {
    /// The tensor `name` of shape `shape`.
    fn tensor(&mut self, name: &str, shape: Shape, init: Init) -> Tensor;

    /// The shape of tensor `name`, or `None` if this source does not determine it.
    fn shape_of(&self, name: &str) -> Option<Shape>;
}

/// A source of empty tensors that tells the name and shape of each parameter: counts and checks a network without memory
/// for its weights.
///
/// ```
/// use pheye_tensor::{Init, Scope, Shape, Shapes};
///
/// let mut elements = 0;
/// let mut source = Shapes(|_: &str, shape: Shape| elements += shape.elements());
/// Scope::new(&mut source, "layer").param("weight", [3, 4], Init::Zeros);
/// assert_eq!(elements, 12);
/// ```
#[derive(Debug)]
pub struct Shapes<F>(pub F);

impl<F: FnMut(&str, Shape)> Source for Shapes<F> {
    fn tensor(&mut self, name: &str, shape: Shape, _: Init) -> Tensor {
        (self.0)(name, shape);
        Tensor::zeros([0], DType::F32)
    }

    fn shape_of(&self, _: &str) -> Option<Shape> {
        None
    }
}

/// A prefix in the hierarchy of parameter names: `scope.at("layers").at(3).param("weight", …)` asks for
/// `layers.3.weight`.
pub struct Scope<'a> {
    source: &'a mut dyn Source,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// A scope of `source` with the given prefix, which may be empty.
    pub fn new(source: &'a mut dyn Source, prefix: impl Into<String>) -> Scope<'a> {
        Scope { source, prefix: prefix.into() }
    }

    /// The child scope `name`.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = self.name(name);
        Scope { source: &mut *self.source, prefix }
    }

    /// The parameter `name` of this scope. It is frozen until a [`crate::ParamTable`] assigns it.
    pub fn param(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Param {
        let name = self.name(name);
        let value = self.source.tensor(&name, shape.into(), init);
        Param::frozen(name, value)
    }

    /// The shape of tensor `name` of this scope, or `None` if the source does not determine it.
    pub fn shape_of(&self, name: &str) -> Option<Shape> {
        self.source.shape_of(&self.name(name))
    }

    fn name(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}
