//! The operations that look at a row or an element at a time, against their formulas.

mod common;

use common::{grad_of, param, sum, tensor, train_all, values};
use pheye_ops::rotary::Rotary;
use pheye_ops::{Cx, embedding, pool, rotary};
use pheye_testkit::{Formula, Ran, Real, gradcheck, normal};
use proptest::prelude::*;

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

#[test]
fn at_sizes_of_use() {
    check_rotary(&[0, 1, 2, 0, 700, 2047], 2, 16, 8);
    check_embedding(&[3, 0, 3, 3, 6], 7, 16);
}

proptest! {
    #![proptest_config(common::repeatable(32))]

    #[test]
    fn pool_of_any_groups(d in 1..20usize, lengths in prop::collection::vec(1..7usize, 1..6)) {
        check_pool(d, &lengths);
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
}
