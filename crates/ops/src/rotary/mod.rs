//! Rotary position embedding (RoPE, Su et al., arXiv 2104.09864) of the first elements of each head, in the rotate-half
//! layout of GPT-NeoX.
//!
//! For i < rot/2 and the angle a = position·θ^(-2i/rot), elements i and i + rot/2 of each head are rotated by a: (u, v)
//! → (u·cos a - v·sin a, v·cos a + u·sin a). The other elements of the head do not change. In place if no other tensor
//! shares the memory; 8 bytes and 6·rot/head_dim FLOPs per element. Saves nothing: backward rotates by -a.

use pheye_tensor::{DType, Device, Shape, Tensor};

use crate::{Cx, Error, Result, rows};

mod cpu;
mod gpu;
mod linears;

pub use linears::{Linears, Projected};

/// The rotation of a model: the layout of its heads, and cos and sin of every angle.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// Number of heads in a row.
    pub heads: usize,
    /// Number of elements of a head.
    pub head_dim: usize,
    /// Number of elements of a head that are rotated; even, at most `head_dim`.
    pub rot: usize,
    /// cos, then sin, [positions, 2, rot/2].
    tables: Tensor,
}

impl Rotary {
    /// The rotation by angles position·θ^(-2i/rot), computed in f32 as in PyTorch, for positions 0..`max_positions`.
    ///
    /// `rot` is reduced to `head_dim` if it is larger, and rounded down to an even number.
    pub fn new(heads: usize, head_dim: usize, rot: usize, theta: f32, max_positions: usize) -> Rotary {
        Rotary::scaled(heads, head_dim, rot, [theta, 1.0], max_positions)
    }

    /// [`Rotary::new`] with linear position scaling: the frequencies are divided by `factor`, as in transformers.
    pub fn scaled(
        heads: usize,
        head_dim: usize,
        rot: usize,
        [theta, factor]: [f32; 2],
        max_positions: usize,
    ) -> Rotary {
        let rot = rot.min(head_dim) / 2 * 2;
        let frequency = |i: usize| 1.0 / theta.powf(i as f32 / rot as f32) / factor;
        let inv: Vec<f32> = (0..rot).step_by(2).map(frequency).collect();
        let mut tables = Tensor::zeros([max_positions, rot], DType::F32);
        if let Ok(t) = tables.f32_mut() {
            for (position, row) in t.chunks_exact_mut(rot.max(1)).enumerate() {
                let (cos, sin) = row.split_at_mut(rot / 2);
                for ((c, s), inv) in cos.iter_mut().zip(sin).zip(&inv) {
                    (*s, *c) = (position as f32 * inv).sin_cos();
                }
            }
        }
        Rotary { heads, head_dim, rot, tables }
    }

    /// Moves the tables to `device`; otherwise each rotation uploads them.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the device is out of memory.
    pub fn move_to(&mut self, device: &Device) -> Result<()> {
        self.tables = self.tables.to_device(device)?;
        Ok(())
    }
}

/// Rotates row i of x [rows, heads·head_dim] by the angles of `positions[i]`.
///
/// ```
/// use pheye_ops::rotary::{self, Rotary};
/// use pheye_ops::{Cx, tensor::Tensor};
///
/// let p = Rotary::new(1, 4, 2, 10_000.0, 16); // one head of 4 elements, the first 2 of which turn
/// let x = Tensor::from_f32([1, 4], &[1.0, 0.0, 5.0, 6.0])?;
/// let y = rotary::forward(&Cx::cpu(), x, &[1], &p)?;
/// assert_eq!(y.f32()?, [1f32.cos(), 1f32.sin(), 5.0, 6.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when there is not one position for each row or the width is not heads·head_dim, [`Error::Range`]
/// when a position exceeds the tables.
pub fn forward(cx: &Cx, x: Tensor, positions: &[u32], p: &Rotary) -> Result<Tensor> {
    rotate(cx, x, positions, p, 1.0)
}

/// The gradient of the input of [`forward`], from the gradient `dx` of its result: a rotation by the negative angles.
///
/// # Errors
/// The errors of [`forward`].
pub fn backward(cx: &Cx, dx: Tensor, positions: &[u32], p: &Rotary) -> Result<Tensor> {
    rotate(cx, dx, positions, p, -1.0)
}

/// A key-value cache: its matrices, and the row of them where each new row is stored.
#[derive(Debug)]
pub struct Cache<'a> {
    /// Keys, [rows, heads·head_dim].
    pub k: &'a mut Tensor,
    /// Values, with the shape of the keys.
    pub v: &'a mut Tensor,
    /// The row of the cache for each new row. If a row occurs several times, the last one is kept.
    pub rows: &'a [usize],
}

/// q rotated as by [`forward`]; k, which is rotated too, and v are written to the cache. One launch on a GPU.
///
/// # Errors
/// The errors of [`forward`] and [`rows::scatter`].
pub fn forward_cached(
    cx: &Cx,
    q: Tensor,
    (k, v): (Tensor, Tensor),
    positions: &[u32],
    p: &Rotary,
    cache: Cache,
) -> Result<Tensor> {
    let Cache { k: keys, v: values, rows: at } = cache;
    if let Device::Gpu(gpu) = &cx.device {
        let bf16 = [&q, &k, &v, &*keys, &*values].iter().all(|t| t.dtype() == DType::Bf16);
        if let ((None, to), true) = (rows::last_of_each(at), bf16 && q.is_sole_view() && !at.is_empty()) {
            check(q.shape(), positions, p)?;
            check(k.shape(), positions, p)?;
            rows::check_scatter(keys, k.shape(), at)?;
            rows::check_scatter(values, v.shape(), at)?;
            return gpu::rotate_into_cache(cx, gpu, q, [(&k, keys), (&v, values)], (positions, &to), p);
        }
    }
    let q = forward(cx, q, positions, p)?;
    let k = forward(cx, k, positions, p)?;
    rows::scatter(cx, keys, &k, at)?;
    rows::scatter(cx, values, &v, at)?;
    Ok(q)
}

/// Checks that each row has a position within the tables and the width of the heads.
fn check(left: Shape, positions: &[u32], p: &Rotary) -> Result<()> {
    let cols = p.heads * p.head_dim;
    if left.cols() != cols || left.rows() != positions.len() {
        let right = Shape::from([positions.len(), cols]);
        return Err(Error::Shapes {
            op: "rotary",
            left_name: "x",
            left,
            right_name: "[positions, heads·head_dim]",
            right,
        });
    }
    let known = p.tables.shape().rows();
    if let Some(last) = positions.iter().max().filter(|&&last| last as usize >= known) {
        let (value, allowed) = (last.to_string(), format!("0..{known}"));
        return Err(Error::Range { op: "rotary", what: "position", value, allowed });
    }
    Ok(())
}

/// Rotates by the angles times `sign`.
fn rotate(cx: &Cx, x: Tensor, positions: &[u32], p: &Rotary, sign: f32) -> Result<Tensor> {
    check(x.shape(), positions, p)?;
    match &cx.device {
        Device::Cpu => cpu::rotate(cx, x, positions, p, sign),
        Device::Gpu(gpu) => gpu::rotate(cx, gpu, x, positions, p, sign),
    }
}
