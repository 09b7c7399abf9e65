//! The memory of attention over long sequences does not grow with queries times keys.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pheye_cpu::attention::{Heads, Kv, Output, Qkv, Span, backward, forward};
use pheye_cpu::mat::{MatMut, MatRef};

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: all calls are forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn four_thousand_tokens_fit_a_few_tiles() {
    let (n, d) = (4096, 16);
    let x: Vec<f32> = (0..n * d).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    let rows = MatRef::f32(&x, n, d);
    let h = Heads { heads: 1, head_dim: d, scale: 0.25, causal: true };
    let spans = [Span { q: 0..n, k: 0..n }];
    let qkv = Qkv { q: rows, k: rows, v: rows };
    let (mut out, mut softmax_stats) = (vec![0.0; n * d], vec![[0.0; 2]; n]);
    let (mut dq, mut dk, mut dv) = (vec![0.0; n * d], vec![0.0; n * d], vec![0.0; n * d]);
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    forward(&mut out, &mut softmax_stats, qkv, &spans, &h);
    let [k, v] = [&mut dk, &mut dv].map(|data| MatMut { data, row_stride: d });
    backward(
        &mut dq,
        Kv::Split { k, v },
        qkv,
        Output { out: &out, softmax_stats: &softmax_stats, dout: &x },
        &spans,
        &h,
    );
    let more = PEAK.load(Relaxed) - before;
    let square = 4 * n * n;
    assert!(more < square / 16, "{more} bytes more, {square} would be a matrix of all scores");
    assert!(dq.iter().chain(&dk).chain(&dv).all(|x| x.is_finite()));
}
