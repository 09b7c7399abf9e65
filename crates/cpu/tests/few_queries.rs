//! Attention with few queries, in f32 and bf16, compared with a softmax in f64.

use half::bf16;
use pheye_cpu::attention::{Heads, Qkv, Span, forward};
use pheye_cpu::mat::MatRef;

fn random(seed: usize, len: usize) -> Vec<f32> {
    let values = (0..len).map(|i| ((i + seed) * 7919 % 1009) as f32 / 504.5 - 1.0);
    values.map(|x| bf16::from_f32(x).to_f32()).collect()
}

fn exact(q: &[f32], k: &[f32], v: &[f32], seen: usize, h: &Heads, head: usize) -> Vec<f64> {
    let (d, width) = (h.head_dim, h.width());
    let part = |x: &[f32], row: usize, c: usize| x[row * width + head * d + c] as f64;
    let scores: Vec<f64> = (0..seen)
        .map(|j| h.scale as f64 * (0..d).map(|c| q[head * d + c] as f64 * part(k, j, c)).sum::<f64>())
        .collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..d).map(|c| weights.iter().enumerate().map(|(j, w)| w * part(v, j, c)).sum::<f64>() / sum).collect()
}

#[test]
fn as_in_f64() {
    for (queries, keys, heads, head_dim, causal) in [
        (1, 257, 4, 64, false),
        (3, 130, 2, 80, true),
        (8, 64, 3, 20, true),
        (5, 1, 1, 16, false),
        (8, 5, 2, 24, true),
    ] {
        let h = Heads { heads, head_dim, scale: 0.3, causal };
        let width = h.width();
        let (q, k, v) = (random(1, queries * width), random(2, keys * width), random(3, keys * width));
        let [k16, v16]: [Vec<bf16>; 2] = [&k, &v].map(|x| x.iter().map(|&x| bf16::from_f32(x)).collect());
        let q16: Vec<bf16> = q.iter().map(|&x| bf16::from_f32(x)).collect();
        let spans = [Span { q: 0..queries, k: 0..keys }];
        let [in_f32, in_bf16] = [
            [(&q, queries), (&k, keys), (&v, keys)].map(|(x, rows)| MatRef::f32(x, rows, width)),
            [(&q16, queries), (&k16, keys), (&v16, keys)].map(|(x, rows)| MatRef::bf16(x, rows, width)),
        ];
        for [q_mat, k_mat, v_mat] in [in_f32, [in_f32[0], in_bf16[1], in_bf16[2]], in_bf16] {
            let x = Qkv { q: q_mat, k: k_mat, v: v_mat };
            let (mut out, mut softmax_stats) =
                (vec![f32::NAN; queries * width], vec![[f32::NAN; 2]; queries * heads]);
            forward(&mut out, &mut softmax_stats, x, &spans, &h);
            for (i, head) in (0..queries).flat_map(|i| (0..heads).map(move |head| (i, head))) {
                let seen = if causal { (keys + i + 1).saturating_sub(queries) } else { keys };
                let got = &out[i * width + head * head_dim..][..head_dim];
                if seen == 0 {
                    assert!(
                        got.iter().all(|&x| x == 0.0)
                            && softmax_stats[head * queries + i][0] == f32::INFINITY
                    );
                    continue;
                }
                let want = exact(&q[i * width..], &k, &v, seen, &h, head);
                let worst = got.iter().zip(&want).map(|(a, b)| (*a as f64 - b).abs()).fold(0.0, f64::max);
                assert!(worst < 2e-6, "{queries}x{keys} {heads}x{head_dim} query {i} head {head}: {worst}");
            }
        }
    }
}

#[test]
fn threads_do_not_show() {
    let h = Heads { heads: 8, head_dim: 64, scale: 0.125, causal: false };
    let (q, kv) = (random(1, 2 * h.width()), random(2, 2000 * h.width()));
    let run = |threads| {
        let (mut out, mut softmax_stats) = (vec![0.0; q.len()], vec![[0.0; 2]; 16]);
        let mat = |x, rows| MatRef::f32(x, rows, h.width());
        let x = Qkv { q: mat(&q, 2), k: mat(&kv, 2000), v: mat(&kv, 2000) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| forward(&mut out, &mut softmax_stats, x, &[Span { q: 0..2, k: 0..2000 }], &h));
        (out, softmax_stats)
    };
    assert!(run(1) == run(3));
}
