//! Caches: the last rows, copies between slots; and tokens beyond the vocabulary or the context.

mod common;

use common::Case;
use pheye_gpt2::{Gpt2, Layout};
use pheye_ops::{Cx, argmax};
use pheye_tensor::{DType, Device, Tensor};

fn plain() -> Case {
    Case::on(&Device::Cpu, "plain")
}

/// Greedy decoding over a cache gives the ids that transformers gives without one.
#[test]
fn greedy_decoding_is_that_of_transformers() {
    let Case { golden, cx, gpt2, .. } = plain();
    let expected: Vec<u32> = golden.i64("greedy").iter().map(|&id| id as u32).collect();
    let (mut ids, mut past) = (expected[..5].to_vec(), 0);
    let mut caches = gpt2.caches(&cx, 1, expected.len()).unwrap();
    while ids.len() < expected.len() {
        let layout = Layout::cached(&[past], &[ids.len() - past], expected.len());
        let logits = gpt2.next_logits(&cx, &ids[past..], &layout, Some(&mut caches)).unwrap();
        past = ids.len();
        ids.extend(argmax::forward(&cx, &logits).unwrap());
    }
    assert_eq!(ids, expected);
}

#[test]
fn the_last_rows_are_those_of_all() {
    let case = plain();
    let (cx, layout, v) = (&case.cx, case.layout(), case.gpt2.config.vocab_size);
    let all = case.gpt2.logits(cx, &case.ids, &layout, None).unwrap();
    let last = case.gpt2.next_logits(cx, &case.ids, &layout, None).unwrap();
    let ends = case.lengths.iter().scan(0, |end, len| {
        *end += len;
        Some(*end - 1)
    });
    let expected: Vec<f32> = ends.flat_map(|row| all.f32().unwrap()[row * v..][..v].to_vec()).collect();
    // The head is the same product at another number of rows.
    for (a, b) in last.f32().unwrap().iter().zip(&expected) {
        assert!((a - b).abs() <= 64.0 * f32::EPSILON * a.abs().max(1.0), "{a} {b}");
    }
}

/// A prompt is prefilled in one slot, whose rows another slot takes over; both continue it alike.
#[test]
fn a_slot_continues_the_copy_of_another() {
    let case = plain();
    let (cx, gpt2, prompt, next) = (&case.cx, &case.gpt2, &case.ids[..5], case.ids[5]);
    let (capacity, mut caches) = (8, case.gpt2.caches(&case.cx, 3, 8).unwrap());
    gpt2.next_logits(cx, prompt, &Layout::cached(&[0, 0, 0], &[0, 5, 0], capacity), Some(&mut caches))
        .unwrap();
    let (from, to): (Vec<usize>, Vec<usize>) = ((8..13).collect(), (16..21).collect());
    caches.iter_mut().for_each(|cache| cache.copy(cx, &from, &to).unwrap());
    let layout = Layout::cached(&[0, 5, 5], &[0, 1, 1], capacity);
    let both = gpt2.next_logits(cx, &[next, next], &layout, Some(&mut caches)).unwrap();
    let (one, other) = both.f32().unwrap().split_at(gpt2.config.vocab_size);
    assert_eq!(one, other);
}

#[test]
fn tokens_beyond_vocabulary_and_context_are_refused() {
    let Case { cx, gpt2, .. } = plain();
    let fault = |gpt2: &Gpt2, ids: &[u32]| {
        let layout = Layout::packed(&[ids.len()]);
        gpt2.logits(&cx, ids, &layout, None).unwrap_err().to_string()
    };
    assert!(fault(&gpt2, &[1, 257]).contains("id is 257, expected 0..257"));
    assert!(fault(&gpt2, &[1; 25]).contains("gpt2: position is 24, expected 0..24"));
    let rows = Tensor::zeros([3, 16], DType::F32);
    assert!(gpt2.add_positions(&Cx::cpu(), rows, &[0, 1]).unwrap_err().to_string().contains("add:"));
}
