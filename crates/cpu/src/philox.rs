//! Philox4x32-10, a counter-based random number generator: each number is a function of a counter and a key.
//!
//! Any thread can therefore generate any element of a random tensor, and backward can recompute a dropout mask. Salmon,
//! Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11.

/// The four random words at `counter` for `key`.
#[inline(always)]
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut counter, mut key) = (counter.map(u64::from), key);
    for _ in 0..ROUNDS {
        (counter, key) = (round(counter, key), next_key(key));
    }
    counter.map(|w| w as u32)
}

/// Number of rounds.
pub(crate) const ROUNDS: usize = 10;

/// One round, on 32-bit words held in 64-bit integers.
#[inline(always)]
pub(crate) fn round([c0, c1, c2, c3]: [u64; 4], [k0, k1]: [u32; 2]) -> [u64; 4] {
    // The masks do not change the result, but they let the compiler use one 32×32-bit multiplication instead
    // of the six instructions of a 64×64-bit one.
    let low = u64::from(u32::MAX);
    let (p0, p1) = (0xD251_1F53 * (c0 & low), 0xCD9E_8D57 * (c2 & low));
    [(p1 >> 32) ^ c1 ^ u64::from(k0), p1 & low, (p0 >> 32) ^ c3 ^ u64::from(k1), p0 & low]
}

#[inline(always)]
pub(crate) fn next_key([k0, k1]: [u32; 2]) -> [u32; 2] {
    [k0.wrapping_add(0x9E37_79B9), k1.wrapping_add(0xBB67_AE85)]
}

/// The low and the high word of `x`, in the order of Philox counters and keys.
#[inline(always)]
pub fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// Converts a random word to a number in [0, 1), a multiple of 2⁻²⁴.
#[inline(always)]
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Converts two random words to two independent standard normal numbers (Box and Muller, 1958).
#[inline(always)]
pub fn normal(a: u32, b: u32) -> [f32; 2] {
    let radius = (-2.0 * (1.0 - uniform(a)).ln()).sqrt();
    let (sin, cos) = (std::f32::consts::TAU * uniform(b)).sin_cos();
    [radius * cos, radius * sin]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors published with the authors' library Random123: zeros, ones, and digits of π.
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        let known = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in known {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let n = 1 << 16;
        let words: Vec<_> = (0..n).map(|i| philox4x32_10([i, 0, 0, 0], [7, 0])).collect();
        let moments = |x: &[f32]| {
            let mean = x.iter().map(|&v| v as f64).sum::<f64>() / x.len() as f64;
            (mean, x.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / x.len() as f64)
        };
        let flat: Vec<f32> = words.iter().flatten().map(|&w| uniform(w)).collect();
        assert!(flat.iter().all(|u| (0.0..1.0).contains(u)));
        let (mean, var) = moments(&flat);
        assert!((mean - 0.5).abs() < 0.003 && (var - 1.0 / 12.0).abs() < 0.001, "{mean} {var}");
        let bell: Vec<f32> = words.iter().flat_map(|w| normal(w[0], w[1])).collect();
        let (mean, var) = moments(&bell);
        assert!(mean.abs() < 0.01 && (var - 1.0).abs() < 0.02, "{mean} {var}");
    }

    #[test]
    fn the_ends_of_the_range_are_finite() {
        assert_eq!((uniform(0), uniform(u32::MAX)), (0.0, 1.0 - f32::EPSILON / 2.0));
        assert!(normal(u32::MAX, 0).iter().chain(&normal(0, u32::MAX)).all(|x| x.is_finite()));
        assert_eq!(words(0x1234_5678_9abc_def0), [0x9abc_def0, 0x1234_5678]);
    }
}
