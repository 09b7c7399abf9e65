//! Embedding, moving rows, rotary positions, pooling and tile embedding, on every device, compared with their formulas.

mod common;

use common::{added, param, place, same_on_any_threads, sum, tensor, upload};
use pheye_ops::rotary::{self, Rotary};
use pheye_ops::{Cx, Error, embedding, pool, tile_embed};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::download;
use pheye_testkit::{Formula, Ran, Real, gradcheck, normal};
use proptest::prelude::*;

/// Mean pooling over groups of rows.
struct Pool<'a> {
    lengths: &'a [usize],
    d: usize,
}

impl Formula for Pool<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let mut rows = inputs[0].chunks(self.d);
        let mean = |&n: &usize| {
            let group: Vec<&[T]> = rows.by_ref().take(n).collect();
            let column = |j: usize| -> T { (sum(group.iter().map(|row| row[j])) / T::of(n as f64)).stored() };
            (0..self.d).map(column).collect::<Vec<T>>()
        };
        self.lengths.iter().flat_map(mean).collect()
    }
}

impl Pool<'_> {
    fn run(&self, device: &Device, dtype: DType, x: &[f32], dy: &[f32]) -> Ran {
        let (cx, d) = (Cx::new(device.clone()), self.d);
        let [x, dy] = [x, dy].map(|t| upload(device, dtype, [t.len() / d, d], t));
        let y = pool::forward(&cx, &x, self.lengths).unwrap();
        let dx = pool::backward(&cx, &dy, self.lengths).unwrap();
        Ran { y: download(&y), grads: vec![("x", download(&dx))] }
    }

    fn check(&self) {
        let rows: usize = self.lengths.iter().sum();
        gradcheck("pool", self, &[("x", normal(1, rows * self.d))], |i, dy| {
            self.run(&Device::Cpu, DType::F32, &i[0], dy)
        });
    }
}

#[test]
fn pool_faults_are_errors() {
    let (cx, x) = (Cx::cpu(), tensor([3, 2], &[0.0; 6]));
    for lengths in [&[1, 1][..], &[3, 0], &[4]] {
        assert!(pool::forward(&cx, &x, lengths).unwrap_err().to_string().contains("lengths"));
    }
    for lengths in [&[1, 1][..], &[3, 0, 1]] {
        assert!(pool::backward(&cx, &x, lengths).unwrap_err().to_string().contains("lengths"));
    }
}

/// Rotary: the first `rot` columns of each head are rotated according to the row's position.
struct Turned<'a> {
    positions: &'a [u32],
    heads: usize,
    head_dim: usize,
    rot: usize,
}

impl Formula for Turned<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let mut y = inputs[0].clone();
        for (i, head) in y.chunks_mut(self.head_dim).enumerate() {
            let (x, half) = (head.to_vec(), self.rot / 2);
            for j in 0..half {
                let inv = 1.0 / 10000f32.powf(2.0 * j as f32 / self.rot as f32);
                let angle = f64::from(self.positions[i / self.heads] as f32 * inv);
                let (cos, sin) = (T::of(angle.cos()), T::of(angle.sin()));
                head[j] = (x[j] * cos - x[j + half] * sin).stored();
                head[j + half] = (x[j + half] * cos + x[j] * sin).stored();
            }
        }
        y
    }
}

impl Turned<'_> {
    fn rotary(&self) -> Rotary {
        Rotary::new(self.heads, self.head_dim, self.rot, 10000.0, 2048)
    }

    /// In place, or to new memory if the old memory is shared.
    fn run(&self, device: &Device, dtype: DType, x: &[f32], dy: &[f32], shared: bool) -> Ran {
        let (cx, p, shape) =
            (Cx::new(device.clone()), self.rotary(), [self.positions.len(), self.heads * self.head_dim]);
        let inputs = [x, dy].map(|t| upload(device, dtype, shape, t));
        let views = shared.then(|| inputs.clone());
        let [a, b] = inputs;
        let y = rotary::forward(&cx, a, self.positions, &p).unwrap();
        let dx = rotary::backward(&cx, b, self.positions, &p).unwrap();
        for (view, old) in views.iter().flatten().zip([x, dy]) {
            assert_eq!(download(view), old);
        }
        Ran { y: download(&y), grads: vec![("x", download(&dx))] }
    }

    fn check(&self) {
        let n = self.positions.len() * self.heads * self.head_dim;
        gradcheck("rotary", self, &[("x", normal(1, n))], |i, dy| {
            self.run(&Device::Cpu, DType::F32, &i[0], dy, false)
        });
    }
}

/// Embedding lookup in a table [v, d].
struct Looked<'a> {
    ids: &'a [u32],
    v: usize,
    d: usize,
}

impl Formula for Looked<'_> {
    fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
        let row = |&id: &u32| &inputs[0][id as usize * self.d..][..self.d];
        self.ids.iter().flat_map(row).copied().collect()
    }
}

impl Looked<'_> {
    fn run(&self, device: &Device, dtype: DType, table: &[f32], dy: &[f32]) -> Ran {
        let (cx, mut table) = (Cx::new(device.clone()), param("table", [self.v, self.d], table));
        let mut grads = place(device, vec![&mut table], |_| true);
        let y = embedding::forward(&cx, self.ids, &table).unwrap();
        let dy = upload(device, dtype, [self.ids.len(), self.d], dy);
        embedding::backward(&cx, self.ids, &dy, &table, Some(&mut grads)).unwrap();
        Ran { y: download(&y), grads: vec![("table", added(&grads, &table))] }
    }

    fn check(&self) {
        gradcheck("embedding", self, &[("table", normal(1, self.v * self.d))], |i, dy| {
            self.run(&Device::Cpu, DType::F32, &i[0], dy)
        });
    }
}

/// The tile embeddings added to global [b, n, d] and local [b·t, n, d]; a function of global, local and table.
struct Tiles {
    b: usize,
    n: usize,
    t: usize,
    d: usize,
}

impl Formula for Tiles {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let Tiles { b, n, t, d } = *self;
        let mut y = Vec::new();
        for (image, j) in (0..b).flat_map(|b| (0..=t).map(move |j| (b, j))) {
            let tile = n * d;
            let from = if j == 0 { &x[0][image * tile..] } else { &x[1][(image * t + j - 1) * tile..] };
            y.extend(from[..tile].iter().enumerate().map(|(i, &v)| (v + x[2][j * d + i % d]).stored()));
        }
        y
    }
}

impl Tiles {
    /// Inputs global, local and table, where the table has one row more than there are tiles.
    fn inputs(&self, values: impl Fn(u64, usize) -> Vec<f32>) -> [(&'static str, Vec<f32>); 3] {
        let Tiles { b, n, t, d } = *self;
        let sizes = [("global", b * n * d), ("local", b * t * n * d), ("table", 6 * d)];
        std::array::from_fn(|i| (sizes[i].0, values(1 + i as u64, sizes[i].1)))
    }

    fn run(&self, device: &Device, dtype: DType, x: &[Vec<f32>], dy: &[f32]) -> Ran {
        let (cx, &Tiles { b, n, t, d }) = (Cx::new(device.clone()), self);
        let mut table = param("table", [x[2].len() / d, d], &x[2]);
        let mut grads = place(device, vec![&mut table], |_| true);
        let local = (t > 0).then(|| upload(device, dtype, [b * t, n, d], &x[1]));
        let global = upload(device, dtype, [b, n, d], &x[0]);
        let media = tile_embed::forward(&cx, &global, local.as_ref(), &table).unwrap();
        assert_eq!(media.shape().dims(), [b, (1 + t) * n, d]);
        let dy = upload(device, dtype, media.shape(), dy);
        let (global, local) = tile_embed::backward(&cx, &dy, b, t, &table, Some(&mut grads)).unwrap();
        let (again, _) = tile_embed::backward(&cx, &dy, b, t, &table, None).unwrap();
        assert_eq!(download(&again), download(&global));
        let local = local.as_ref().map_or(Vec::new(), download);
        let grads = vec![("global", download(&global)), ("local", local), ("table", added(&grads, &table))];
        Ran { y: download(&media), grads }
    }

    fn check(&self) {
        gradcheck("tile_embed", self, &self.inputs(normal), |x, dy| {
            self.run(&Device::Cpu, DType::F32, x, dy)
        });
    }
}

#[test]
fn at_sizes_of_use() {
    Turned { positions: &[0, 1, 2, 0, 700, 2047], heads: 2, head_dim: 16, rot: 8 }.check();
    Looked { ids: &[3, 0, 3, 3, 6], v: 7, d: 16 }.check();
    Tiles { b: 2, n: 3, t: 4, d: 2 }.check();
    Tiles { b: 2, n: 3, t: 0, d: 2 }.check();
}

#[test]
fn tiles_on_any_threads() {
    let f = Tiles { b: 7, n: 50, t: 4, d: 64 };
    let (x, dy) = (f.inputs(normal).map(|(_, x)| x), normal(4, 7 * 5 * f.n * f.d));
    same_on_any_threads(|| {
        let Ran { y, grads } = f.run(&Device::Cpu, DType::F32, &x, &dy);
        [y].into_iter().chain(grads.into_iter().map(|(_, g)| g)).collect()
    });
}

#[test]
fn tiles_that_do_not_fit_are_errors() {
    let cx = Cx::cpu();
    let table = param("table", [2, 2], &[0.0; 4]);
    let global = tensor([2, 3, 2], &[0.0; 12]);
    for bad in [tensor([1, 3, 2], &[0.0; 6]), tensor([2, 2, 2], &[0.0; 8]), tensor([4, 3, 2], &[0.0; 24])] {
        let fault = tile_embed::forward(&cx, &global, Some(&bad), &table);
        assert!(matches!(fault, Err(Error::Shapes { op: "tile_embed", .. })), "{bad:?}");
    }
    assert!(tile_embed::backward(&cx, &global, 2, 2, &table, None).is_err());
}

proptest! {
    #![proptest_config(common::repeatable(32))]

    #[test]
    fn pool_of_any_groups(d in 1..20usize, lengths in prop::collection::vec(1..7usize, 1..6)) {
        Pool { lengths: &lengths, d }.check();
    }

    #[test]
    fn rotary_of_any_shape(
        positions in prop::collection::vec(0..2048u32, 0..9),
        heads in 1..5usize,
        head_dim in 1..20usize,
        rot in 0..10usize,
    ) {
        let rot = (2 * rot).min(head_dim / 2 * 2);
        Turned { positions: &positions, heads, head_dim, rot }.check();
    }

    #[test]
    fn embedding_of_any_shape(ids in prop::collection::vec(0..9u32, 0..40), d in 1..20usize) {
        Looked { ids: &ids, v: 9, d }.check();
    }

    #[test]
    fn tiles_of_any_shape(b in 1usize..4, n in 1usize..4, t in 0usize..5, d in 1usize..4) {
        Tiles { b, n, t, d }.check();
    }
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_ops::rows;
    use pheye_testkit::gpu::{bf16_values, on_all_orders, orders, upload_bf16};
    use pheye_testkit::{BEFORE, Expected, Rounded, Rule};

    use super::*;

    const TYPES: [DType; 2] = [DType::Bf16, DType::F32];

    fn expected(
        dtype: DType,
        formula: &impl Formula,
        inputs: &[(&'static str, Vec<f32>)],
        active: &[&str],
        dy: &[f32],
    ) -> Expected {
        match dtype {
            DType::Bf16 => Expected::of::<Rounded<f32>>(formula, inputs, active, dy),
            _ => Expected::of::<f32>(formula, inputs, active, dy),
        }
    }

    /// The output and the gradients, compared over all emulator orders.
    fn ran(run: impl Fn(&Device) -> Ran) -> Vec<Vec<f32>> {
        on_all_orders(|device| {
            let Ran { y, grads } = run(device);
            [y].into_iter().chain(grads.into_iter().map(|(_, g)| g)).collect()
        })
    }

    #[test]
    fn rows_go_where_they_are_told() {
        for (d, dtype) in [1, 7, 8, 24, 264].into_iter().flat_map(|d| TYPES.map(|t| (d, t))) {
            let (m, n) = (5, 3);
            let (x, into) = (bf16_values(n * d, 1), bf16_values(m * d, 2));
            let row = |x: &[f32], i: usize| x[i * d..][..d].to_vec();
            let ran = on_all_orders(|device| {
                let (cx, x) = (Cx::new(device.clone()), upload(device, dtype, [n, d], &x));
                let mut placed = upload(device, dtype, [m, d], &into);
                rows::scatter(&cx, &mut placed, &x, &[4, 0, 2]).unwrap();
                // Of two rows with the same target, the last is kept.
                let mut twice = upload(device, dtype, [m, d], &into);
                rows::scatter(&cx, &mut twice, &x, &[3, 1, 3]).unwrap();
                let taken = rows::gather(&cx, &placed, &[2, 2, 4, 1]).unwrap();
                let nothing = rows::gather(&cx, &placed, &[]).unwrap();
                assert_eq!(nothing.shape().dims(), [0, d]);
                let all = rows::concat(&cx, &[&x, &nothing, &placed]).unwrap();
                [placed, twice, taken, all].iter().map(download).collect()
            });
            let placed = [row(&x, 1), row(&into, 1), row(&x, 2), row(&into, 3), row(&x, 0)].concat();
            let twice = [row(&into, 0), row(&x, 1), row(&into, 2), row(&x, 2), row(&into, 4)].concat();
            let taken = [row(&x, 2), row(&x, 2), row(&x, 0), row(&into, 1)].concat();
            assert_eq!(ran, [placed.clone(), twice, taken, [x, placed].concat()], "{d}");
        }
    }

    /// y, and the table's gradient added to its previous value; bit-exact.
    #[test]
    fn embeddings_are_looked_up_and_added_in_order() {
        for (ids, d) in [(&[3u32, 0, 3, 3, 6][..], 16), (&[1], 1), (&[5, 5, 4, 0, 5], 1031), (&[], 8)] {
            let (f, values, dy) =
                (Looked { ids, v: 7, d }, bf16_values(7 * d, 1), bf16_values(ids.len() * d, 2));
            let expected = Expected::of::<f32>(&f, &[("table", values.clone())], &[], &dy);
            for dtype in TYPES {
                let ran = ran(|device| f.run(device, dtype, &values, &dy));
                assert_eq!(ran[0], expected.plain_output(), "{ids:?} of width {d}");
                assert_eq!(ran[1], expected.plain_gradient("table"), "{ids:?} of width {d}");
            }
        }
    }

    #[test]
    fn rotary_turns_the_first_part_of_each_head() {
        let positions = &[0, 1, 2, 0, 700, 2047];
        for [heads, head_dim, rot] in [[2, 16, 8], [3, 64, 32], [1, 80, 80], [2, 7, 4], [1, 5, 0]] {
            let f = Turned { positions, heads, head_dim, rot };
            let [x, dy] = [1, 2].map(|seed| bf16_values(positions.len() * heads * head_dim, seed));
            for (dtype, shared) in TYPES.into_iter().flat_map(|t| [false, true].map(|s| (t, s))) {
                let ran = ran(|device| f.run(device, dtype, &x, &dy, shared));
                let expected = expected(dtype, &f, &[("x", x.clone())], &["x"], &dy);
                let name = format!("rotary {heads} {head_dim} {rot} {dtype}");
                expected.output(Rule::OUTPUT, &name, &ran[0]).check();
                // The tolerance of an output applies, because backward is a rotation too.
                expected.gradient(Rule::OUTPUT, &name, "x", &ran[1]).check();
            }
        }
    }

    /// One launch and several are bit-identical. Of two rows with the same target, the last is kept.
    #[test]
    fn rotary_into_a_cache_is_rotary_and_scatter() {
        let (positions, m) = ([3, 0, 700, 2047], 9);
        for [heads, head_dim, rot] in [[2, 16, 8], [3, 64, 32], [1, 80, 80], [2, 7, 4], [1, 5, 0]] {
            for at in [[8, 0, 4, 2], [1, 5, 1, 0]] {
                let (n, cols) = (positions.len(), heads * head_dim);
                let x = [1, 2, 3].map(|seed| bf16_values(n * cols, seed));
                let old = [4, 5].map(|seed| bf16_values(m * cols, seed));
                let ran = on_all_orders(|device| {
                    let (cx, p) = (Cx::new(device.clone()), Rotary::new(heads, head_dim, rot, 10000.0, 2048));
                    let inputs = || {
                        let [q, k, v] = x.each_ref().map(|x| upload_bf16(device, [n, cols], x));
                        let [keys, values] = old.each_ref().map(|x| upload_bf16(device, [m, cols], x));
                        (q, k, v, keys, values)
                    };
                    let (q, k, v, mut keys, mut values) = inputs();
                    let into = rotary::Cache { k: &mut keys, v: &mut values, rows: &at };
                    let q = rotary::forward_cached(&cx, q, (k, v), &positions, &p, into).unwrap();
                    let together = [&q, &keys, &values].map(download);
                    let (q, k, v, mut keys, mut values) = inputs();
                    let q = rotary::forward(&cx, q, &positions, &p).unwrap();
                    let k = rotary::forward(&cx, k, &positions, &p).unwrap();
                    rows::scatter(&cx, &mut keys, &k, &at).unwrap();
                    rows::scatter(&cx, &mut values, &v, &at).unwrap();
                    assert_eq!(together, [&q, &keys, &values].map(download));
                    together.into()
                });
                assert_eq!(ran[2][at[3] * cols..][..cols], x[2][3 * cols..], "the last row of v");
            }
        }
        let [device, ..] = orders();
        let (cx, p) = (Cx::new(device), Rotary::new(1, 8, 8, 10000.0, 2048));
        let make = |rows: usize| upload_bf16(&cx.device, [rows, 8], &vec![1.0; 8 * rows]);
        let fault = |rows: usize, position, at: &[usize]| {
            let (mut k, mut v) = (make(3), make(3));
            let into = rotary::Cache { k: &mut k, v: &mut v, rows: at };
            rotary::forward_cached(&cx, make(rows), (make(rows), make(rows)), &[position], &p, into).is_err()
        };
        assert!(fault(1, 0, &[3]) && fault(1, 2048, &[0]) && fault(2, 0, &[0]) && fault(1, 0, &[0, 1]));
        assert!(!fault(1, 0, &[2]));
    }

    #[test]
    fn pool_is_the_mean_of_each_group() {
        for (lengths, d) in [(&[1usize][..], 1), (&[3, 1, 7], 9), (&[257, 2], 264), (&[20], 520)] {
            let (f, rows) = (Pool { lengths, d }, lengths.iter().sum::<usize>());
            let (x, dy) = (bf16_values(rows * d, 1), bf16_values(lengths.len() * d, 2));
            for dtype in TYPES {
                let ran = ran(|device| f.run(device, dtype, &x, &dy));
                let (name, inputs) = (format!("pool {lengths:?} of {d} {dtype}"), [("x", x.clone())]);
                let expected = expected(dtype, &f, &inputs, &["x"], &dy);
                expected.output(Rule::OUTPUT, &name, &ran[0]).check();
                assert_eq!(ran[1], expected.plain_gradient("x"), "{name}, gradient");
            }
        }
    }

    /// Everything except the sums is bit-exact.
    #[test]
    fn tiles_get_their_embedding_and_give_it_its_gradient() {
        for [b, n, t, d] in [[2, 3, 4, 2], [2, 3, 0, 2], [1, 70, 1, 264], [3, 1, 2, 1]] {
            for dtype in TYPES {
                let f = Tiles { b, n, t, d };
                let inputs = f.inputs(|seed, n| bf16_values(n, seed));
                let x = inputs.each_ref().map(|(_, x)| x.clone());
                let dy = bf16_values(b * (1 + t) * n * d, 4);
                let ran = ran(|device| f.run(device, dtype, &x, &dy));
                let expected = expected(dtype, &f, &inputs, &["global", "local"], &dy);
                let [media, global, local, table] = ran.try_into().unwrap();
                assert_eq!(media, expected.plain_output(), "{b} {n} {t} {d}");
                assert_eq!(global, expected.plain_gradient("global"), "{b} {n} {t} {d}");
                assert_eq!(local, expected.plain_gradient("local"), "{b} {n} {t} {d}");
                let name = format!("tile embeddings {b} {n} {t} {d}");
                expected.gradient(Rule::GRADIENT, &name, "table", &table).check();
                assert_eq!(table[(1 + t) * d..], vec![BEFORE; (5 - t) * d]);
            }
        }
    }
}
