//! Branch-free transcendental functions and sums in a fixed order, written so that loops over them vectorize.
//!
//! The polynomials are minimax approximations. Each function is within 2 ULP of the true value.

/// Defines functions that are compiled twice, for AVX2 with FMA and for the baseline, and select a version at
/// run time.
///
/// Unlike a closure passed to [`crate::par::simd`], the body is certain to be inlined where the wide instructions are
/// enabled. Elsewhere `mul_add` would be a call into the C library.
macro_rules! vectorised {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn wide($($arg: $ty),*) {
                    body($($arg),*)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: this processor has AVX2 and FMA.
                    return unsafe { wide($($arg),*) };
                }
            }
            body($($arg),*)
        }
    )*};
}
pub(crate) use vectorised;

/// Rounds `x` to bf16, to nearest even. NaN remains NaN.
pub fn round(out: &mut [half::bf16], x: &[f32]) {
    const PIECE: usize = 1 << 14;
    crate::par::pieces(out.chunks_mut(PIECE).zip(x.chunks(PIECE)), x.len(), |_, (out, x)| {
        round_piece(out, x)
    });
}

vectorised! {
    fn round_piece(out: &mut [half::bf16], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            let bits = x.to_bits();
            // Adds half of the last kept bit (slightly less when that bit is 0, for ties to even), then
            // truncates.
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            let nan = bits >> 16 | 0x40;
            *out = half::bf16::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { rounded } as u16);
        }
    }
}

/// Lanes of a sum: two accumulators with eight lanes each, so that even short rows use both.
const LANES: usize = 16;

/// eˣ: infinity above 88.73, subnormal below -87.3, zero below -104.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // x = n·ln 2 + r. Adding 1.5·2²³ rounds to an integer and leaves n in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.clamp(-104.0, 89.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2[1], n.mul_add(-LN_2[0], x));
    let y = horner(r, [0.001_382_010_8, 0.008_368_685, 0.041_668_274, 0.166_665_21, 0.499_999_94]);
    let y = y.mul_add(r * r, r) + 1.0;
    // Multiplies by 2ⁿ in two steps, since 2ⁿ itself may be out of range.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    y * power(n >> 1) * power(n - (n >> 1))
}

/// The logistic function 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let (a, t) = (x.abs(), x * x);
    let near = horner(
        t,
        [
            7.806_904e-5,
            -7.997_853e-4,
            0.005_187_162,
            -0.026_853_347,
            0.112_835_79,
            -0.376_126_26,
            0.128_379_17,
        ],
    );
    // erfc(a) = e⁻ᵍ with smooth g. Beyond a = 4, erfc is less than half an ULP of 1.
    let g =
        [-1.863_675e-4, 0.002_947_574_5, -0.021_837_832, 0.103_106_45, 0.638_145, 1.127_089_1, 3.415_222e-4];
    let far = (1.0 - exp(-horner(a.min(4.0), g))).copysign(x);
    if a >= 1.0 { far } else { x.mul_add(near, x) }
}

/// Evaluates the polynomial Σ cᵢ xⁿ⁻ⁱ (highest power first) by Horner's method.
#[inline(always)]
fn horner<const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut y = c[0];
    for &c in &c[1..] {
        y = y.mul_add(x, c);
    }
    y
}

/// Σᵢ f(x₁ᵢ, x₂ᵢ, …) over slices of the same length, in a fixed order.
#[inline(always)]
pub fn sum<const N: usize>(x: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = x.map(|x| x.as_chunks::<LANES>());
    for c in 0..whole[0].0.len() {
        let at = whole.map(|(chunks, _)| &chunks[c]);
        for l in 0..LANES {
            lanes[l] += f(at.map(|chunk| chunk[l]));
        }
    }
    for l in 0..whole[0].1.len() {
        lanes[l] += f(whole.map(|(_, rest)| rest[l]));
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
    }
    lanes[0]
}

/// The maximum; NaN if any element is NaN, -∞ for an empty slice.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let larger = |m: f32, x: f32| if x > m || x.is_nan() { x } else { m };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = larger(lanes[l], chunk[l]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &x| if m.is_nan() { m } else { larger(m, x) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error of `f` in ULPs of the true value, over every `step`th f32 from `a` to `b`.
    fn worst(f: fn(f32) -> f32, truth: fn(f64) -> f64, a: f32, b: f32, step: usize) -> f64 {
        let (lo, hi) = (a.abs().min(b.abs()).to_bits(), a.abs().max(b.abs()).to_bits());
        let sign = if a < 0.0 { -1.0 } else { 1.0 };
        let mut worst = 0.0f64;
        for bits in (lo..=hi).step_by(step) {
            let x = sign * f32::from_bits(bits);
            let (y, t) = (f(x) as f64, truth(x as f64));
            let exponent = t.abs().max(f32::MIN_POSITIVE as f64).log2().floor();
            worst = worst.max((y - t).abs() / (exponent - 23.0).exp2());
        }
        worst
    }

    /// erf by its power series e^(-x²)·Σ 2ⁿx²ⁿ⁺¹/(2n+1)!!, whose terms are all positive.
    fn erf64(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        (-x * x).exp() * sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn within_two_units_in_the_last_place() {
        for (a, b) in [(1e-10, 88.72), (-1e-10, -103.0)] {
            let e = worst(exp, f64::exp, a, b, 1009);
            assert!(e <= 1.0, "exp: {e} ulp");
        }
        for (a, b) in [(1e-10, 100.0), (-1e-10, -87.0)] {
            let e = worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), a, b, 1009);
            assert!(e <= 2.0, "sigmoid: {e} ulp");
        }
        for (a, b) in [(1e-10, 10.0), (-1e-10, -10.0)] {
            let e = worst(erf, erf64, a, b, 1009);
            assert!(e <= 2.0, "erf: {e} ulp");
        }
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!([0.0, f32::INFINITY, f32::NEG_INFINITY].map(exp), [1.0, f32::INFINITY, 0.0]);
        assert_eq!([0.0, f32::INFINITY, f32::NEG_INFINITY].map(sigmoid), [0.5, 1.0, 0.0]);
        assert_eq!([0.0, f32::INFINITY, f32::NEG_INFINITY].map(erf), [0.0, 1.0, -1.0]);
        assert!([exp, sigmoid, erf].iter().all(|f| f(f32::NAN).is_nan()));
    }

    #[test]
    fn rounds_as_half_does() {
        let step = |bits: u32| f32::from_bits(bits);
        let x: Vec<f32> = (0..1 << 16)
            .flat_map(|i: u32| [0, 1, 0x7fff, 0x8000, 0x8001].map(|low| step(i << 16 | low)))
            .collect();
        let mut out = vec![half::bf16::ZERO; x.len()];
        round(&mut out, &x);
        for (out, x) in out.iter().zip(x) {
            assert!(out.to_bits() == half::bf16::from_f32(x).to_bits(), "{:#x}", x.to_bits());
        }
    }

    #[test]
    fn sums_and_max_of_every_length() {
        for n in 0..100 {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let y: Vec<f32> = x.iter().map(|x| x + 1.0).collect();
            let expected = [x.iter().sum(), x.iter().zip(&y).map(|(x, y)| x * y).sum()];
            assert_eq!([sum([&x], |[x]| x), sum([&x, &y], |[x, y]| x * y)], expected);
            assert_eq!(max(&x), x.last().copied().unwrap_or(f32::NEG_INFINITY));
        }
        for at in [0, 31, 63, 65] {
            let mut x = [1.0; 66];
            x[at] = f32::NAN;
            assert!(max(&x).is_nan());
            assert!(sum([&x], |[x]| x).is_nan());
        }
    }
}
