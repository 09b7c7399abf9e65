//! `ldmatrix` and `mma.sync`: which lane holds which elements (PTX ISA, "Matrix Fragments for mma.m16n8k16").

/// Converts the bits of a bf16 to f32.
fn wide(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

fn halves(word: u32) -> [u16; 2] {
    [word as u16, (word >> 16) as u16]
}

/// The register of each lane after `ldmatrix` of the 8x8 matrix `rows`.
pub(crate) fn distribute(rows: &[[u16; 8]; 8], transpose: bool) -> [u32; 32] {
    std::array::from_fn(|lane| {
        let (row, col) = (lane / 4, 2 * (lane % 4));
        let [lo, hi] = if transpose {
            [rows[col][row], rows[col + 1][row]]
        } else {
            [rows[row][col], rows[row][col + 1]]
        };
        u32::from(lo) | u32::from(hi) << 16
    })
}

/// How `mma` rounds the sum of the products and the accumulator. Products of two bf16 values are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// Each addition rounds to nearest, in ascending order of k; the accumulator is added last.
    #[default]
    Nearest,
    /// As the tensor cores of an A100 do: eight products and the accumulator at a time are cut off to one bit below the last bit that
    /// an f32 has in the largest of them, added without rounding, and cut off to f32.
    A100,
    /// As the tensor cores of an H100 do: 16 products and the accumulator at a time, with two bits below.
    H100,
}

/// The sum of `terms` in the arithmetic of a tensor core that keeps `extra` bits.
fn truncated_sum(terms: &[f64], extra: i32) -> f32 {
    let Some(largest) = terms.iter().map(|x| x.abs()).max_by(f64::total_cmp).filter(|x| *x > 0.0) else {
        return 0.0;
    };
    if !largest.is_finite() {
        return terms.iter().sum::<f64>() as f32;
    }
    // The exponent is that of a normal f64, because a product of two bf16 values that is not zero is at least 2^-266.
    let exponent = (largest.to_bits() >> 52) as i32 - 1023;
    let unit = 2f64.powi(exponent - 23 - extra);
    // At most 17 terms of 27 bits: exact in f64.
    let sum = terms.iter().map(|x| (x / unit).trunc()).sum::<f64>() * unit;
    let nearest = sum as f32;
    let away = f64::from(nearest).abs() > sum.abs();
    if away { f32::from_bits(nearest.to_bits() - 1) } else { nearest }
}

/// d += a b for fragments as the lanes hold them.
pub(crate) fn multiply(d: &mut [[f32; 4]; 32], a: &[[u32; 4]; 32], b: &[[u32; 2]; 32], rounding: Rounding) {
    let mut left = [[0.0; 16]; 16];
    let mut right = [[0.0; 8]; 16];
    for lane in 0..32 {
        let (g, t) = (lane / 4, 2 * (lane % 4));
        for (i, &word) in a[lane].iter().enumerate() {
            let (row, col) = (g + 8 * (i % 2), t + 8 * (i / 2));
            [left[row][col], left[row][col + 1]] = halves(word).map(wide);
        }
        for (i, &word) in b[lane].iter().enumerate() {
            let [lo, hi] = halves(word).map(wide);
            right[t + 8 * i][g] = lo;
            right[t + 8 * i + 1][g] = hi;
        }
    }
    let (terms, extra) = match rounding {
        Rounding::Nearest => return add_product(d, &left, &right),
        Rounding::A100 => (8, 1),
        Rounding::H100 => (16, 2),
    };
    each_element(d, |row, col, d| {
        for k in (0..16).step_by(terms) {
            let mut list = [0.0; 17];
            for (x, k) in list.iter_mut().zip(k..k + terms) {
                *x = f64::from(left[row][k]) * f64::from(right[k][col]);
            }
            list[terms] = (*d).into();
            *d = truncated_sum(&list[..=terms], extra);
        }
    });
}

fn add_product(d: &mut [[f32; 4]; 32], left: &[[f32; 16]; 16], right: &[[f32; 8]; 16]) {
    let mut product = [[0.0; 8]; 16];
    for (row, out) in left.iter().zip(&mut product) {
        for (x, right) in row.iter().zip(right) {
            out.iter_mut().zip(right).for_each(|(out, y)| *out += x * y);
        }
    }
    each_element(d, |row, col, d| *d += product[row][col]);
}

/// Calls `f` with row, column and element of the 16x8 matrix whose fragments the lanes hold.
fn each_element(d: &mut [[f32; 4]; 32], mut f: impl FnMut(usize, usize, &mut f32)) {
    for (lane, d) in d.iter_mut().enumerate() {
        let (g, t) = (lane / 4, 2 * (lane % 4));
        d.iter_mut().enumerate().for_each(|(i, d)| f(g + 8 * (i / 2), t + i % 2, d));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_times_b_is_b() {
        // Element (row, col) of a is 1 on the diagonal; b's element (k, n) is k + 16 n, exact in bf16 up to 256.
        let one = 0x3f80;
        let bf16 = |x: usize| ((x as f32).to_bits() >> 16) as u16;
        let pack = |lo: u16, hi: u16| u32::from(lo) | u32::from(hi) << 16;
        let a = std::array::from_fn(|lane| {
            std::array::from_fn(|i| {
                let (row, col) = (lane / 4 + 8 * (i % 2), 2 * (lane % 4) + 8 * (i / 2));
                pack(if row == col { one } else { 0 }, if row == col + 1 { one } else { 0 })
            })
        });
        let b = std::array::from_fn(|lane| {
            std::array::from_fn(|i| {
                let (k, n) = (2 * (lane % 4) + 8 * i, lane / 4);
                pack(bf16(k + 16 * n), bf16(k + 1 + 16 * n))
            })
        });
        for rounding in [Rounding::Nearest, Rounding::A100, Rounding::H100] {
            let mut d = [[0.5; 4]; 32];
            multiply(&mut d, &a, &b, rounding);
            each_element(&mut d, |row, col, d| assert_eq!(*d, 0.5 + (row + 16 * col) as f32));
        }
    }

    #[test]
    fn tensor_cores_cut_off_what_is_below_the_extra_bits() {
        // 2^-24 is half a unit in the last place of 1. Two of them count with one extra bit, two halves of them with two.
        let sum = |small: f64, extra| truncated_sum(&[1.0, small, small], extra);
        let (half, next) = (2f64.powi(-24), 1.0 + f32::EPSILON);
        assert_eq!([sum(half, 0), sum(half, 1), sum(half, 2)], [1.0, next, next]);
        let quarter = [half / 2.0; 4];
        let four = |extra| truncated_sum(&[[1.0].as_slice(), &quarter].concat(), extra);
        assert_eq!([four(1), four(2)], [1.0, next]);
        // The result is cut off too, towards zero.
        assert_eq!(truncated_sum(&[1.0, 1.5 * f64::from(f32::EPSILON)], 2), next);
        assert_eq!(truncated_sum(&[-1.0, -1.5 * f64::from(f32::EPSILON)], 2), -next);
        assert_eq!(truncated_sum(&[0.0, -0.0], 1), 0.0);
        assert!(truncated_sum(&[f64::INFINITY, f64::NEG_INFINITY], 1).is_nan());
        assert_eq!(truncated_sum(&[f64::MIN_POSITIVE.sqrt(); 2], 1), 0.0);
        assert_eq!(truncated_sum(&[2f64.powi(-266), 2f64.powi(-266)], 1), 0.0);
    }

    #[test]
    fn distribute_and_its_transpose() {
        let rows = std::array::from_fn(|r| std::array::from_fn(|c| (8 * r + c) as u16));
        assert_eq!(halves(distribute(&rows, false)[5]), [10, 11]);
        assert_eq!(halves(distribute(&rows, true)[5]), [17, 25]);
    }
}
