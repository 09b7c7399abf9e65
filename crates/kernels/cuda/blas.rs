//! GEMMs by cuBLASLt, as a baseline for the kernels.
//!
//! The library is column-major. A row-major matrix is the transpose of a column-major one with the same
//! leading dimension, so C = A·B is computed as Cᵀ = Bᵀ·Aᵀ.

mod library;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use cudarc::cublaslt::sys::cublasLtMatmulAlgo_t as Algorithm;
use cudarc::cublaslt::sys::cudaDataType as Type;

use super::Cuda;
use crate::{BlasGemm, Result};
use library::{Library, Matrix, Multiply, Object};

/// The size of the library's workspace in bytes, as NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// The library, opened in a context.
pub(crate) struct Blas {
    /// For each key a plan with the first algorithm of the heuristics, or `None` if there is none. Dropped
    /// before the library, which created them.
    plans: Mutex<HashMap<Key, Option<Arc<Plan>>>>,
    library: Library,
    workspace: u64,
}

/// Everything that the choice of an algorithm depends on.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct Key {
    dims: [usize; 3],
    /// The leading dimensions of A, B and C.
    lds: [usize; 3],
    transposed: [bool; 2],
    wide: bool,
    /// The alignment of A, B and C in bytes, at most 256.
    aligned: [u32; 3],
}

/// The descriptions of a GEMM for the library, and its algorithm.
pub(crate) struct Plan {
    multiply: Object<Multiply>,
    /// The layouts of the library's A (our B), B (our A) and C.
    matrices: [Object<Matrix>; 3],
    algorithm: Algorithm,
}

fn key(p: &BlasGemm) -> Key {
    Key {
        dims: p.dims,
        lds: [p.a.ld, p.b.ld, p.ldc],
        transposed: [p.a.transposed, p.b.transposed],
        wide: p.wide,
        aligned: [&p.a.region, &p.b.region, &p.c].map(|r| 1 << r.addr().trailing_zeros().min(8)),
    }
}

impl Blas {
    pub(super) fn workspace(&self) -> u64 {
        self.workspace
    }

    /// The plan for GEMMs with the key of `p`; `None` if the library has no algorithm.
    fn plan(&self, p: &BlasGemm) -> Result<Option<Arc<Plan>>> {
        let key = key(p);
        // Recovers from a poisoned lock: only complete plans are inserted.
        let mut plans = self.plans.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(plan) = plans.get(&key) {
            return Ok(plan.clone());
        }
        let plan = self.find(p, &key)?.map(Arc::new);
        plans.insert(key, plan.clone());
        Ok(plan)
    }

    fn find(&self, p: &BlasGemm, key: &Key) -> Result<Option<Plan>> {
        let [m, n, k] = p.dims;
        let multiply = self.library.multiply([p.b.transposed, p.a.transposed])?;
        let matrix = |[rows, cols]: [usize; 2], ld, t| self.library.matrix(t, cols, rows, ld);
        let result = if p.wide { Type::CUDA_R_32F } else { Type::CUDA_R_16BF };
        let matrices = [
            matrix(p.b.stored(k, n), p.b.ld, Type::CUDA_R_16BF)?,
            matrix(p.a.stored(m, k), p.a.ld, Type::CUDA_R_16BF)?,
            matrix([m, n], p.ldc, result)?,
        ];
        let [a, b, c] = key.aligned;
        let algorithm = self.library.first_algorithm(&multiply, &matrices, [b, a, c], WORKSPACE)?;
        Ok(algorithm.map(|algorithm| Plan { multiply, matrices, algorithm }))
    }
}

impl Cuda {
    /// The library, which is loaded and given its workspace at the first call.
    pub(crate) fn blas(&self) -> Result<&Blas> {
        if let Some(blas) = self.blas.get() {
            return Ok(blas);
        }
        self.context.enter()?;
        let library = Library::open()?;
        let workspace = self.alloc(WORKSPACE)?;
        let blas = self.blas.get_or_init(|| Blas { library, workspace, plans: Mutex::default() });
        if blas.workspace != workspace {
            // Another thread initialized the library meanwhile.
            self.free(workspace, WORKSPACE);
        }
        Ok(blas)
    }

    /// The plan for a GEMM; `None` if the library has no algorithm for it.
    pub(crate) fn plan(&self, p: &BlasGemm) -> Result<Option<Arc<Plan>>> {
        self.context.enter()?;
        self.blas()?.plan(p)
    }

    /// Queues a GEMM by its plan. The caller has checked that the operands fit their regions.
    pub(crate) fn multiply(&self, p: &BlasGemm, plan: &Plan) -> Result<()> {
        let blas = self.blas()?;
        let mut state = self.enter()?;
        let at = |addr: u64| addr as *mut c_void;
        let call = library::Call {
            multiply: &plan.multiply,
            matrices: &plan.matrices,
            algorithm: &plan.algorithm,
            scales: [p.alpha, p.beta],
            addrs: [p.b.region.addr(), p.a.region.addr(), p.c.addr()].map(at),
            workspace: (at(blas.workspace), WORKSPACE),
            stream: self.stream.handle().cast(),
        };
        // SAFETY: the plan was made for the key of `p`, so its layouts describe these operands. `Gpu::blas`
        // checked that they are inside their regions, and regions keep their memory alive. The stream and the
        // workspace live as long as `self`, and all uses of the workspace are queued on this stream. The
        // context is current.
        unsafe { blas.library.run(&call) }?;
        state.push("cublasLtMatmul");
        if state.each && state.recorder.is_none() { self.settle(state, "a GEMM by cuBLASLt") } else { Ok(()) }
    }
}
