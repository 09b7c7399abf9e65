//! argmax and top-k: on the CPU compared with their definition, and bit-identical on every other device.

mod common;

use common::upload;
use pheye_ops::{Cx, argmax, topk};
use pheye_tensor::{DType, Device, Tensor};
use pheye_testkit::gpu::round_bf16;
use pheye_testkit::normal;

/// Logits with ties: bf16 values with the given spread.
fn logits(rows: usize, cols: usize, spread: f32, seed: u64) -> Vec<f32> {
    let mut x: Vec<f32> = normal(seed, rows * cols).iter().map(|x| x * spread).collect();
    round_bf16(&mut x);
    x
}

/// The result on the CPU, after comparing those of the other devices with it for both element types.
fn same<R: PartialEq + std::fmt::Debug>(
    others: &[Device],
    [rows, cols]: [usize; 2],
    x: &[f32],
    ask: impl Fn(&Cx, &Tensor) -> pheye_ops::Result<R>,
) -> R {
    let host = Tensor::from_f32([rows, cols], x).unwrap();
    let answer = ask(&Cx::cpu(), &host).unwrap();
    for device in others {
        let cx = Cx::new(device.clone());
        for dtype in [DType::Bf16, DType::F32] {
            let on_device = ask(&cx, &upload(device, dtype, [rows, cols], x)).unwrap();
            assert_eq!(on_device, answer, "{rows} x {cols} on {device}");
        }
    }
    answer
}

const SHAPES: [[usize; 2]; 7] = [[1, 1], [2, 3], [3, 8], [4, 31], [3, 1027], [2, 9001], [1, 8192]];

fn check_argmax(others: &[Device]) {
    for shape @ [rows, cols] in SHAPES {
        let x = logits(rows, cols, 1.0, cols as u64);
        let ids = same(others, shape, &x, argmax::forward);
        for (row, &id) in x.chunks(cols).zip(&ids) {
            assert!(row.iter().all(|&v| v <= row[id as usize]));
        }
    }
    assert_eq!(same(others, [0, 5], &[], argmax::forward), Vec::<u32>::new());
}

fn check_ties(others: &[Device]) {
    let inf = f32::INFINITY;
    let rows: [&[f32]; 6] = [
        &[1.0, 7.0, 7.0, 2.0],
        &[-0.0, 0.0, -0.0, -1.0],
        &[3.0, f32::NAN, inf, f32::NAN],
        &[f32::NAN, 1.0, 2.0, 3.0],
        &[-inf, -inf, -inf, -inf],
        &[-5.0, -3.0, -3.0, -inf],
    ];
    assert_eq!(same(others, [6, 4], &rows.concat(), argmax::forward), [1, 0, 1, 0, 0, 1]);
    let ids = same(others, [6, 4], &rows.concat(), |cx, x| Ok(topk::forward(cx, x, 4)?.ids));
    let expected = [[1, 2, 3, 0], [0, 1, 2, 3], [1, 3, 2, 0], [0, 3, 2, 1], [0, 1, 2, 3], [1, 2, 0, 3]];
    assert_eq!(ids, expected.concat());
    // Generation uses this to detect a logit that is not finite.
    let largest = |cx: &Cx, x: &Tensor| {
        let values = topk::forward(cx, x, 1)?.values;
        Ok(values.into_iter().map(|v| if v.is_finite() { "finite" } else { "not" }).collect::<Vec<_>>())
    };
    assert_eq!(
        same(others, [6, 4], &rows.concat(), largest),
        ["finite", "finite", "not", "not", "not", "finite"]
    );
    let equal = vec![0.25; 5000];
    assert_eq!(
        same(others, [1, 5000], &equal, |cx, x| Ok(topk::forward(cx, x, 9)?.ids)),
        [0, 1, 2, 3, 4, 5, 6, 7, 8]
    );
}

fn check_topk(others: &[Device]) {
    for shape @ [rows, cols] in SHAPES {
        // All columns of a short row, some of a long one.
        for k in [1, 7.min(cols), if cols == 1027 { 64 } else { 3.min(cols) }] {
            let x = logits(rows, cols, 1.0, (cols + k) as u64);
            let best = same(others, shape, &x, |cx, x| topk::forward(cx, x, k));
            for (i, row) in x.chunks(cols).enumerate() {
                let mut order: Vec<usize> = (0..cols).collect();
                order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
                let ids: Vec<usize> = best.ids[i * k..][..k].iter().map(|&i| i as usize).collect();
                assert_eq!(ids, order[..k]);
                assert!(ids.iter().zip(&best.values[i * k..]).all(|(&i, v)| row[i] == *v));
            }
        }
    }
}

#[test]
fn topk_refuses_more_than_there_is() {
    for k in [0, 4] {
        let x = Tensor::zeros([2, 3], DType::F32);
        let fault = topk::forward(&Cx::cpu(), &x, k).unwrap_err().to_string();
        assert_eq!(fault, format!("topk: k is {k}, expected 1..=3"));
    }
}

#[test]
fn argmax_of_any_shape() {
    check_argmax(&[]);
}

#[test]
fn the_first_of_equals_and_not_a_number() {
    check_ties(&[]);
}

#[test]
fn topk_is_the_head_of_the_sorted_row() {
    check_topk(&[]);
}

/// The GPU kernels.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_testkit::gpu::orders;

    use super::*;

    #[test]
    fn argmax_of_any_shape() {
        check_argmax(&orders());
    }

    #[test]
    fn the_first_of_equals_and_not_a_number() {
        check_ties(&orders());
    }

    #[test]
    fn topk_is_the_head_of_the_sorted_row() {
        check_topk(&orders());
    }
}
