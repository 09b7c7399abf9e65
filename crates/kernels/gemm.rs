//! The description of a GEMM for a BLAS library, and the setting `PHEYE_GEMM` that selects one.

use crate::{Error, Region, Result};

/// An operand of a GEMM, row-major in bf16.
#[derive(Debug, Clone)]
pub struct GemmOperand {
    /// The memory of the matrix, from its first element.
    pub region: Region,
    /// The leading dimension: elements from one stored row to the next.
    pub ld: usize,
    /// Whether the transpose of the operand is stored.
    pub transposed: bool,
}

/// C = α·A·B + β·C with A `[m, k]`, B `[k, n]` and C `[m, n]`, accumulated in f32. With β = 0, C is not read.
#[derive(Debug, Clone)]
pub struct BlasGemm {
    /// m, n, k.
    pub dims: [usize; 3],
    /// A.
    pub a: GemmOperand,
    /// B.
    pub b: GemmOperand,
    /// C, row-major, from its first element.
    pub c: Region,
    /// The leading dimension of C: elements from one row to the next.
    pub ldc: usize,
    /// Whether C is f32; otherwise it is bf16.
    pub wide: bool,
    /// α.
    pub alpha: f32,
    /// β.
    pub beta: f32,
}

impl GemmOperand {
    /// The rows and columns as stored, of an operand of shape `[rows, cols]`.
    pub(crate) fn stored(&self, rows: usize, cols: usize) -> [usize; 2] {
        if self.transposed { [cols, rows] } else { [rows, cols] }
    }
}

impl BlasGemm {
    /// Returns an error if a matrix exceeds its region.
    pub(crate) fn check(&self) -> Result<()> {
        let [m, n, k] = self.dims;
        inside("operand A of a GEMM", self.a.stored(m, k), self.a.ld, 2, self.a.region.bytes())?;
        inside("operand B of a GEMM", self.b.stored(k, n), self.b.ld, 2, self.b.region.bytes())?;
        inside("C of a GEMM", [m, n], self.ldc, if self.wide { 4 } else { 2 }, self.c.bytes())
    }

    /// Everything that distinguishes one GEMM from another.
    #[cfg_attr(not(feature = "cublaslt"), allow(dead_code))]
    pub(crate) fn fingerprint(&self) -> impl std::hash::Hash {
        let operand = |o: &GemmOperand| (o.region.addr(), o.ld, o.transposed);
        let scales = [self.alpha, self.beta].map(f32::to_bits);
        (
            "cublasLt",
            self.dims,
            operand(&self.a),
            operand(&self.b),
            self.c.addr(),
            self.ldc,
            self.wide,
            scales,
        )
    }
}

fn inside(
    what: &'static str,
    [rows, cols]: [usize; 2],
    ld: usize,
    element: usize,
    found: usize,
) -> Result<()> {
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let size = |elements: Option<usize>| elements.and_then(|n| n.checked_mul(element)).unwrap_or(usize::MAX);
    if ld < cols {
        return Err(Error::Size { what, bytes: size(Some(cols)), found: size(Some(ld)) });
    }
    let bytes = size((rows - 1).checked_mul(ld).and_then(|start| start.checked_add(cols)));
    if bytes > found { Err(Error::Size { what, bytes, found }) } else { Ok(()) }
}

/// The implementation of unfused GEMMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GemmBackend {
    /// The kernels of this crate.
    Own,
    /// cuBLASLt.
    CublasLt,
}

const VARIABLE: &str = "PHEYE_GEMM";

impl GemmBackend {
    /// The value of `PHEYE_GEMM`, or an error if the launcher does not support it.
    pub(crate) fn asked(launcher: &str) -> Result<GemmBackend> {
        let value = std::env::var_os(VARIABLE).unwrap_or_default();
        GemmBackend::parse(&value.to_string_lossy(), launcher)
    }

    fn parse(value: &str, launcher: &str) -> Result<GemmBackend> {
        let refused = |reason: &str| {
            Err(Error::Setting { variable: VARIABLE, value: value.to_owned(), reason: reason.to_owned() })
        };
        match value {
            "" | "own" => Ok(GemmBackend::Own),
            "cublaslt" if launcher != "cuda" => refused("only device `cuda` has cuBLASLt"),
            "cublaslt" if !cfg!(feature = "cublaslt") => {
                refused("this program was built without feature `cublaslt`")
            }
            "cublaslt" => Ok(GemmBackend::CublasLt),
            _ => refused("its values are `own` and `cublaslt`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_has_two_values() {
        assert_eq!(GemmBackend::parse("", "cuda"), Ok(GemmBackend::Own));
        assert_eq!(GemmBackend::parse("own", "emulator"), Ok(GemmBackend::Own));
        let text = |value, launcher| match GemmBackend::parse(value, launcher) {
            Ok(gemms) => format!("{gemms:?}"),
            Err(e) => e.to_string(),
        };
        assert_eq!(text("cublas", "cuda"), "PHEYE_GEMM=cublas: its values are `own` and `cublaslt`");
        assert!(text("cublaslt", "emulator").starts_with("PHEYE_GEMM=cublaslt: only device `cuda`"));
        let on = if cfg!(feature = "cublaslt") { "CublasLt" } else { "built without feature `cublaslt`" };
        assert!(text("cublaslt", "cuda").ends_with(on));
    }

    #[test]
    fn a_product_stays_inside_its_regions() {
        let outcome = |bytes, ld| inside("m", [3, 4], ld, 2, bytes);
        assert_eq!(outcome(40, 8), Ok(()));
        assert_eq!(outcome(39, 8), Err(Error::Size { what: "m", bytes: 40, found: 39 }));
        assert_eq!(outcome(40, 3), Err(Error::Size { what: "m", bytes: 8, found: 6 }));
        // In 64-bit arithmetic (3 - 1) * 2^63 and 2^63 * 2 overflow to 0.
        let size = |found| Err(Error::Size { what: "m", bytes: usize::MAX, found });
        assert_eq!(outcome(40, 1 << 63), size(40));
        assert_eq!(inside("m", [1, 1 << 63], 1 << 63, 2, 0), size(0));
    }
}
