//! A matrix inside a slice: the operands of the GEMM and of attention.

use std::ops::Range;

use half::bf16;

/// The elements of a matrix, by type.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// bfloat16, converted to f32 as it is read.
    Bf16(&'a [bf16]),
    /// int8 with scales, only for B of a GEMM. With AVX2 and one scale per column, for m ≥ 7 A may be quantized to
    /// int16: |error of C[i, j]| ≤ |α|·max|A[i, ·]| / 65534 · Σ_k |B[k, j]|, plus f32 rounding errors.
    Int8(&'a [i8], Scales<'a>),
}

impl Elements<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Elements::F32(x) => x.len(),
            Elements::Bf16(x) => x.len(),
            Elements::Int8(x, _) => x.len(),
        }
    }
}

/// The scales of the elements of a matrix.
#[derive(Debug, Clone, Copy)]
pub enum Scales<'a> {
    /// No scales.
    None,
    /// One scale per row.
    Rows(&'a [f32]),
    /// One scale per column.
    Cols(&'a [f32]),
}

/// A read-only matrix: element (i, j) is at `i * row_stride + j * col_stride`.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a> {
    /// The elements.
    pub data: Elements<'a>,
    /// The number of rows.
    pub rows: usize,
    /// The number of columns.
    pub cols: usize,
    /// Row stride in elements.
    pub row_stride: usize,
    /// Column stride in elements.
    pub col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major f32 matrix.
    pub fn f32(data: &'a [f32], rows: usize, cols: usize) -> MatRef<'a> {
        MatRef { data: Elements::F32(data), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// A row-major bf16 matrix.
    pub fn bf16(data: &'a [bf16], rows: usize, cols: usize) -> MatRef<'a> {
        MatRef { data: Elements::Bf16(data), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// A row-major int8 matrix with one scale per row.
    pub fn int8(data: &'a [i8], scales: &'a [f32], rows: usize, cols: usize) -> MatRef<'a> {
        MatRef {
            data: Elements::Int8(data, Scales::Rows(scales)),
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// The same matrix with a row stride of `row_stride` elements.
    pub fn with_row_stride(self, row_stride: usize) -> MatRef<'a> {
        MatRef { row_stride, ..self }
    }

    /// The transpose.
    pub fn t(self) -> MatRef<'a> {
        let data = match self.data {
            Elements::Int8(x, Scales::Rows(s)) => Elements::Int8(x, Scales::Cols(s)),
            Elements::Int8(x, Scales::Cols(s)) => Elements::Int8(x, Scales::Rows(s)),
            data => data,
        };
        MatRef {
            data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// The submatrix of a range of rows and a range of columns.
    pub(crate) fn block(self, rows: Range<usize>, cols: Range<usize>) -> MatRef<'a> {
        let start = rows.start * self.row_stride + cols.start * self.col_stride;
        let data = match self.data {
            Elements::F32(x) => Elements::F32(x.get(start..).unwrap_or(&[])),
            Elements::Bf16(x) => Elements::Bf16(x.get(start..).unwrap_or(&[])),
            Elements::Int8(x, scales) => {
                let scales = match scales {
                    Scales::None => Scales::None,
                    Scales::Rows(s) => Scales::Rows(&s[rows.clone()]),
                    Scales::Cols(s) => Scales::Cols(&s[cols.clone()]),
                };
                Elements::Int8(x.get(start..).unwrap_or(&[]), scales)
            }
        };
        MatRef { data, rows: rows.len(), cols: cols.len(), ..self }
    }

    /// The same matrix with its elements as a typed slice.
    pub(crate) fn typed<E>(&self, x: &'a [E]) -> Typed<'a, E> {
        let scales = match self.data {
            Elements::Int8(_, scales) => scales,
            Elements::F32(_) | Elements::Bf16(_) => Scales::None,
        };
        Typed { x, row_stride: self.row_stride, col_stride: self.col_stride, scales }
    }

    /// Panics if the matrix does not fit its slice, or its scales do not fit the matrix.
    pub(crate) fn checked(self) -> MatRef<'a> {
        if let Elements::Int8(_, scales) = self.data {
            let fit = match scales {
                Scales::None => true,
                Scales::Rows(s) => s.len() == self.rows,
                Scales::Cols(s) => s.len() == self.cols,
            };
            assert!(fit, "scales do not fit a matrix of {} by {}", self.rows, self.cols);
        }
        let empty = self.rows == 0 || self.cols == 0;
        let last = || {
            let (i, j) = (
                (self.rows - 1).checked_mul(self.row_stride)?,
                (self.cols - 1).checked_mul(self.col_stride)?,
            );
            i.checked_add(j)
        };
        assert!(
            empty || last().is_some_and(|l| l < self.data.len()),
            "a matrix of {} by {} does not fit its slice",
            self.rows,
            self.cols
        );
        self
    }
}

/// A mutable f32 matrix with contiguous rows.
#[derive(Debug)]
pub struct MatMut<'a> {
    /// The elements, starting with the first row.
    pub data: &'a mut [f32],
    /// Row stride in elements.
    pub row_stride: usize,
}

/// A [`MatRef`] whose element type is known at compile time, for generic code. Whoever makes one has checked the
/// bounds, so it carries no shape.
#[derive(Clone, Copy)]
pub(crate) struct Typed<'a, E> {
    pub x: &'a [E],
    pub row_stride: usize,
    pub col_stride: usize,
    pub scales: Scales<'a>,
}
