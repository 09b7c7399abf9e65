//! Products by cuBLASLt over a stand-in for it (`libcublasLt.c`), which like the real one refuses layouts that do not fit together.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pheye_kernels::{BlasGemm, GemmOperand, Gpu, Result};

use super::{Outcome, driver, library, run, run_in};

/// Where the loader finds both stand-ins.
fn folders() -> Option<&'static Path> {
    static FOLDERS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let both = || {
        let blas = library("libcublasLt.c", "driver/blas", "libcublasLt.so.13")?;
        Some(format!("{}:{}", driver()?.display(), blas.display()).into())
    };
    FOLDERS.get_or_init(both).as_deref()
}

fn run_with_blas(case: &str, vars: &[(&str, &str)]) -> Option<Outcome> {
    Some(run_in(folders()?, case, vars))
}

/// Twice the product of `layout`, of 3, 5 and 7.
pub(crate) fn product(layout: &str) -> Result<String> {
    let gpu = Gpu::open("cuda")?;
    let [m, n, k] = [3, 7, 5];
    let (a, b, c) = (gpu.alloc(2 * m * k)?, gpu.alloc(2 * k * n)?, gpu.alloc(4 * m * n)?);
    let [transposed_a, transposed_b] = [layout.starts_with('T'), layout.ends_with('T')];
    let factor = |region, transposed, rows, cols| GemmOperand {
        region,
        ld: if transposed { rows } else { cols },
        transposed,
    };
    let product = BlasGemm {
        dims: [m, n, k],
        a: factor(a.all(), transposed_a, m, k),
        b: factor(b.all(), transposed_b, k, n),
        c: c.all(),
        ldc: n,
        wide: transposed_a,
        alpha: 1.0,
        beta: if transposed_a { 1.0 } else { 0.0 },
    };
    let done = [gpu.blas(&product)?, gpu.blas(&product)?];
    gpu.synchronize()?;
    Ok(format!("{done:?}"))
}

#[test]
fn each_layout_is_asked_for_as_the_library_has_it() {
    // Column-major, and so the other way round: cᵀ = bᵀ aᵀ.
    for (layout, product) in [
        ("NT", "product 5x7T by 5x3 to 7x3, type 14, 1 and 0"),
        ("NN", "product 7x5 by 5x3 to 7x3, type 14, 1 and 0"),
        ("TN", "product 7x5 by 3x5T to 7x3, type 0, 1 and 1"),
    ] {
        let Some(outcome) = run_with_blas(&format!("product {layout}"), &[]) else { return };
        outcome.is("Ok(\"[true, true]\")");
        assert_eq!(outcome.count(product), 2, "{layout}: {}", outcome.calls.join("\n"));
        // One search for both.
        assert_eq!(outcome.count("cublasLtMatmulAlgoGetHeuristic"), 1);
        assert!(outcome.is_clean(), "{}", outcome.calls.join("\n"));
    }
}

#[test]
fn what_the_library_cannot_do_is_said() {
    let Some(none) = run_with_blas("product NT", &[("STANDIN_NO_ALGORITHM", "1")]) else { return };
    none.is("Ok(\"[false, false]\")");
    let failed = run_with_blas("product NT", &[("STANDIN_BLAS_FAIL", "13")]).unwrap();
    failed.is("Err(Driver { call: \"cublasLtMatmul\", cause: \"CUBLAS_STATUS_EXECUTION_FAILED (13)\" })");
    assert!(failed.is_clean());
}

#[test]
fn a_missing_library_is_an_error_and_when_asked_for_one_at_once() {
    let Some(outcome) = run("product NT", &[]) else { return };
    assert!(outcome.result.starts_with("Err(Library { library: \"libcublasLt\""), "{}", outcome.result);
    outcome.says(&["libcublasLt cannot be loaded", "LD_LIBRARY_PATH"]);
    assert!(outcome.is_clean());
    let outcome = run("open cuda", &[("PHEYE_GEMM", "cublaslt")]).unwrap();
    assert!(outcome.result.starts_with("Err(Library {") && outcome.is_clean(), "{}", outcome.result);
    let outcome = run_with_blas("open cuda", &[("PHEYE_GEMM", "cublaslt")]).unwrap();
    assert!(outcome.result.starts_with("Ok(") && outcome.is_clean(), "{}", outcome.calls.join("\n"));
}
