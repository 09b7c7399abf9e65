//! Patch embedding on the emulator against its formula: that of LoRA over rows of patches.
#![cfg(feature = "emulator")]

mod common;
#[path = "common/emulated.rs"]
mod emulated;
#[path = "common/lora_formula.rs"]
mod lora_formula;

use common::{param, tensor};
use emulated::place;
use half::bf16;
use lora_formula::{Case, DROPOUT, START};
use pheye_ops::Cx;
use pheye_ops::lora::{Route, RowRange};
use pheye_ops::patch_embed::{self, PatchEmbed};
use pheye_testkit::Rule;
use pheye_testkit::gpu::{assert_rule, bf16_values, download, on_all_orders, upload_bf16};

struct Tiles {
    count: usize,
    g: usize,
    side: usize,
    d: usize,
    ranks: [usize; 2],
    half: bool,
}

/// Rows of patches, each (channel, line, column), of pixels [count, 3, g side, g side].
fn patches(t: &Tiles, pixels: &[f32]) -> Vec<f32> {
    let Tiles { g, side, .. } = *t;
    let mut out = Vec::new();
    for row in 0..t.count * g * g {
        let (tile, y, x) = (row / (g * g), row / g % g, row % g);
        for at in 0..3 * side * side {
            let (c, dy, dx) = (at / (side * side), at / side % side, at % side);
            out.push(pixels[((tile * 3 + c) * g * side + y * side + dy) * g * side + x * side + dx]);
        }
    }
    out
}

fn check(t: &Tiles) {
    let Tiles { count, g, side, d, ranks, half } = *t;
    let (n, k) = (1 + g * g, 3 * side * side);
    let pixels = bf16_values(count * k * g * g, 30);
    let (class, position) = (bf16_values(d, 31), bf16_values(n * d, 32));
    let dx = bf16_values(count * n * d, 33);

    let mut case = Case::of(count * g * g, k, d, &ranks);
    (case.dropout, case.trained) = (DROPOUT, [true; 3]);
    case.ranges = vec![(0..g * g, 0), (g * g..count * g * g, 1)];
    let mut v = case.values();
    v.x = patches(t, &pixels);
    v.b.fill(0.0);
    v.dy = (0..count * n).filter(|row| row % n > 0).flat_map(|row| dx[row * d..][..d].to_vec()).collect();
    // Tokens, then the gradients of class and position, of the weight, and of the adapters.
    let formula = |round: fn(f64) -> f64| {
        let mut all = case.formula(&v, round);
        let (rows, conv) = (all.remove(0), all.split_off(1));
        let wide = |x: &[f32], i: usize| f64::from(x[i]);
        let token = |i: usize| {
            let (tile, at) = (i / (n * d), i % (n * d));
            let x = if at < d { wide(&class, at) } else { rows[tile * (n - 1) * d + at - d] };
            round(x + wide(&position, at))
        };
        let sums: Vec<f64> = (0..n * d)
            .map(|i| f64::from(START) + (0..count).map(|t| wide(&dx, t * n * d + i)).sum::<f64>())
            .collect();
        let mut out = vec![(0..count * n * d).map(token).collect(), sums[..d].to_vec(), sums];
        out.push(conv[0].clone());
        out.extend(conv[2..].to_vec());
        out
    };
    let (truth, naive) = (formula(|x| x), formula(|x| bf16::from_f64(x).to_f64()));
    let out = on_all_orders(|device| {
        let cx = &Cx::new(device.clone());
        let mut conv = case.layer(&v);
        conv.base.bias = None;
        conv.base.weight = param("weight", [d, 3, side, side], &v.w);
        let class = param("class", [d], &class);
        let position = param("position", [n, d], &position);
        let mut p = PatchEmbed { conv, class, position, patch: side };
        let mut grads = place(device, p.params_mut(), |_| true, START);
        let shape = [count, 3, g * side, g * side];
        let pixels = match half {
            true => upload_bf16(device, shape, &pixels),
            false => tensor(shape, &pixels).to_device(device).unwrap(),
        };
        let ranges = [(0..1, 0), (1..count, 1)].map(|(rows, i)| RowRange { rows, adapter: Some(i) });
        let route = Route { ranges: ranges.to_vec(), dropout: DROPOUT };
        let (x, saved) = patch_embed::forward(cx, &pixels, &p, &route).unwrap();
        patch_embed::backward(
            cx,
            &saved,
            &upload_bf16(device, [count, n, d], &dx),
            &p,
            &route,
            Some(&mut grads),
        )
        .unwrap();
        let params = [&p.class, &p.position].into_iter().chain(p.conv.params());
        let grads = params.map(|p| download(&grads.view(p).unwrap().unwrap()));
        std::iter::once(download(&x)).chain(grads).collect()
    });
    assert_eq!(out.len(), truth.len());
    for (i, (out, truth)) in out.iter().zip(&truth).enumerate() {
        let naive: Vec<f32> = naive[i].iter().map(|&x| x as f32).collect();
        let rule = if i == 0 { Rule::OUTPUT } else { Rule::GRADIENT };
        assert_rule(out, truth, &naive, rule, &format!("result {i} of {count} tiles of {g} patches"));
    }
}

#[test]
fn patches_of_fourteen() {
    check(&Tiles { count: 3, g: 2, side: 14, d: 40, ranks: [8, 16], half: true });
}

#[test]
fn odd_patches() {
    check(&Tiles { count: 2, g: 3, side: 5, d: 17, ranks: [2, 3], half: false });
    check(&Tiles { count: 1, g: 1, side: 4, d: 8, ranks: [1, 1], half: false });
}
