//! The order of samples.

mod common;

use common::texts;
use pheye_data::{Content, Error, Mixture};

fn mixture(lens: &[usize], weights: Option<&[f64]>, seed: u64) -> Mixture {
    let dir = tempfile::tempdir().unwrap();
    let manifests =
        lens.iter().enumerate().map(|(i, n)| texts(dir.path(), &format!("{i}.jsonl"), *n)).collect();
    Mixture::new(manifests, weights, Content::Text, seed).unwrap()
}

fn counts(m: &Mixture, lens: &[usize], epochs: u64) -> Vec<Vec<u64>> {
    let mut seen: Vec<Vec<u64>> = lens.iter().map(|n| vec![0; *n]).collect();
    for p in 0..epochs * m.epoch_len() {
        let draw = m.draw(p);
        seen[draw.source][draw.item] += 1;
    }
    seen
}

#[test]
fn an_epoch_sees_everything_as_often_as_weighted() {
    let lens = [10, 4, 7];
    let m = mixture(&lens, None, 1);
    assert_eq!(m.epoch_len(), 21);
    assert!(counts(&m, &lens, 1).iter().flatten().all(|c| *c == 1));

    let m = mixture(&lens, Some(&[0.5, 3.0, 1.0]), 1);
    assert_eq!(m.epoch_len(), 5 + 12 + 7);
    let seen = counts(&m, &lens, 2);
    for (source, times) in [(0, 1), (1, 6), (2, 2)] {
        assert!(seen[source].iter().all(|c| *c == times), "{seen:?}");
    }
}

#[test]
fn epochs_and_seeds_differ_and_positions_do_not_depend_on_the_past() {
    let (a, b) = (mixture(&[50], None, 1), mixture(&[50], None, 2));
    let order =
        |m: &Mixture, epoch: u64| (50 * epoch..50 * (epoch + 1)).map(|p| m.draw(p).item).collect::<Vec<_>>();
    let first = order(&a, 0);
    for other in [order(&a, 1), order(&b, 0), (0..50).collect()] {
        assert!(first.iter().zip(&other).filter(|(x, y)| x == y).count() < 10);
    }
    // A resumed run first asks a new mixture for a position in the middle of another epoch.
    let far = 123 * 50 + 17;
    assert_eq!(mixture(&[50], None, 1).draw(far), a.draw(far));
    assert_eq!(order(&a, 0), first);
}

#[test]
fn useless_mixtures_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let make = |weights: Option<&[f64]>, content| {
        Mixture::new(vec![texts(dir.path(), "t.jsonl", 3)], weights, content, 0).unwrap_err()
    };
    assert!(matches!(make(Some(&[1.0, 2.0]), Content::Text), Error::Weights { .. }));
    assert!(matches!(make(Some(&[0.0]), Content::Text), Error::Weights { .. }));
    let error = make(None, Content::Questions).to_string();
    assert!(error.contains("t.jsonl: nothing to learn from"), "{error}");
}
