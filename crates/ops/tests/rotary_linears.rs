//! The linears of q, k and v with rotary positions, and the fourth linear, on every device, compared with their
//! formula.

mod common;

use common::{linear, product, upload};
use pheye_ops::gelu::Gelu;
use pheye_ops::linear::{Epilogue, Linear};
use pheye_ops::rotary::{Cache, Linears, Rotary};
use pheye_ops::{Cx, Error};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::{bf16_values, download};
use pheye_testkit::plain::gelu_tanh;
use pheye_testkit::{Formula, Real, Rule};

/// x [m, k], and the weight and bias of one linear whose columns are rotated or go through GELU.
struct OneLinear<'a> {
    k: usize,
    after: After<'a>,
    /// If false, the result of the linear is stored before the rotation, which rounds once more.
    fused: bool,
}

enum After<'a> {
    Nothing,
    Gelu,
    /// Positions of the rows, head_dim, rot.
    Rotation(&'a [u32], usize, usize),
}

impl Formula for OneLinear<'_> {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let n = x[2].len();
        let mut y: Vec<T> =
            product(&x[0], &x[1], self.k).into_iter().enumerate().map(|(i, y)| y + x[2][i % n]).collect();
        match self.after {
            After::Nothing => {}
            After::Gelu => y = y.into_iter().map(gelu_tanh).collect(),
            After::Rotation(positions, head_dim, rot) => {
                if !self.fused {
                    y = y.into_iter().map(T::stored).collect();
                }
                for (i, head) in y.chunks_mut(head_dim).enumerate() {
                    let position = positions[i / (n / head_dim)];
                    let (u, half) = (head.to_vec(), rot / 2);
                    for j in 0..half {
                        let inv = 1.0 / 10000f32.powf(2.0 * j as f32 / rot as f32);
                        let angle = f64::from(position as f32 * inv);
                        let (cos, sin) = (T::of(angle.cos()), T::of(angle.sin()));
                        head[j] = u[j] * cos - u[j + half] * sin;
                        head[j + half] = u[j + half] * cos + u[j] * sin;
                    }
                }
            }
        }
        y.into_iter().map(T::stored).collect()
    }
}

/// Rows, columns of x, heads, head_dim, rotated columns of a head, and columns of the fourth linear.
type Case = [usize; 6];

struct Inputs {
    x: Vec<f32>,
    /// Weight and bias of q, k, v and the fourth linear.
    linears: [(Vec<f32>, Vec<f32>); 4],
    positions: Vec<u32>,
}

fn inputs([m, k, heads, head_dim, _, inner]: Case) -> Inputs {
    let d = heads * head_dim;
    let one = |seed: u64, n: usize| (bf16_values(n * k, seed), bf16_values(n, seed + 10));
    Inputs {
        x: bf16_values(m * k, 1),
        linears: [one(2, d), one(3, d), one(4, d), one(5, inner)],
        positions: (0..m as u32).map(|i| i * 37 % 512).collect(),
    }
}

impl Inputs {
    /// The four results, in the precision of the test and in f64.
    fn expected<P: Real>(&self, [_, k, _, head_dim, rot, _]: Case, fused: bool) -> [(Vec<f32>, Vec<f64>); 4] {
        let rotation = || After::Rotation(&self.positions, head_dim, rot);
        let each = [rotation(), rotation(), After::Nothing, After::Gelu];
        let mut linears = self.linears.iter();
        each.map(|after| {
            let (w, b) = linears.next().unwrap();
            let formula = OneLinear { k, after, fused };
            let of = [&self.x, w, b];
            let plain = formula.eval(&of.map(|x| x.iter().map(|&x| P::of(x.into())).collect()));
            let truth: Vec<f64> = formula.eval(&of.map(|x| x.iter().map(|&x| f64::from(x)).collect()));
            (plain.into_iter().map(|y| y.value() as f32).collect(), truth)
        })
    }

    /// q, k, v and the fourth result; with `rows`, k and v are read from these rows of a cache.
    fn run(&self, device: &Device, dtype: DType, case: Case, rows: Option<&[usize]>) -> Vec<Vec<f32>> {
        let [m, k, heads, head_dim, rot, inner] = case;
        let (cx, d) = (Cx::new(device.clone()), heads * head_dim);
        let mut p: Vec<Linear> =
            self.linears.iter().zip([d, d, d, inner]).map(|((w, b), n)| linear(n, k, w, Some(b))).collect();
        if !matches!(device, Device::Cpu) {
            common::place(device, p.iter_mut().flat_map(Linear::params_mut).collect(), |_| false);
        }
        let rotary = Rotary::new(heads, head_dim, rot, 10000.0, 512);
        let linears = Linears {
            qkv: [&p[0], &p[1], &p[2]],
            other: (&p[3], Epilogue::gelu(Gelu::Tanh)),
            positions: &self.positions,
            rotary: &rotary,
        };
        let x = upload(device, dtype, [m, k], &self.x);
        let (projected, k, v) = match rows {
            None => {
                let (projected, [k, v]) = linears.forward(&cx, &x).unwrap();
                (projected, download(&k), download(&v))
            }
            Some(rows) => {
                let before = vec![-7.0; (2 * m + 1) * d];
                let [mut keys, mut values] = [(); 2].map(|()| upload(device, dtype, [2 * m + 1, d], &before));
                let into = Cache { k: &mut keys, v: &mut values, rows };
                let projected = linears.forward_cached(&cx, &x, into).unwrap();
                let [keys, values] = [download(&keys), download(&values)];
                for row in (0..2 * m + 1).filter(|row| !rows.contains(row)) {
                    assert!(keys[row * d..][..d].iter().chain(&values[row * d..][..d]).all(|&x| x == -7.0));
                }
                let rows = |t: &[f32]| rows.iter().flat_map(|&r| t[r * d..][..d].to_vec()).collect();
                (projected, rows(&keys), rows(&values))
            }
        };
        vec![download(&projected.q), k, v, download(&projected.other.0)]
    }

    fn check<P: Real>(&self, case: Case, fused: bool, results: &[Vec<f32>]) {
        let names = ["q", "k", "v", "fc1"];
        for ((name, (plain, truth)), out) in names.iter().zip(self.expected::<P>(case, fused)).zip(results) {
            Rule::OUTPUT.compare(format!("{name} of {case:?}"), out, &plain, &truth).check();
        }
    }
}

#[test]
fn on_the_cpu() {
    for case in [[5, 24, 2, 16, 8, 40], [1, 32, 1, 8, 0, 8]] {
        let inputs = inputs(case);
        let results = inputs.run(&Device::Cpu, DType::F32, case, None);
        inputs.check::<f32>(case, true, &results);
        let rows: Vec<usize> = (0..case[0]).map(|i| 2 * i + 1).collect();
        assert_eq!(inputs.run(&Device::Cpu, DType::F32, case, Some(&rows)), results);
    }
}

#[test]
fn faults_are_errors() {
    let (cx, rotary) = (Cx::cpu(), Rotary::new(1, 4, 4, 10000.0, 8));
    let p: Vec<Linear> = (0..4).map(|_| linear(4, 4, &[0.0; 16], None)).collect();
    let x = common::tensor([2, 4], &[0.0; 8]);
    let with = |positions| Linears {
        qkv: [&p[0], &p[1], &p[2]],
        other: (&p[3], Epilogue::default()),
        positions,
        rotary: &rotary,
    };
    assert!(matches!(with(&[0]).forward(&cx, &x), Err(Error::Shapes { .. })));
    assert!(matches!(with(&[0, 8]).forward(&cx, &x), Err(Error::Range { .. })));
    assert!(with(&[0, 7]).forward(&cx, &x).is_ok());
}

/// The kernels: one launch where the layout of the heads allows it, several otherwise.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_testkit::Rounded;
    use pheye_testkit::gpu::on_all_orders;

    use super::*;

    /// Small M, tiles of 64 and of 128, head sizes 16 to 64; all in one launch.
    const FUSED: [Case; 7] = [
        [1, 64, 2, 64, 32, 40],
        [8, 48, 1, 64, 32, 16],
        [9, 40, 3, 32, 16, 24],
        [32, 64, 2, 16, 16, 64],
        [70, 64, 2, 64, 32, 200],
        [129, 32, 4, 32, 32, 70],
        [256, 48, 4, 64, 32, 256],
    ];
    /// Head sizes and operands for which the GEMM does not rotate.
    const APART: [Case; 3] = [[5, 32, 2, 48, 16, 16], [3, 24, 2, 16, 8, 24], [70, 36, 1, 64, 32, 64]];

    #[test]
    fn rotated_and_stored_in_the_epilogue() {
        for case in FUSED.into_iter().chain(APART) {
            let inputs = inputs(case);
            let results = on_all_orders(|device| inputs.run(device, DType::Bf16, case, None));
            inputs.check::<Rounded<f32>>(case, FUSED.contains(&case), &results);
        }
    }

    /// The results are bit-identical to those without a cache, and other rows of the cache do not change.
    #[test]
    fn keys_and_values_go_to_their_rows_of_a_cache() {
        for case in FUSED.into_iter().chain(APART) {
            let inputs = inputs(case);
            let rows: Vec<usize> = (0..case[0]).map(|i| 2 * (case[0] - i)).collect();
            let results = on_all_orders(|device| inputs.run(device, DType::Bf16, case, Some(&rows)));
            let apart = on_all_orders(|device| inputs.run(device, DType::Bf16, case, None));
            assert_eq!(results, apart, "{case:?}");
        }
    }
}
