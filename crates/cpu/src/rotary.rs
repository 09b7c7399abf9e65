//! Rotary position embedding (RoPE), in place: rotates pairs of elements by an angle proportional to the
//! position.

use crate::math::vectorised;
use crate::par;

/// The layout of a rotated matrix [rows, heads·head_dim] and the rotation.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// Columns of one head.
    pub head_dim: usize,
    /// The number of leading columns of a head that are rotated; column i is paired with i + rot/2.
    pub rot: usize,
    /// cos and sin for each position, [positions, 2, rot/2].
    pub tables: &'a [f32],
    /// 1 for the rotation, -1 for its inverse (backward).
    pub sign: f32,
}

/// Rotates each head of row i of `x` [rows, cols] by the angles of `positions[i]`.
pub fn rotate(x: &mut [f32], cols: usize, positions: &[u32], r: Rotation) {
    if r.rot == 0 || cols == 0 {
        return;
    }
    let rows = (8192 / cols).max(1);
    let work = x.len();
    par::pieces(x.chunks_mut(rows * cols).zip(positions.chunks(rows)), work, |_, (x, positions)| {
        rotate_rows(x, cols, positions, r);
    });
}

vectorised! {
    fn rotate_rows(x: &mut [f32], cols: usize, positions: &[u32], r: Rotation) {
        for (row, &position) in x.chunks_exact_mut(cols).zip(positions) {
            let (cos, sin) = r.tables[position as usize * r.rot..][..r.rot].split_at(r.rot / 2);
            for head in row.chunks_exact_mut(r.head_dim) {
                let (a, b) = head[..r.rot].split_at_mut(r.rot / 2);
                for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                    let sin = r.sign * sin;
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}
