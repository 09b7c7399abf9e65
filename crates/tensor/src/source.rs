use crate::{Param, Shape, Tensor};

/// How a parameter that no checkpoint holds starts.
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

/// Where a network takes its parameters from: a checkpoint, or a random start.
///
/// A source keeps the faults it meets (a tensor missing, of another shape, of another type) and reports them all
/// together after the network is built; until then it hands out a tensor of zeros in place of each.
pub trait Source {
    /// The tensor `name` of shape `shape`.
    fn tensor(&mut self, name: &str, shape: Shape, init: Init) -> Tensor;

    /// The shape of tensor `name`, or `None` when the source does not decide it.
    fn shape_of(&self, name: &str) -> Option<Shape>;
}

/// A place in the tree of names: `scope.at("layers").at(3).param("weight", …)` asks for `layers.3.weight`.
pub struct Scope<'a> {
    source: &'a mut dyn Source,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// The root of `source`, or the place `prefix` in it.
    pub fn new(source: &'a mut dyn Source, prefix: impl Into<String>) -> Scope<'a> {
        Scope { source, prefix: prefix.into() }
    }

    /// The child `name` of this place.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = self.name(name);
        Scope { source: &mut *self.source, prefix }
    }

    /// The parameter `name` at this place.
    pub fn param(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Param {
        let name = self.name(name);
        let value = self.source.tensor(&name, shape.into(), init);
        Param::frozen(name, value)
    }

    /// The shape of tensor `name` at this place, or `None` when the source does not decide it.
    pub fn shape_of(&self, name: &str) -> Option<Shape> {
        self.source.shape_of(&self.name(name))
    }

    fn name(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}
