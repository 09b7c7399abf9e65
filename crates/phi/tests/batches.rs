//! Packing and caching do not change the result of a sequence.

use pheye_ops::{Cx, RandomInit};
use pheye_phi::{Cache, Config, Layout, Phi};
use pheye_tensor::Scope;
use pheye_testkit::randomize;

fn phi() -> Phi {
    let sizes = Config { vocab_size: 50, hidden_size: 32, intermediate_size: 64, ..Config::default() };
    let config =
        Config { num_hidden_layers: 3, num_attention_heads: 2, max_position_embeddings: 40, ..sizes };
    let mut phi = Phi::new(&mut Scope::new(&mut RandomInit::new(1), ""), &config).unwrap();
    randomize(phi.params_mut(), 2);
    phi
}

fn ids(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (seed + 7 * i + i * i) % 50).collect()
}

fn logits(phi: &Phi, ids: &[u32], layout: &Layout, cache: Option<&mut [Cache]>) -> Vec<Vec<f32>> {
    let y = phi.logits(&Cx::cpu(), ids, layout, cache).unwrap();
    y.f32().unwrap().chunks(50).map(<[f32]>::to_vec).collect()
}

/// The results may differ only by the order of sums.
fn close(a: &[Vec<f32>], b: &[Vec<f32>]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert!((a - b).abs() <= 64.0 * f32::EPSILON * a.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn packed_sequences_equal_each_alone() {
    let (phi, parts) = (phi(), [ids(1, 5), ids(2, 1), ids(3, 17)]);
    let alone: Vec<_> =
        parts.iter().flat_map(|ids| logits(&phi, ids, &Layout::packed(&[ids.len()]), None)).collect();
    close(&logits(&phi, &parts.concat(), &Layout::packed(&[5, 1, 17]), None), &alone);
}

#[test]
fn tokens_come_in_any_pieces() {
    let (phi, a, b) = (phi(), ids(1, 9), ids(2, 12));
    let whole =
        [logits(&phi, &a, &Layout::packed(&[9]), None), logits(&phi, &b, &Layout::packed(&[12]), None)];
    let mut caches: Vec<Cache> =
        (0..3).map(|_| Cache::new(&Cx::cpu(), 2, 15, phi.config.hidden_size).unwrap()).collect();
    let (mut past, mut got) = ([0; 2], [Vec::new(), Vec::new()]);
    // The first sequence ends before the second, and pauses once in between.
    for new in [[4, 2], [0, 5], [3, 1], [2, 3], [0, 1]] {
        let fed = [&a[past[0]..past[0] + new[0]], &b[past[1]..past[1] + new[1]]].concat();
        let mut rows = logits(&phi, &fed, &Layout::cached(&past, &new, 15), Some(&mut caches)).into_iter();
        for (i, new) in new.into_iter().enumerate() {
            got[i].extend(rows.by_ref().take(new));
            past[i] += new;
        }
    }
    close(&got.concat(), &whole.concat());
}

#[test]
fn tokens_beyond_vocabulary_and_context_are_refused() {
    let phi = phi();
    let fault = |ids: &[u32]| {
        let layout = Layout::packed(&[ids.len()]);
        phi.logits(&Cx::cpu(), ids, &layout, None).unwrap_err().to_string()
    };
    assert!(fault(&[1, 50]).contains("50"));
    assert!(fault(&ids(1, 41)).contains("position"));
}
