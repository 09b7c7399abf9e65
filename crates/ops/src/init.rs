//! Random initial values of parameters that are in no checkpoint.

use pheye_cpu::{par, philox};
use pheye_tensor::{DType, Init, Shape, Source, Tensor};

/// A source that generates every tensor at random.
///
/// Each value is a function of the seed, the tensor's name and the element's index, so it depends neither on the order
/// in which a network is built nor on the number of threads.
#[derive(Debug, Clone, Copy)]
pub struct RandomInit<F = fn(&str) -> DType> {
    seed: u64,
    dtype: F,
}

impl RandomInit {
    /// A source of f32 tensors for `seed`.
    pub fn new(seed: u64) -> RandomInit {
        RandomInit { seed, dtype: |_| DType::F32 }
    }

    /// The same values, rounded to the type that `dtype` returns for a tensor's name.
    pub fn with_dtype<F: Fn(&str) -> DType>(self, dtype: F) -> RandomInit<F> {
        RandomInit { seed: self.seed, dtype }
    }
}

impl<F: Fn(&str) -> DType> Source for RandomInit<F> {
    fn tensor(&mut self, name: &str, shape: Shape, init: Init) -> Tensor {
        let mut t = Tensor::zeros(shape, DType::F32);
        if let Ok(out) = t.f32_mut() {
            fill(out, init, self.seed, fnv1a(name));
        }
        let rounded = t.to_dtype((self.dtype)(name));
        rounded.unwrap_or(t)
    }

    fn shape_of(&self, _: &str) -> Option<Shape> {
        None
    }
}

/// Fills `out` from Philox with key `seed` and counter (element / 4, name), four elements per counter.
fn fill(out: &mut [f32], init: Init, seed: u64, name: u64) {
    let draw: fn([u32; 4]) -> [f32; 4] = match init {
        Init::Zeros => return out.fill(0.0),
        Init::Ones => return out.fill(1.0),
        Init::Normal(_) => |w| {
            let ([a, b], [c, d]) = (philox::normal(w[0], w[1]), philox::normal(w[2], w[3]));
            [a, b, c, d]
        },
        Init::Uniform(_) => |w| w.map(|w| 2.0 * philox::uniform(w) - 1.0),
    };
    let (Init::Normal(scale) | Init::Uniform(scale)) = init else { return };
    let (key, [name0, name1]) = (philox::words(seed), philox::words(name));
    let work = 16 * out.len();
    par::rows(out, 4, 1 << 10, work, |first, out| {
        for (i, four) in out.chunks_mut(4).enumerate() {
            let [lo, hi] = philox::words((first + i) as u64);
            let values = draw(philox::philox4x32_10([lo, hi, name0, name1], key));
            four.iter_mut().zip(values).for_each(|(o, v)| *o = scale * v);
        }
    });
}

/// The 64-bit FNV-1a hash of a name.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: u64, name: &str, n: usize, init: Init) -> Vec<f32> {
        RandomInit::new(seed).tensor(name, Shape::from([n]), init).f32().unwrap().to_vec()
    }

    #[test]
    fn hash_is_fnv1a() {
        assert_eq!((fnv1a(""), fnv1a("foobar")), (0xcbf2_9ce4_8422_2325, 0x8594_4171_f739_67e8));
    }

    #[test]
    fn values_follow_seed_name_and_position_alone() {
        let long = values(1, "a.weight", 9001, Init::Normal(0.02));
        assert_eq!(values(1, "a.weight", 70, Init::Normal(0.02)), long[..70]);
        for other in
            [values(2, "a.weight", 70, Init::Normal(0.02)), values(1, "b.weight", 70, Init::Normal(0.02))]
        {
            assert!(other.iter().zip(&long).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn each_kind_has_its_spread() {
        assert_eq!(values(3, "x", 5, Init::Zeros), [0.0; 5]);
        assert_eq!(values(3, "x", 5, Init::Ones), [1.0; 5]);
        let std = |x: &[f32]| (x.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
        let normal = values(3, "x", 40_001, Init::Normal(0.02));
        assert!((std(&normal) / 0.02 - 1.0).abs() < 0.02);
        let flat = values(3, "x", 40_001, Init::Uniform(0.5));
        assert!(flat.iter().all(|v| v.abs() <= 0.5) && (std(&flat) - 0.5 / 3f64.sqrt()).abs() < 0.005);
    }
}
