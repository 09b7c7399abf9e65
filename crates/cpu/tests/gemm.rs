//! GEMM with every layout and code path, compared with sums in f64.

use half::bf16;
use half::slice::HalfFloatSliceExt;
use pheye_cpu::gemm::{Init, add_column_sums, gemm, gemm_serial};
use pheye_cpu::mat::MatRef;
use proptest::prelude::*;

fn random(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i + seed) * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
}

/// How B is stored.
#[derive(Debug, Clone, Copy)]
enum Stored {
    F32,
    Bf16,
    Int8,
}

const STORED: [Stored; 3] = [Stored::F32, Stored::Bf16, Stored::Int8];

#[derive(Debug, Clone)]
struct Case {
    m: usize,
    k: usize,
    n: usize,
    a_transposed: bool,
    b_transposed: bool,
    stored: Stored,
    gap: usize,
    init: usize,
    serial: bool,
}

fn turn(x: MatRef<'_>, transposed: bool) -> MatRef<'_> {
    if transposed { x.t() } else { x }
}

fn check(case: &Case) {
    let &Case { m, k, n, gap, .. } = case;
    let dims = |rows, cols, transposed| if transposed { (cols, rows) } else { (rows, cols) };
    let ((ar, ac), (br, bc)) = (dims(m, k, case.a_transposed), dims(k, n, case.b_transposed));
    let (a, mut b) = (random(1, ar * (ac + gap)), random(2, br * (bc + gap)));
    let half: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
    let whole: Vec<i8> = b.iter().map(|x| (127.0 * x) as i8).collect();
    let scales: Vec<f32> = random(5, br).iter().map(|s| s / 127.0).collect();
    match case.stored {
        Stored::F32 => (),
        Stored::Bf16 => half.convert_to_f32_slice(&mut b),
        Stored::Int8 => {
            for (i, row) in b.chunks_mut((bc + gap).max(1)).enumerate() {
                let from = &whole[i * (bc + gap)..];
                row.iter_mut().zip(from).for_each(|(b, &x)| *b = x as f32 * scales[i]);
            }
        }
    }
    let (a_data, b_data) = (&a, &b);
    let a = turn(MatRef::f32(a_data, ar, ac).with_row_stride(ac + gap), case.a_transposed);
    let b = match case.stored {
        Stored::F32 => MatRef::f32(b_data, br, bc),
        Stored::Bf16 => MatRef::bf16(&half, br, bc),
        Stored::Int8 => MatRef::int8(&whole, &scales, br, bc),
    };
    let b = turn(b.with_row_stride(bc + gap), case.b_transposed);
    let (bias, c_stride) = (random(3, n), n + gap);
    let before = random(4, m * c_stride);
    let mut c = before.clone();
    let init = [Init::Zero, Init::Accumulate, Init::Bias(&bias)][case.init];
    let alpha = -0.75;
    (if case.serial { gemm_serial } else { gemm })(&mut c, c_stride, init, alpha, a, b);
    let at = |x: &[f32], r: MatRef, i: usize, j: usize| x[i * r.row_stride + j * r.col_stride] as f64;
    let integers = matches!(case.stored, Stored::Int8) && case.b_transposed && !case.a_transposed && m > 6;
    let a_largest = |i| (0..k).fold(0.0, |z: f64, l| z.max(at(a_data, a, i, l).abs()));
    let b_sum = |j| (0..k).map(|l| at(b_data, b, l, j).abs()).sum::<f64>();
    let (mut worst, mut allowed) = (0.0f64, 0.0f64);
    for i in 0..m {
        for j in 0..n {
            let terms = (0..k).map(|l| at(a_data, a, i, l) * at(b_data, b, l, j));
            let (sum, size) = terms.fold((0.0, 1.0), |(s, z), t| (s + t, z + t.abs()));
            let from = [0.0, before[i * c_stride + j], bias[j]][case.init] as f64;
            worst = worst.max((c[i * c_stride + j] as f64 - from - alpha as f64 * sum).abs());
            // A sum in f32 errs by at most half an ULP for each addition; typically the error grows with the square
            // root of their number.
            let sums = size * f32::EPSILON as f64 * (1.0 + (k as f64).sqrt());
            // With int8 weights, A may be quantized to int16: half a quantization step for each element.
            let rounding = if integers { a_largest(i) / 65534.0 * b_sum(j) } else { 0.0 };
            allowed = allowed.max(sums + rounding);
        }
        let gap = i * c_stride + n..(i + 1) * c_stride;
        assert_eq!(c[gap.clone()], before[gap], "between the rows of C");
    }
    assert!(worst <= allowed, "{case:?}: error {worst:.2e}, allowed {allowed:.2e}");
}

#[test]
fn every_path() {
    // Several tasks, split-K, several blocks of k, packed and direct operands, dot products.
    for (m, k, n) in [
        (500, 70, 90),
        (40, 3000, 50),
        (30, 600, 700),
        (3, 900, 300),
        (2, 64, 100),
        (5, 77, 33),
        (6, 40, 9),
        (7, 520, 48),
        (7, 290, 520),
        (1, 40, 1),
        (300, 5, 600),
    ] {
        for (bits, stored) in (0..8).flat_map(|bits| STORED.map(|stored| (bits, stored))) {
            let on = |bit: usize| bits >> bit & 1 == 1;
            let (a_transposed, b_transposed, serial) = (on(0), on(1), on(2));
            for init in 0..3 {
                let gap = (bits + init) % 3;
                check(&Case { m, k, n, a_transposed, b_transposed, stored, serial, gap, init });
            }
        }
    }
}

#[test]
fn threads_do_not_show() {
    for (m, k, n) in [(700, 64, 70), (64, 2720, 64), (2, 2048, 900), (100, 800, 1100), (485, 600, 1003)] {
        let (a, b, bias) = (random(1, m * k), random(2, n * k), random(3, n));
        let whole: Vec<i8> = b.iter().map(|x| (127.0 * x) as i8).collect();
        let scales = random(5, n);
        let run = |threads, b: MatRef| {
            let mut c = vec![0.0; m * n];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| gemm(&mut c, n, Init::Bias(&bias), 0.3, MatRef::f32(&a, m, k), b.t()));
            c
        };
        for b in [MatRef::f32(&b, n, k), MatRef::int8(&whole, &scales, n, k)] {
            let alone = run(1, b);
            assert!(alone == run(3, b) && alone == run(40, b), "{m} {k} {n}");
        }
    }
}

#[test]
#[should_panic(expected = "does not fit its slice")]
fn strides_that_wrap_are_refused() {
    let (a, b) = ([1.0; 2], [1.0; 48]);
    let stride = usize::MAX - 47;
    gemm(&mut [0.0; 48], stride, Init::Zero, 1.0, MatRef::f32(&a, 2, 1), MatRef::f32(&b, 1, 48));
}

#[test]
fn an_empty_sum_writes_the_start() {
    let (a, b) = (MatRef::f32(&[], 2, 0), MatRef::f32(&[], 0, 3));
    let mut c = vec![5.0; 6];
    gemm(&mut c, 3, Init::Bias(&[1.0, 2.0, 3.0]), 1.0, a, b);
    assert_eq!(c, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    gemm(&mut c, 3, Init::Zero, 1.0, a, b);
    assert_eq!(c, [0.0; 6]);
}

#[test]
fn column_sums() {
    for (rows, cols) in [(0, 5), (1, 1), (600, 7), (300, 64), (257, 70)] {
        let x = random(1, rows * cols);
        let mut out = vec![1.0; cols];
        add_column_sums(&mut out, &x);
        for (j, out) in out.iter().enumerate() {
            let sum: f64 = x.iter().skip(j).step_by(cols).map(|&x| x as f64).sum();
            assert!((*out as f64 - 1.0 - sum).abs() < 1e-5 * (rows as f64 + 1.0).sqrt(), "{rows} {cols}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_shape(
        (m, k, n) in (0usize..60, 0usize..400, 0usize..60),
        (a_transposed, b_transposed, serial) in any::<(bool, bool, bool)>(),
        stored in proptest::sample::select(&STORED[..]),
        gap in 0usize..9,
        init in 0usize..3,
    ) {
        check(&Case { m, k, n, a_transposed, b_transposed, stored, serial, gap, init });
    }
}
