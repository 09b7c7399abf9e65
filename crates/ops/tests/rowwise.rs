//! The operations that look at a row or an element at a time, against their formulas.

mod common;

use common::{dot, grad_of, linear, param, sum, tensor, train_all, values};
use pheye_ops::gelu::Gelu;
use pheye_ops::layernorm::LayerNorm;
use pheye_ops::rotary::Rotary;
use pheye_ops::{Cx, contrastive, cross_entropy, embedding, gelu, layernorm, pool, rotary};
use pheye_tensor::Tensor;
use pheye_testkit::{Formula, Ran, Real, gradcheck, max, normal, uniform};
use proptest::prelude::*;

struct LayerNormFormula(usize);

impl Formula for LayerNormFormula {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let [x, weight, bias] = inputs else { unreachable!() };
        let n = T::of(self.0 as f64);
        let row = |x: &[T]| {
            let mean = sum(x.iter().copied()) / n;
            let var = sum(x.iter().map(|&x| (x - mean) * (x - mean))) / n;
            let rstd = T::of(1.0) / (var + T::of(1e-5)).sqrt();
            x.iter().zip(weight).zip(bias).map(|((&x, &w), &b)| (x - mean) * rstd * w + b).collect::<Vec<T>>()
        };
        x.chunks(self.0).flat_map(row).collect()
    }
}

/// `dx` is costly to check for large inputs, the gradients of the parameters are not.
fn check_layernorm(rows: usize, d: usize, check_dx: bool) {
    let inputs = [("x", normal(1, rows * d)), ("weight", normal(2, d)), ("bias", normal(3, d))];
    gradcheck("layernorm", &LayerNormFormula(d), &inputs, |i, dy| {
        let (cx, x) = (Cx::cpu(), tensor([rows, d], &i[0]));
        let (weight, bias) = (param("weight", [d], &i[1]), param("bias", [d], &i[2]));
        let mut p = LayerNorm { weight, bias, eps: 1e-5 };
        let mut grads = train_all(p.params_mut());
        let (y, saved) = layernorm::forward(&cx, &x, &p).unwrap();
        let dx = layernorm::backward(&cx, &saved, &tensor([rows, d], dy), &p, Some(&mut grads)).unwrap();
        let mut all =
            vec![("weight", grad_of(&mut grads, &p.weight)), ("bias", grad_of(&mut grads, &p.bias))];
        all.extend(check_dx.then(|| ("x", values(&dx))));
        Ran { y: values(&y), grads: all }
    });
}

struct GeluFormula(Gelu);

impl Formula for GeluFormula {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let (half, one) = (T::of(0.5), T::of(1.0));
        let f = |x: T| match self.0 {
            Gelu::Exact => x * half * (one + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()),
            Gelu::Tanh => {
                let u = T::of((2.0 / std::f64::consts::PI).sqrt()) * (x + T::of(0.044715) * x * x * x);
                half * x * (one + u.tanh())
            }
            Gelu::Quick => x / (one + (-(T::of(1.702) * x)).exp()),
        };
        inputs[0].iter().map(|&x| f(x)).collect()
    }
}

fn check_gelu(kind: Gelu, x: Vec<f32>) {
    gradcheck(&format!("gelu {kind:?}"), &GeluFormula(kind), &[("x", x)], |i, dy| {
        let (cx, n) = (Cx::cpu(), dy.len());
        let (y, saved) = gelu::forward(&cx, &tensor([1, n], &i[0]), kind).unwrap();
        let dx = gelu::backward(&cx, &saved, &tensor([1, n], dy), kind).unwrap();
        Ran { y: values(&y), grads: vec![("x", values(&dx))] }
    });
}

/// Means of groups of rows: width, rows of each group.
struct PoolFormula<'a>(usize, &'a [usize]);

impl Formula for PoolFormula<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let mut rows = inputs[0].chunks(self.0);
        let mean = |&n: &usize| {
            let group: Vec<&[T]> = rows.by_ref().take(n).collect();
            (0..self.0).map(|j| sum(group.iter().map(|row| row[j])) / T::of(n as f64)).collect::<Vec<T>>()
        };
        self.1.iter().flat_map(mean).collect()
    }
}

fn check_pool(d: usize, lengths: &[usize]) {
    let rows: usize = lengths.iter().sum();
    gradcheck("pool", &PoolFormula(d, lengths), &[("x", normal(1, rows * d))], |i, dy| {
        let cx = Cx::cpu();
        let y = pool::forward(&cx, &tensor([rows, d], &i[0]), lengths).unwrap();
        let dx = pool::backward(&cx, &tensor([lengths.len(), d], dy), lengths).unwrap();
        Ran { y: values(&y), grads: vec![("x", values(&dx))] }
    });
}

#[test]
fn pool_faults_are_errors() {
    let (cx, x) = (Cx::cpu(), tensor([3, 2], &[0.0; 6]));
    for lengths in [&[1, 1][..], &[3, 0], &[4]] {
        assert!(pool::forward(&cx, &x, lengths).unwrap_err().to_string().contains("lengths"));
    }
}

struct RotaryFormula<'a> {
    positions: &'a [u32],
    heads: usize,
    head_dim: usize,
    rot: usize,
}

impl Formula for RotaryFormula<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let mut y = inputs[0].clone();
        for (i, head) in y.chunks_mut(self.head_dim).enumerate() {
            let (x, half) = (head.to_vec(), self.rot / 2);
            for j in 0..half {
                let inv = 1.0 / 10000f32.powf(2.0 * j as f32 / self.rot as f32);
                let angle = f64::from(self.positions[i / self.heads] as f32 * inv);
                let (cos, sin) = (T::of(angle.cos()), T::of(angle.sin()));
                head[j] = x[j] * cos - x[j + half] * sin;
                head[j + half] = x[j + half] * cos + x[j] * sin;
            }
        }
        y
    }
}

fn check_rotary(positions: &[u32], heads: usize, head_dim: usize, rot: usize) {
    let (rows, cols) = (positions.len(), heads * head_dim);
    let formula = RotaryFormula { positions, heads, head_dim, rot };
    gradcheck("rotary", &formula, &[("x", normal(1, rows * cols))], |i, dy| {
        let (cx, p) = (Cx::cpu(), Rotary::new(heads, head_dim, rot, 10000.0, 2048));
        let y = rotary::forward(&cx, tensor([rows, cols], &i[0]), positions, &p).unwrap();
        let dx = rotary::backward(&cx, tensor([rows, cols], dy), positions, &p).unwrap();
        Ran { y: values(&y), grads: vec![("x", values(&dx))] }
    });
}

struct EmbeddingFormula<'a>(&'a [u32], usize);

impl Formula for EmbeddingFormula<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        self.0.iter().flat_map(|&id| inputs[0][id as usize * self.1..][..self.1].to_vec()).collect()
    }
}

fn check_embedding(ids: &[u32], v: usize, d: usize) {
    gradcheck("embedding", &EmbeddingFormula(ids, d), &[("table", normal(1, v * d))], |i, dy| {
        let (cx, mut table) = (Cx::cpu(), param("table", [v, d], &i[0]));
        let mut grads = train_all(vec![&mut table]);
        let y = embedding::forward(&cx, ids, &table).unwrap();
        embedding::backward(&cx, ids, &tensor([ids.len(), d], dy), &table, Some(&mut grads)).unwrap();
        Ran { y: values(&y), grads: vec![("table", grad_of(&mut grads, &table))] }
    });
}

/// ln Σ exp z.
fn log_sum_exp<T: Real>(z: &[T]) -> T {
    let top = z.iter().copied().fold(z[0], max);
    sum(z.iter().map(|&z| (z - top).exp())).ln() + top
}

struct CrossEntropyFormula<'a>(&'a [i64], usize);

impl Formula for CrossEntropyFormula<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let [x, w, b] = inputs else { unreachable!() };
        let loss = |(x, &target): (&[T], &i64)| {
            let z: Vec<T> = w.chunks(self.1).zip(b).map(|(w, &b)| dot(x, w) + b).collect();
            log_sum_exp(&z) - z[target as usize]
        };
        let rows = x.chunks(self.1).zip(self.0).filter(|&(_, &t)| t != cross_entropy::IGNORE);
        vec![sum(rows.map(loss))]
    }
}

fn check_cross_entropy(targets: &[i64], v: usize, d: usize) {
    let n = targets.len();
    let inputs = [("x", normal(1, n * d)), ("weight", normal(2, v * d)), ("bias", normal(3, v))];
    gradcheck("cross_entropy", &CrossEntropyFormula(targets, d), &inputs, |i, dy| {
        let (cx, mut head) = (Cx::cpu(), linear(v, d, &i[1], Some(&i[2])));
        let mut grads = train_all(head.params_mut());
        let loss =
            cross_entropy::run(&cx, &tensor([n, d], &i[0]), &head, targets, true, Some(&mut grads)).unwrap();
        assert_eq!(loss.tokens, targets.iter().filter(|&&t| t >= 0).count());
        let scaled = |x: Vec<f32>| x.iter().map(|x| x * dy[0]).collect();
        let bias = head.bias.as_ref().unwrap();
        let all = vec![
            ("x", scaled(values(&loss.dx.unwrap()))),
            ("weight", scaled(grad_of(&mut grads, &head.weight))),
            ("bias", scaled(grad_of(&mut grads, bias))),
        ];
        Ran { y: vec![loss.sum as f32], grads: all }
    });
}

struct ContrastiveFormula<'a>(&'a [usize], usize);

impl Formula for ContrastiveFormula<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let labels = self.0;
        let unit = |x: &Vec<T>| -> Vec<Vec<T>> {
            x.chunks(self.1).map(|r| r.iter().map(|&x| x / dot(r, r).sqrt()).collect()).collect()
        };
        let (images, texts, scale) = (unit(&inputs[0]), unit(&inputs[1]), inputs[2][0].exp());
        let z = |i: &[T], t: &[T]| scale * dot(i, t);
        let of_picture = |(i, &label): (&Vec<T>, &usize)| {
            let row: Vec<T> = texts.iter().map(|t| z(i, t)).collect();
            log_sum_exp(&row) - row[label]
        };
        let of_caption = |k: usize| {
            let column: Vec<T> = images.iter().map(|i| z(i, &texts[k])).collect();
            let own: Vec<T> = labels.iter().zip(&column).filter(|&(&l, _)| l == k).map(|(_, &z)| z).collect();
            let n = own.len().max(1);
            let loss = log_sum_exp(&column) - sum(own.iter().copied()) / T::of(n as f64);
            (!own.is_empty()).then_some(loss)
        };
        let mean = |x: Vec<T>| sum(x.iter().copied()) / T::of(x.len() as f64);
        let pictures = mean(images.iter().zip(labels).map(of_picture).collect());
        let captions = mean((0..texts.len()).filter_map(of_caption).collect());
        vec![(pictures + captions) * T::of(0.5)]
    }
}

/// The gradient of the scale is a single number, a sum whose terms cancel: where the plain formula has no error by chance,
/// the rule would leave none to anyone.
fn check_contrastive(labels: &[usize], c: usize, d: usize, check_scale: bool) {
    let b = labels.len();
    let inputs = [("images", normal(1, b * d)), ("texts", normal(2, c * d)), ("log_scale", vec![2.0])];
    gradcheck("contrastive", &ContrastiveFormula(labels, d), &inputs, |i, dy| {
        let (images, texts) = (tensor([b, d], &i[0]), tensor([c, d], &i[1]));
        let loss = contrastive::forward_backward(&Cx::cpu(), &images, &texts, labels, i[2][0]).unwrap();
        let scaled = |x: Vec<f32>| x.iter().map(|x| x * dy[0]).collect();
        let mut all =
            vec![("images", scaled(values(&loss.dimages))), ("texts", scaled(values(&loss.dtexts)))];
        all.extend(check_scale.then(|| ("log_scale", scaled(vec![loss.dlog_scale]))));
        Ran { y: vec![loss.loss as f32], grads: all }
    });
}

#[test]
fn at_sizes_of_use() {
    check_layernorm(6, 64, true);
    check_layernorm(300, 64, false);
    for kind in [Gelu::Exact, Gelu::Tanh, Gelu::Quick] {
        check_gelu(kind, (-120..=120).map(|i| i as f32 / 8.0).collect());
        check_gelu(kind, vec![-51.0, -47.0, -0.0, 1e-20, 89.0, 1e4]);
    }
    check_rotary(&[0, 1, 2, 0, 700, 2047], 2, 16, 8);
    check_embedding(&[3, 0, 3, 3, 6], 7, 16);
    check_cross_entropy(&[4, -100, 0, 10, -100], 11, 16);
    check_contrastive(&[0, 2, 1, 0, 2, 0], 3, 8, true);
}

/// Far out the plain formulas are not finite; the limits are.
#[test]
fn gelu_has_its_limits() {
    let (cx, ends) = (Cx::cpu(), [-1e9, -200.0, 200.0, 1e9]);
    for kind in [Gelu::Exact, Gelu::Tanh, Gelu::Quick] {
        let (y, saved) = gelu::forward(&cx, &tensor([4], &ends), kind).unwrap();
        let dx = gelu::backward(&cx, &saved, &tensor([4], &[1.0; 4]), kind).unwrap();
        let near =
            |x: &Tensor, limits: [f32; 4]| values(x).iter().zip(limits).all(|(x, l)| (x - l).abs() < 1e-20);
        assert!(near(&y, [0.0, 0.0, 200.0, 1e9]), "{kind:?} {:?}", values(&y));
        assert!(near(&dx, [0.0, 0.0, 1.0, 1.0]), "{kind:?} {:?}", values(&dx));
    }
}

proptest! {
    #![proptest_config(common::repeatable(32))]

    #[test]
    fn layernorm_of_any_shape(rows in 0..12usize, d in 1..70usize) {
        check_layernorm(rows, d, true);
    }

    #[test]
    fn pool_of_any_groups(d in 1..20usize, lengths in prop::collection::vec(1..7usize, 1..6)) {
        check_pool(d, &lengths);
    }

    #[test]
    fn gelu_of_any_length(n in 0..200usize, seed: u64, wide in 0.1f32..20.0) {
        for kind in [Gelu::Exact, Gelu::Tanh, Gelu::Quick] {
            // With at least one ordinary element, against whose size errors count.
            check_gelu(kind, uniform(seed, n, -wide, wide).into_iter().chain([1.0]).collect());
        }
    }

    #[test]
    fn rotary_of_any_shape(
        positions in prop::collection::vec(0..2048u32, 0..9),
        heads in 1..5usize,
        head_dim in 1..20usize,
        rot in 0..10usize,
    ) {
        check_rotary(&positions, heads, head_dim, (2 * rot).min(head_dim / 2 * 2));
    }

    #[test]
    fn embedding_of_any_shape(ids in prop::collection::vec(0..9u32, 0..40), d in 1..20usize) {
        check_embedding(&ids, 9, d);
    }

    #[test]
    fn cross_entropy_of_any_shape(
        targets in prop::collection::vec(prop_oneof![Just(-100), 0..5i64], 0..8),
        more in 0..60usize,
        d in 1..12usize,
    ) {
        check_cross_entropy(&targets, 5 + more, d);
    }

    #[test]
    fn contrastive_of_any_shape(labels in prop::collection::vec(0..6usize, 1..9), d in 2..12usize) {
        check_contrastive(&labels, 6, d, false);
    }
}
