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

/// d += a b for fragments as the lanes hold them. The sum is in f32, in ascending order of k.
pub(crate) fn multiply(d: &mut [[f32; 4]; 32], a: &[[u32; 4]; 32], b: &[[u32; 2]; 32]) {
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
    let mut product = [[0.0; 8]; 16];
    for (row, out) in left.iter().zip(&mut product) {
        for (x, right) in row.iter().zip(&right) {
            out.iter_mut().zip(right).for_each(|(out, y)| *out += x * y);
        }
    }
    for (lane, d) in d.iter_mut().enumerate() {
        let (g, t) = (lane / 4, 2 * (lane % 4));
        for (i, d) in d.iter_mut().enumerate() {
            *d += product[g + 8 * (i / 2)][t + i % 2];
        }
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
        let mut d = [[0.5; 4]; 32];
        multiply(&mut d, &a, &b);
        for (lane, d) in d.iter().enumerate() {
            for (i, &d) in d.iter().enumerate() {
                let (row, col) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
                assert_eq!(d, 0.5 + (row + 16 * col) as f32);
            }
        }
    }

    #[test]
    fn distribute_and_its_transpose() {
        let rows = std::array::from_fn(|r| std::array::from_fn(|c| (8 * r + c) as u16));
        assert_eq!(halves(distribute(&rows, false)[5]), [10, 11]);
        assert_eq!(halves(distribute(&rows, true)[5]), [17, 25]);
    }
}
