//! The learning rate of each step.

use pheye_optim::{Error, Schedule, ScheduleKind};

#[test]
fn cosine_equals_the_golden_training_run() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/level1/golden.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let lrs = golden.tensor("train_lrs").unwrap();
    let lrs: Vec<f64> = lrs.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    assert_eq!(lrs.len(), 5);
    let schedule = Schedule::cosine(1e-3);
    for (step, lr) in lrs.into_iter().enumerate() {
        assert!((schedule.lr(step as u64, 5) - lr).abs() < 1e-18, "step {step}");
    }
}

#[test]
fn warm_up_is_a_straight_line_that_meets_the_cosine() {
    let schedule = Schedule { lr: 1.0, final_lr: 0.1, warmup: 4, kind: ScheduleKind::Cosine };
    let lrs: Vec<f64> = (0..14).map(|s| schedule.lr(s, 14)).collect();
    for (step, expected) in [(0, 0.2), (1, 0.4), (2, 0.6), (3, 0.8), (4, 1.0), (9, 0.55)] {
        assert!((lrs[step] - expected).abs() < 1e-12, "step {step}: {}", lrs[step]);
    }
    assert!(lrs[4..].windows(2).all(|w| w[0] > w[1]));
    assert!((schedule.lr(14, 14) - 0.1).abs() < 1e-12 && schedule.lr(99, 14) == schedule.lr(14, 14));
}

#[test]
fn constant_and_degenerate_lengths() {
    let constant = Schedule { kind: ScheduleKind::Constant, warmup: 1, ..Schedule::cosine(0.5) };
    assert_eq!([constant.lr(0, 9), constant.lr(1, 9), constant.lr(8, 9)], [0.25, 0.5, 0.5]);
    assert_eq!(Schedule::cosine(0.5).lr(0, 0), 0.5);
    let all_warmup = Schedule { warmup: 10, ..Schedule::cosine(1.0) };
    assert!((0..20).all(|s| all_warmup.lr(s, 5).is_finite()));
    assert!(matches!(Schedule::cosine(f64::NAN).check(), Err(Error::Option { option: "lr", .. })));
    assert!(Schedule::cosine(1e-3).check().is_ok());
}
