//! A matrix product as a library takes it, and which products go to one.

use crate::{Error, Region, Result};

/// A factor, row-major in bf16.
#[derive(Debug, Clone)]
pub struct GemmOperand {
    /// Where it lies.
    pub region: Region,
    /// Elements from row to row, as stored.
    pub ld: usize,
    /// Whether the transpose is stored.
    pub transposed: bool,
}

/// c = α a b + β c with a [m, k], b [k, n], c [m, n]; sums in f32. With β = 0 c is not read.
#[derive(Debug, Clone)]
pub struct BlasGemm {
    /// m, n, k.
    pub dims: [usize; 3],
    /// a.
    pub a: GemmOperand,
    /// b.
    pub b: GemmOperand,
    /// c, row-major.
    pub c: Region,
    /// Elements from row to row of c.
    pub ldc: usize,
    /// c is in f32, else in bf16.
    pub wide: bool,
    /// α.
    pub alpha: f32,
    /// β.
    pub beta: f32,
}

impl GemmOperand {
    /// Rows and columns as stored, of a factor that is [rows, cols].
    pub(crate) fn stored(&self, rows: usize, cols: usize) -> [usize; 2] {
        if self.transposed { [cols, rows] } else { [rows, cols] }
    }
}

impl BlasGemm {
    /// Whether all of it lies inside its regions.
    pub(crate) fn check(&self) -> Result<()> {
        let [m, n, k] = self.dims;
        inside("factor a of a product", self.a.stored(m, k), self.a.ld, 2, self.a.region.bytes())?;
        inside("factor b of a product", self.b.stored(k, n), self.b.ld, 2, self.b.region.bytes())?;
        inside("the result of a product", [m, n], self.ldc, if self.wide { 4 } else { 2 }, self.c.bytes())
    }

    /// All that two products which are the same have in common.
    #[cfg_attr(not(feature = "cublaslt"), allow(dead_code))]
    pub(crate) fn fingerprint(&self) -> impl std::hash::Hash {
        let factor = |f: &GemmOperand| (f.region.addr(), f.ld, f.transposed);
        let scales = [self.alpha, self.beta].map(f32::to_bits);
        ("cublasLt", self.dims, factor(&self.a), factor(&self.b), self.c.addr(), self.ldc, self.wide, scales)
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

/// Who does products that nothing is fused to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GemmBackend {
    /// The kernels.
    Own,
    /// cuBLASLt.
    CublasLt,
}

const VARIABLE: &str = "PHEYE_GEMM";

impl GemmBackend {
    /// What the environment asks for on a launcher.
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
        // (3 - 1) * 2^63 and 2^63 * 2 are 0 in 64 bits.
        let size = |found| Err(Error::Size { what: "m", bytes: usize::MAX, found });
        assert_eq!(outcome(40, 1 << 63), size(40));
        assert_eq!(inside("m", [1, 1 << 63], 1 << 63, 2, 0), size(0));
    }
}
