//! Tensors in host memory: which ones share memory, and what returns to the arena. Small, so that Miri can run it.

use std::sync::Arc;
use std::thread;

use pheye_tensor::{Arena, DType, Error, Tensor, bf16};

#[test]
fn views_share_memory_and_the_first_writer_needs_it_alone() {
    let mut t = Tensor::from_f32([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let row = t.rows(1..2).unwrap();
    assert_eq!(row.f32().unwrap(), [3.0, 4.0, 5.0]);
    assert!(row.shares_memory_with(&t) && !t.is_sole_view());
    assert_eq!(t.f32_mut().unwrap_err(), Error::Shared { shape: [2, 3].into() });
    drop(row);
    t.f32_mut().unwrap()[3] = 9.0;
    assert_eq!(t.view(3, [1]).unwrap().f32().unwrap(), [9.0]);
    for (start, view) in [(usize::MAX, 1), (6, 1), (usize::MAX - 1, 3), (0, usize::MAX)] {
        assert!(matches!(t.view(start, [view]), Err(Error::View { .. })), "{start} {view}");
    }
    assert!(t.rows(usize::MAX - 1..usize::MAX).is_err() && t.rows(0..3).is_err());
    assert!(t.reshape([usize::MAX, 3]).is_err());
}

/// Bytes of another owner, aligned to four bytes.
struct Owner(Vec<u32>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

#[test]
fn bytes_of_another_owner_are_read_in_place_and_copied_to_be_written() {
    let owner = Arc::new(Owner(vec![1.5f32.to_bits(), (-2.0f32).to_bits()]));
    let mut t = Tensor::shared([2], DType::F32, owner.clone()).unwrap();
    assert_eq!(t.f32().unwrap().as_ptr().cast(), owner.0.as_ptr());
    t.f32_mut().unwrap()[0] = 7.0;
    assert_eq!((t.f32().unwrap(), owner.0[0]), (&[7.0, -2.0][..], 1.5f32.to_bits()));
    assert!(!t.is_shared() && Tensor::shared([3], DType::F32, owner.clone()).is_err());
    // A shape whose number of elements is 2^64 + 2.
    assert!(Tensor::shared([(1 << 63) + 1, 2], DType::F32, owner).is_err());
}

#[test]
fn types_are_converted_there_and_back() {
    let x = [1.0, -0.5, 3.140625, 1e30, f32::NEG_INFINITY];
    let t = Tensor::from_f32([5], &x).unwrap();
    let half = t.to_dtype(DType::Bf16).unwrap();
    let mut wide = half.to_dtype(DType::F32).unwrap();
    let rounded = x.map(|x| bf16::from_f32(x).to_f32());
    assert_eq!(wide.f32_mut().unwrap(), rounded);
    let q = Tensor::from_f32([2, 2], &[127.0, -1.0, 0.0, 0.0]).unwrap().to_dtype(DType::Int8).unwrap();
    assert_eq!(q.to_dtype(DType::F32).unwrap().f32().unwrap(), [127.0, -1.0, 0.0, 0.0]);
}

#[test]
fn threads_share_an_arena() {
    let arena = Arena::default();
    thread::scope(|scope| {
        for i in 1..4usize {
            let arena = &arena;
            scope.spawn(move || {
                for round in 0..5 {
                    let mut t = Tensor::empty(arena, [i, 20], DType::F32).unwrap();
                    let value = (10 * i + round) as f32;
                    t.f32_mut().unwrap().fill(value);
                    assert!(t.f32().unwrap().iter().all(|&x| x == value));
                }
            });
        }
    });
    let stats = arena.stats();
    assert!(stats.in_use == 0 && stats.allocations <= 9, "{stats:?}");
    // The arena may be dropped before its buffers.
    let t = Tensor::empty(&arena, [4], DType::F32).unwrap();
    drop(arena);
    assert_eq!(t.f32().unwrap().len(), 4);
}

#[test]
fn buffers_of_another_size_do_not_stay_idle_beside_those_in_use() {
    let arena = Arena::default();
    let take = |mib: usize| Tensor::empty(&arena, [mib << 20], DType::F32).map(drop).unwrap();
    // 4 bytes an element. Each size stays below the peak of the largest plus 32 MiB of idle buffers.
    for mib in [40, 30, 20, 25, 35] {
        take(mib);
        let stats = arena.stats();
        assert!(stats.idle <= (160 + 32) << 20, "{stats:?}");
    }
    let before = arena.stats().allocations;
    // What one part of a network repeats is served without the system.
    take(35);
    take(35);
    assert_eq!(arena.stats().allocations, before);
    arena.trim();
    assert_eq!(arena.stats().idle, 0);
}
