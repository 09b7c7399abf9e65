//! Builds the linear layers with LoRA.

use pheye_ops::linear::Linear;
use pheye_ops::lora::{Adapter, LoraLinear};
use pheye_tensor::{Init, Scope, Shape};

use crate::AdapterSpec;

/// Builds the linear layers with LoRA and numbers them. The number of a module selects its dropout mask.
pub(crate) struct Modules<'a> {
    pub(crate) adapters: &'a [Option<AdapterSpec>],
    pub(crate) next: u32,
}

impl Modules<'_> {
    pub(crate) fn linear(&mut self, scope: &mut Scope, k: usize, n: usize) -> LoraLinear {
        let base = Linear::new(&mut scope.at("base_layer"), k, n, true, Init::fan_in(k));
        self.lora(scope, base, |r| [r, k].into(), |r| [n, r].into())
    }

    pub(crate) fn lora(
        &mut self,
        scope: &mut Scope,
        base: Linear,
        a_shape: impl Fn(usize) -> Shape,
        b_shape: impl Fn(usize) -> Shape,
    ) -> LoraLinear {
        let mut adapter = |spec: &AdapterSpec| {
            let (a, b) = (format!("lora_A.{}.weight", spec.name), format!("lora_B.{}.weight", spec.name));
            let stored = scope.shape_of(&a).and_then(AdapterSpec::rank_of);
            let rank = stored.unwrap_or(spec.rank).max(1);
            // Kaiming-uniform with a = √5, that is bound √(6 / (1 + 5) / fan_in).
            let fan_in = a_shape(1).elements();
            let a = scope.param(&a, a_shape(rank), Init::Uniform((fan_in as f32).sqrt().recip()));
            let b = scope.param(&b, b_shape(rank), Init::Zeros);
            Adapter { a, b, scale: spec.alpha.unwrap_or(2.0 * rank as f32) / rank as f32 }
        };
        let adapters = self.adapters.iter().map(|spec| spec.as_ref().map(&mut adapter)).collect();
        self.next += 1;
        LoraLinear { base, adapters, module: self.next - 1 }
    }
}
