//! The constant position table of a class token and a square grid, as in Qwen-VL's resampler.

use pheye_ops::{Cx, Result, add, embedding};
use pheye_tensor::{DType, Device, Param, Tensor};

/// A table [1 + side², d]. The row of the class token is 0. The first half of the other columns encodes the column of
/// the cell, and the second half its row: sin(p / 10000^(i / (d/4))) for i in 0..d/4, then the cosines.
#[derive(Debug)]
pub(crate) struct Positions(Tensor);

impl Positions {
    /// The table for `rows` rows, 1 + a square, of `d` columns, a multiple of 4.
    pub(crate) fn new(rows: usize, d: usize) -> Positions {
        let (side, quarter) = ((rows - 1).isqrt(), d / 4);
        let angle = |p: usize, i: usize| p as f64 / 10000f64.powf(i as f64 / quarter as f64);
        let mut table = Tensor::zeros([rows, d], DType::F32);
        // The tensor is new, so nothing else views its memory.
        if let Ok(values) = table.f32_mut() {
            for (cell, row) in values.chunks_exact_mut(d).skip(1).enumerate() {
                for (half, p) in row.chunks_exact_mut(2 * quarter).zip([cell % side, cell / side]) {
                    let (sin, cos) = half.split_at_mut(quarter);
                    for (i, (sin, cos)) in sin.iter_mut().zip(cos).enumerate() {
                        (*sin, *cos) = (angle(p, i).sin() as f32, angle(p, i).cos() as f32);
                    }
                }
            }
        }
        Positions(table)
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.0.shape().rows()
    }

    /// Moves the table to `device`; otherwise each use uploads it.
    pub(crate) fn move_to(&mut self, device: &Device) -> Result<()> {
        self.0 = self.0.to_device(device)?;
        Ok(())
    }

    /// x + the rows `ids` of the table, for x [ids, d].
    pub(crate) fn add_to(&self, cx: &Cx, x: &Tensor, ids: &[u32]) -> Result<Tensor> {
        let table = Param::frozen("positions", cx.upload(&self.0)?);
        add::forward(cx, embedding::forward(cx, ids, &table)?, x)
    }
}
