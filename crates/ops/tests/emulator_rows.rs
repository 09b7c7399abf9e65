//! Rows moved, looked up, turned, averaged and tiled on the emulator, in every order of its threads.
#![cfg(feature = "emulator")]

mod common;
#[path = "common/emulated.rs"]
mod emulated;

use common::param;
use emulated::place;
use pheye_ops::rotary::{self, Rotary};
use pheye_ops::{Cx, embedding, pool, rows, tile_embed};
use pheye_tensor::{DType, Device, Grads, Param, Shape, Tensor};
use pheye_testkit::gpu::{
    assert_rule, bf16_values, download, on_all_orders, round_bf16, upload_bf16, upload_f32, wide,
};
use pheye_testkit::{Real, Rule};

/// What every gradient holds before backward adds to it.
const BEFORE: f32 = 0.5;

fn added(grads: &Grads, param: &Param) -> Vec<f32> {
    download(&grads.view(param).unwrap().unwrap())
}

fn rounded(mut x: Vec<f32>) -> Vec<f32> {
    round_bf16(&mut x);
    x
}

type Upload = fn(&Device, Shape, &[f32]) -> Tensor;
const UPLOADS: [Upload; 2] = [|d, s, x| upload_bf16(d, s, x), |d, s, x| upload_f32(d, s, x)];

#[test]
fn rows_go_where_they_are_told() {
    for (d, upload) in [1, 7, 8, 24, 264].into_iter().flat_map(|d| UPLOADS.map(|u| (d, u))) {
        let (m, n) = (5, 3);
        let (x, into) = (bf16_values(n * d, 1), bf16_values(m * d, 2));
        let row = |x: &[f32], i: usize| x[i * d..][..d].to_vec();
        let ran = on_all_orders(|device| {
            let (cx, x) = (Cx::new(device.clone()), upload(device, [n, d].into(), &x));
            let mut placed = upload(device, [m, d].into(), &into);
            rows::scatter(&cx, &mut placed, &x, &[4, 0, 2]).unwrap();
            // The last of two rows for one place stays.
            let mut twice = upload(device, [m, d].into(), &into);
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

/// y and Σ dy of each table row, on top of what was there.
#[test]
fn embeddings_are_looked_up_and_added_in_order() {
    for (ids, d) in [(&[3u32, 0, 3, 3, 6][..], 16), (&[1], 1), (&[5, 5, 4, 0, 5], 1031), (&[], 8)] {
        let (v, n) = (7, ids.len());
        let (values, dy) = (bf16_values(v * d, 1), bf16_values(n * d, 2));
        let ran = on_all_orders(|device| {
            let (cx, mut table) = (Cx::new(device.clone()), param("table", [v, d], &values));
            let mut grads = place(device, vec![&mut table], |_| true, BEFORE);
            let y = embedding::forward(&cx, ids, &table).unwrap();
            let dy = upload_bf16(device, [n, d], &dy);
            embedding::backward(&cx, ids, &dy, &table, Some(&mut grads)).unwrap();
            let sums = added(&grads, &table);
            let mut grads = place(device, vec![&mut table], |_| true, BEFORE);
            let dy = download(&dy);
            embedding::backward(&cx, ids, &upload_f32(device, [n, d], &dy), &table, Some(&mut grads))
                .unwrap();
            vec![download(&y), sums, added(&grads, &table)]
        });
        let mut sums = vec![BEFORE; v * d];
        for (&id, dy) in ids.iter().zip(dy.chunks(d)) {
            sums[id as usize * d..][..d].iter_mut().zip(dy).for_each(|(s, dy)| *s += dy);
        }
        let y: Vec<f32> = ids.iter().flat_map(|&id| values[id as usize * d..][..d].to_vec()).collect();
        assert_eq!(ran, [y, sums.clone(), sums], "{n} of width {d}");
    }
}

/// Heads turned forwards (1) or backwards (-1).
fn turned<T: Real>(x: &[f32], positions: &[u32], [heads, head_dim, rot]: [usize; 3], sign: f64) -> Vec<T> {
    let mut y: Vec<T> = x.iter().map(|&x| T::of(x.into())).collect();
    for (i, head) in y.chunks_mut(head_dim).enumerate() {
        let (x, half) = (head.to_vec(), rot / 2);
        for j in 0..half {
            let inv = 1.0 / 10000f32.powf(2.0 * j as f32 / rot as f32);
            let angle = f64::from(positions[i / heads] as f32 * inv);
            let (cos, sin) = (T::of(angle.cos()), T::of(sign * angle.sin()));
            head[j] = x[j] * cos - x[j + half] * sin;
            head[j + half] = x[j + half] * cos + x[j] * sin;
        }
    }
    y
}

#[test]
fn rotary_turns_the_first_part_of_each_head() {
    let positions = [0, 1, 2, 0, 700, 2047];
    for shape in [[2, 16, 8], [3, 64, 32], [1, 80, 80], [2, 7, 4], [1, 5, 0]] {
        for (upload, narrow) in UPLOADS.into_iter().zip([true, false]) {
            let [heads, head_dim, rot] = shape;
            let (n, cols) = (positions.len(), heads * head_dim);
            let x = bf16_values(n * cols, 1);
            for shared in [false, true] {
                let ran = on_all_orders(|device| {
                    let (cx, p) = (Cx::new(device.clone()), Rotary::new(heads, head_dim, rot, 10000.0, 2048));
                    let [a, b] = [0, 1].map(|_| upload(device, [n, cols].into(), &x));
                    let views = shared.then(|| [a.clone(), b.clone()]);
                    let y = rotary::forward(&cx, a, &positions, &p).unwrap();
                    let dx = rotary::backward(&cx, b, &positions, &p).unwrap();
                    views.iter().flatten().for_each(|view| assert_eq!(download(view), x));
                    vec![download(&y), download(&dx)]
                });
                for (out, sign) in ran.iter().zip([1.0, -1.0]) {
                    let naive = turned(&x, &positions, shape, sign);
                    let naive = if narrow { rounded(naive) } else { naive };
                    let truth: Vec<f64> = turned(&x, &positions, shape, sign);
                    assert_rule(out, &truth, &naive, Rule::OUTPUT, &format!("rotary {shape:?} {sign}"));
                }
            }
        }
    }
}

/// In one launch and in many: the same bits. Of two rows for one place the last stays.
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
    let cx = Cx::new("emulator".parse().unwrap());
    let p = Rotary::new(1, 8, 8, 10000.0, 2048);
    let make = |rows: usize| upload_bf16(&cx.device, [rows, 8], &vec![1.0; 8 * rows]);
    let fault = |rows: usize, position, at: &[usize]| {
        let (mut k, mut v) = (make(3), make(3));
        let into = rotary::Cache { k: &mut k, v: &mut v, rows: at };
        rotary::forward_cached(&cx, make(rows), (make(rows), make(rows)), &[position], &p, into).is_err()
    };
    assert!(fault(1, 0, &[3]) && fault(1, 2048, &[0]) && fault(2, 0, &[0]) && fault(1, 0, &[0, 1]));
    assert!(!fault(1, 0, &[2]));
}

fn means<T: Real>(x: &[f32], lengths: &[usize], d: usize) -> Vec<T> {
    let mut rows = x.chunks(d);
    let mut y = Vec::new();
    for &n in lengths {
        let group: Vec<&[f32]> = rows.by_ref().take(n).collect();
        for j in 0..d {
            let mut sum = T::of(0.0);
            group.iter().for_each(|row| sum += T::of(row[j].into()));
            y.push(sum / T::of(n as f64));
        }
    }
    y
}

#[test]
fn pool_is_the_mean_of_each_group() {
    for (lengths, d) in [(&[1usize][..], 1), (&[3, 1, 7], 9), (&[257, 2], 264), (&[20], 520)] {
        for (upload, narrow) in UPLOADS.into_iter().zip([true, false]) {
            let (rows, groups) = (lengths.iter().sum::<usize>(), lengths.len());
            let (x, dy) = (bf16_values(rows * d, 1), bf16_values(groups * d, 2));
            let ran = on_all_orders(|device| {
                let cx = Cx::new(device.clone());
                let y = pool::forward(&cx, &upload(device, [rows, d].into(), &x), lengths).unwrap();
                let dx = pool::backward(&cx, &upload(device, [groups, d].into(), &dy), lengths).unwrap();
                vec![download(&y), download(&dx)]
            });
            let keep = |x: Vec<f32>| if narrow { rounded(x) } else { x };
            let name = format!("pool {lengths:?} of {d}");
            assert_rule(&ran[0], &means(&x, lengths, d), &keep(means(&x, lengths, d)), Rule::OUTPUT, &name);
            let of_rows = lengths.iter().zip(dy.chunks(d));
            let dx = of_rows.flat_map(|(&n, dy)| vec![dy; n].concat().into_iter().map(move |v| v / n as f32));
            assert_eq!(ran[1], keep(dx.collect()), "{name}, gradient");
        }
    }
}

/// Pictures, tokens, tiles, width.
#[test]
fn tiles_get_their_embedding_and_give_it_its_gradient() {
    for [b, n, t, d] in [[2, 3, 4, 2], [2, 3, 0, 2], [1, 70, 1, 264], [3, 1, 2, 1]] {
        for (dtype, up) in [DType::Bf16, DType::F32].into_iter().zip(UPLOADS) {
            tiles([b, n, t, d], dtype, up);
        }
    }
}

fn tiles([b, n, t, d]: [usize; 4], dtype: DType, up: Upload) {
    let values = bf16_values(6 * d, 3);
    let (global, local) = (bf16_values(b * n * d, 1), bf16_values(b * t * n * d, 2));
    let dmedia = bf16_values(b * (1 + t) * n * d, 4);
    let ran = on_all_orders(|device| {
        let (cx, mut table) = (Cx::new(device.clone()), param("table", [6, d], &values));
        let mut grads = place(device, vec![&mut table], |_| true, BEFORE);
        let tiles = (t > 0).then(|| up(device, [b * t, n, d].into(), &local));
        let global = up(device, [b, n, d].into(), &global);
        let media = tile_embed::forward(&cx, &global, tiles.as_ref(), &table).unwrap();
        let dy = up(device, media.shape(), &dmedia);
        let (dglobal, dlocal) = tile_embed::backward(&cx, &dy, b, t, &table, Some(&mut grads)).unwrap();
        let (again, _) = tile_embed::backward(&cx, &dy, b, t, &table, None).unwrap();
        assert_eq!(download(&again), download(&dglobal));
        let dlocal = dlocal.as_ref().map_or(Vec::new(), download);
        vec![download(&media), download(&dglobal), dlocal, added(&grads, &table)]
    });
    let (tile, views) = (n * d, 1 + t);
    let (mut media, mut dglobal, mut dlocal) = (Vec::new(), Vec::new(), Vec::new());
    let (mut truth, mut naive) = (vec![f64::from(BEFORE); 6 * d], vec![BEFORE; 6 * d]);
    for (v, dy) in dmedia.chunks(tile).enumerate() {
        let (picture, j) = (v / views, v % views);
        let from = if j == 0 { &global[picture * tile..] } else { &local[(picture * t + j - 1) * tile..] };
        media.extend((0..tile).map(|i| from[i] + values[j * d + i % d]));
        if j == 0 { &mut dglobal } else { &mut dlocal }.extend_from_slice(dy);
        for (i, &dy) in dy.iter().enumerate() {
            truth[j * d + i % d] += f64::from(dy);
            naive[j * d + i % d] += dy;
        }
    }
    let media = if dtype == DType::Bf16 { rounded(media) } else { media };
    assert_eq!(ran[..3], [media, dglobal, dlocal], "{b} {n} {t} {d}");
    assert_rule(&ran[3], &truth, &naive, Rule::GRADIENT, &format!("tile embeddings {b} {n} {t} {d}"));
    assert_eq!(wide(&ran[3][views * d..]), vec![f64::from(BEFORE); (6 - views) * d]);
}
