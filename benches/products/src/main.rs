//! GEMM at Pheye's shapes on one thread, compared with the crates `gemm` and `matrixmultiply`: prints a table
//! for BENCHMARKS.md.
//!
//! `cd benches/products && cargo run --release [ROUNDS [WHAT]]` runs the shapes whose `what` contains WHAT.
//! All implementations take turns in each round, and a figure is the median over the rounds. A round repeats
//! the GEMM for a tenth of a second, after evicting its operands from the caches.

use std::time::Instant;

use half::bf16;
use pheye_cpu::gemm::{Init, gemm};
use pheye_cpu::mat::MatRef;

/// C `[m, n]` = A·Bᵀ with A `[m, k]` and weights B `[n, k]`; or, for the gradient of weights, C = Aᵀ·B with A
/// `[k, m]` and B `[k, n]`.
struct Shape {
    m: usize,
    k: usize,
    n: usize,
    what: &'static str,
    gradient: bool,
}

impl Shape {
    /// Whether `side` supports the shape: only linears have bf16 or int8 weights.
    fn has(&self, side: usize) -> bool {
        !self.gradient || !(1..3).contains(&side)
    }
}

const fn linear(m: usize, k: usize, n: usize, what: &'static str) -> Shape {
    Shape { m, k, n, what, gradient: false }
}

const fn gradient(m: usize, k: usize, n: usize) -> Shape {
    Shape { m, k, n, what: "dW", gradient: true }
}

const SHAPES: &[Shape] = &[
    linear(2570, 1280, 1280, "ViT-H, ten tiles: q, k, v, out"),
    linear(2570, 1280, 5120, "fc1"),
    linear(2570, 5120, 1280, "fc2"),
    linear(2570, 1280, 4096, "keys and values of the image"),
    linear(2570, 1280, 16, "LoRA, down"),
    linear(2570, 16, 1280, "LoRA, up"),
    linear(65, 2048, 2048, "Phi, a prompt"),
    linear(65, 2048, 8192, "fc1"),
    linear(65, 8192, 2048, "fc2"),
    linear(1, 2048, 8192, "Phi, a token"),
    linear(1, 2048, 51200, "the head"),
    gradient(8192, 65, 2048),
    gradient(4096, 2570, 1280),
    gradient(16, 2570, 1280),
    linear(2720, 64, 256, "nano"),
    gradient(64, 2720, 64),
];

const SIDES: [&str; 5] = ["f32", "bf16", "int8", "`gemm`", "`matrixmultiply`"];

struct Case<'a> {
    shape: &'a Shape,
    a: Vec<f32>,
    f32: Vec<f32>,
    bf16: Vec<bf16>,
    int8: (Vec<i8>, Vec<f32>),
    c: Vec<f32>,
}

fn noise(len: usize, mut state: u32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

impl Case<'_> {
    fn new(shape: &Shape) -> Case<'_> {
        let (a, f32) = (noise(shape.m * shape.k, 1), noise(shape.k * shape.n, 2));
        let bf16 = f32.iter().map(|&x| bf16::from_f32(x)).collect();
        let int8 = (f32.iter().map(|x| (127.0 * x) as i8).collect(), vec![1.0 / 127.0; shape.n]);
        Case { shape, a, f32, bf16, int8, c: vec![0.0; shape.m * shape.n] }
    }

    fn run(&mut self, side: usize) {
        let Shape { m, k, n, gradient, .. } = *self.shape;
        let a = match gradient {
            true => MatRef::f32(&self.a, k, m).t(),
            false => MatRef::f32(&self.a, m, k),
        };
        let b = match (side, gradient) {
            (1, _) => MatRef::bf16(&self.bf16, n, k).t(),
            (2, _) => MatRef::int8(&self.int8.0, &self.int8.1, n, k).t(),
            (_, false) => MatRef::f32(&self.f32, n, k).t(),
            (_, true) => MatRef::f32(&self.f32, k, n),
        };
        let [a_row, a_col, b_row, b_col] =
            [a.row_stride, a.col_stride, b.row_stride, b.col_stride].map(|s| s as isize);
        let (c, x, y) = (self.c.as_mut_ptr(), self.a.as_ptr(), self.f32.as_ptr());
        match side {
            // SAFETY: the pointers and strides are those of complete matrices of these sizes.
            3 => unsafe {
                ::gemm::gemm(
                    m,
                    n,
                    k,
                    c,
                    1,
                    n as isize,
                    false,
                    x,
                    a_col,
                    a_row,
                    y,
                    b_col,
                    b_row,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    ::gemm::Parallelism::None,
                )
            },
            // SAFETY: the same as above.
            4 => unsafe {
                matrixmultiply::sgemm(m, k, n, 1.0, x, a_row, a_col, y, b_row, b_col, 0.0, c, n as isize, 1)
            },
            _ => gemm(&mut self.c, n, Init::Zero, 1.0, a, b),
        }
    }
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(5, |n| n.parse().expect("ROUNDS is a number"));
    let only = std::env::args().nth(2).unwrap_or_default();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    // Inside the pool, as operations run in a model, so that no side waits for a thread to wake up.
    pool.install(|| table(rounds, &only));
}

fn table(rounds: usize, only: &str) {
    let flush_len = 64 << 20;
    let mut flush = vec![1u8; flush_len];
    println!("| M | K | N | what | {} |\n|{}", SIDES.join(" | "), "---|".repeat(4 + SIDES.len()));
    for shape in SHAPES.iter().filter(|shape| shape.what.contains(only)) {
        let mut case = Case::new(shape);
        let flops = 2.0 * (shape.m * shape.k * shape.n) as f64;
        let mut speeds = vec![Vec::new(); SIDES.len()];
        let mut first: Option<Vec<f32>> = None;
        for _ in 0..rounds {
            for (side, speeds) in speeds.iter_mut().enumerate().filter(|(side, _)| shape.has(*side)) {
                flush.iter_mut().step_by(64).for_each(|x| *x = x.wrapping_add(1));
                let (mut runs, mut seconds) = (0, 0.0);
                while seconds < 0.1 {
                    let start = Instant::now();
                    case.run(side);
                    seconds += start.elapsed().as_secs_f64();
                    runs += 1;
                }
                speeds.push(flops * runs as f64 / seconds / 1e9);
                // The results of all sides must agree.
                let first = first.get_or_insert_with(|| case.c.clone());
                let off = first.iter().zip(&case.c).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let allowed = (shape.k as f32).sqrt() * if (1..3).contains(&side) { 0.05 } else { 1e-4 };
                assert!(off <= allowed, "{} {}x{}x{}: off by {off}", SIDES[side], shape.m, shape.k, shape.n);
            }
        }
        let cells = speeds.iter_mut().map(|all| {
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).map_or(String::new(), |x| format!("{x:.1}"))
        });
        let Shape { m, k, n, what, .. } = shape;
        println!("| {m} | {k} | {n} | {what} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}
