//! Shapes of tensors, with sizes that saturate instead of wrapping.

use std::fmt;

/// Up to four dimensions, outermost first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Shape {
    /// The shape with dimensions `dims`, or `None` if there are more than four.
    pub fn try_new(dims: &[usize]) -> Option<Shape> {
        let mut all = [1; 4];
        all.get_mut(..dims.len())?.copy_from_slice(dims);
        Some(Shape { dims: all, rank: dims.len() })
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// The number of elements; 1 for a scalar. Saturates at `usize::MAX`.
    pub fn elements(&self) -> usize {
        product(self.dims())
    }

    /// The innermost dimension; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The product of all dimensions except the innermost. Saturates at `usize::MAX`.
    pub fn rows(&self) -> usize {
        self.dims().split_last().map_or(1, |(_, outer)| product(outer))
    }

    /// This shape with the innermost dimension replaced.
    pub fn with_cols(mut self, cols: usize) -> Shape {
        if self.rank == 0 {
            self.rank = 1;
        }
        self.dims[self.rank - 1] = cols;
        self
    }
}

fn product(dims: &[usize]) -> usize {
    if dims.contains(&0) { 0 } else { dims.iter().fold(1, |product, &dim| product.saturating_mul(dim)) }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        const { assert!(N <= 4, "at most four dimensions") };
        let mut all = [1; 4];
        all[..N].copy_from_slice(&dims);
        Shape { dims: all, rank: N }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.dims(), f)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.dims(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn sizes_never_wrap() {
        // 2^32 * 2^32, and in bytes 2^62 * 4, wrap to 0 in 64 bits.
        let huge = Shape::from([1 << 32, 1 << 32, 3]);
        assert_eq!((huge.elements(), huge.rows()), (usize::MAX, usize::MAX));
        assert_eq!(Shape::from([usize::MAX, usize::MAX, 0]).elements(), 0);
        assert_eq!(DType::F32.storage(Shape::from([1 << 62])), usize::MAX);
        assert_eq!(DType::Int8.storage(huge), usize::MAX);
        assert_eq!(DType::Int8.storage(Shape::from([1 << 62, 1])), usize::MAX);
        assert_eq!(DType::Int8.storage(Shape::from([3, 5])), 16 + 12);
    }
}
