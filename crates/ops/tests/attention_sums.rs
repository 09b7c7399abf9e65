//! Attention per segment of keys, on every device, compared with its formula.

#[path = "common/attention_formula.rs"]
mod attention_formula;
mod common;

use attention_formula::{Case, heads, span};
use common::{sum, tensor, upload};
use pheye_ops::attention::{self, Kv};
use pheye_ops::{Cx, Error};
use pheye_tensor::{DType, Device};
use pheye_testkit::gpu::{download, wide};
use pheye_testkit::{Formula, Real, Rule};

/// The sums of each query's attention weights over segments of the keys of its span; the slice holds the boundaries.
struct Segments<'a>(&'a Case, &'a [usize]);

impl Formula for Segments<'_> {
    fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
        let Segments(case, segments) = *self;
        let (h, w, n) = (case.heads, case.heads.width(), segments.len() - 1);
        let mut y = vec![T::of(0.0); h.heads * case.rows * n];
        for (s, head) in case.spans.iter().flat_map(|s| (0..h.heads).map(move |head| (s, head))) {
            for (i, row) in s.q.clone().enumerate() {
                let cut = |m: &[T], row: usize| m[row * w + head * h.head_dim..][..h.head_dim].to_vec();
                let score = |j| (T::dot(&cut(&x[0], row), &cut(&x[1], j)) * T::of(h.scale.into())).stored();
                let p: Vec<T> = case.seen(s, i).map(|j| score(j).exp()).collect();
                let total = sum(p.iter().copied());
                let y = &mut y[(head * case.rows + row) * n..][..n];
                for (j, &p) in p.iter().enumerate() {
                    y[segments.iter().rposition(|&b| b <= j).expect("the first boundary is 0")] += p / total;
                }
            }
        }
        y
    }
}

/// The boundaries: with an empty segment, and one beyond all keys.
const SEGMENTS: [usize; 5] = [0, 3, 3, 90, 200];

fn segment_cases() -> impl Iterator<Item = Case> {
    let sizes = [16, 32, 40, 64, 72, 96, 104, 128];
    sizes.into_iter().zip([false, true].into_iter().cycle()).map(|(head_dim, causal)| {
        Case::of(71, 105, &[span(1..4, 0..2), span(4..70, 5..105)], heads(2, head_dim, causal))
    })
}

/// The segment sums of q and k on a device.
fn segment_sums(case: &Case, device: &Device, dtype: DType) -> Vec<f32> {
    let (cx, w, [(_, q), (_, k), _]) = (Cx::new(device.clone()), case.heads.width(), case.inputs());
    let (q, k) = (upload(device, dtype, [case.rows, w], &q), upload(device, dtype, [case.keys, w], &k));
    let kv = Kv::Split { k: &k, v: &k };
    download(&attention::segment_sums(&cx, &q, kv, &case.spans, &case.heads, &SEGMENTS).unwrap())
}

#[test]
fn segment_sums_follow_their_formula() {
    for case in segment_cases() {
        let truth = Segments(&case, &SEGMENTS).eval(&case.inputs().map(|(_, x)| wide(&x)));
        // The truth rounded to f32.
        let plain: Vec<f32> = truth.iter().map(|&x| x as f32).collect();
        let sums = segment_sums(&case, &Device::Cpu, DType::F32);
        Rule::OUTPUT.compare("segment sums", &sums, &plain, &truth).check();
    }
    let (cx, q) = (Cx::cpu(), tensor([1, 8], &[1.0; 8]));
    let kv = Kv::Split { k: &q, v: &q };
    let descending = attention::segment_sums(&cx, &q, kv, &[span(0..1, 0..1)], &heads(1, 8, false), &[2, 1]);
    assert!(matches!(descending, Err(Error::Range { .. })));
}

/// The GPU kernel.
#[cfg(feature = "emulator")]
mod gpu {
    use pheye_testkit::gpu::on_all_orders;
    use pheye_testkit::{Expected, Rounded};

    use super::*;

    #[test]
    fn segment_sums_follow_their_formula() {
        for case in segment_cases() {
            let ([q, k, _], _) = case.narrow();
            let ran = on_all_orders(|device| vec![segment_sums(&case, device, DType::Bf16)]);
            let dy = vec![0.0; ran[0].len()];
            let formula = Segments(&case, &SEGMENTS);
            let expected = Expected::of::<Rounded<f64>>(&formula, &[("q", q), ("k", k)], &["q", "k"], &dy);
            expected.output(Rule::OUTPUT, "segment sums", &ran[0]).check();
        }
    }
}
