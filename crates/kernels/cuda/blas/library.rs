//! libcublasLt: loading it, its functions, and its objects.
//!
//! Types and constants are those of cudarc. Its own loader is not used, because it knows only the file names
//! of CUDA 12 and panics without the library. The functions used here are the same in CUDA 12 and 13. A
//! status is a u32, because newer libraries have values that cudarc's enum lacks.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use cudarc::cublaslt::sys;
use sys::cublasLtMatmulAlgo_t as Algorithm;
use sys::cublasLtMatmulDescAttributes_t as Attribute;
use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
use sys::{cublasComputeType_t, cublasLtReductionScheme_t, cudaDataType};

use crate::{Error, Result};

const LIBRARY: &str = "libcublasLt";

/// The names of the library in CUDA 13 and 12 on Linux; the last is installed with the headers only.
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];
#[cfg(windows)]
const NAMES: [&str; 2] = ["cublasLt64_13.dll", "cublasLt64_12.dll"];

type Status = u32;
const SUCCESS: Status = 0;
const NOT_SUPPORTED: Status = 15;

type Handle = *mut c_void;
type Set = unsafe extern "C" fn(Handle, u32, *const c_void, usize) -> Status;
type Destroy = unsafe extern "C" fn(Handle) -> Status;

/// A result of the heuristics: `cublasLtMatmulHeuristicResult_t` with its status as an integer.
#[repr(C)]
struct Heuristic {
    algorithm: Algorithm,
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// The functions used, as `cublasLt.h` declares them.
struct Functions {
    create: unsafe extern "C" fn(*mut Handle) -> Status,
    destroy: Destroy,
    name: unsafe extern "C" fn(Status) -> *const c_char,
    multiply_create: unsafe extern "C" fn(*mut Handle, cublasComputeType_t, cudaDataType) -> Status,
    multiply_set: Set,
    multiply_destroy: Destroy,
    matrix_create: unsafe extern "C" fn(*mut Handle, cudaDataType, u64, u64, i64) -> Status,
    matrix_destroy: Destroy,
    preference_create: unsafe extern "C" fn(*mut Handle) -> Status,
    preference_set: Set,
    preference_destroy: Destroy,
    /// Handle, matmul descriptor, layouts of A, B, C and D, preference, number of requested results, results,
    /// number of results.
    heuristic: unsafe extern "C" fn(
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        c_int,
        *mut Heuristic,
        *mut c_int,
    ) -> Status,
    /// Handle, matmul descriptor, α, A and its layout, B and its layout, β, C and its layout, D and its
    /// layout, algorithm, workspace and its size, stream.
    run: unsafe extern "C" fn(
        Handle,
        Handle,
        *const c_void,
        *const c_void,
        Handle,
        *const c_void,
        Handle,
        *const c_void,
        *const c_void,
        Handle,
        *mut c_void,
        Handle,
        *const Algorithm,
        *mut c_void,
        usize,
        *mut c_void,
    ) -> Status,
    /// Keeps the functions loaded.
    _library: libloading::Library,
}

/// The message of the dynamic loader, which is in the source of the error.
fn said(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

impl Functions {
    /// The functions of the first library of `names` that can be loaded.
    fn load(names: &[&str]) -> Result<Functions> {
        let missing = |reason| Error::Library { library: LIBRARY, reason };
        let mut reasons = Vec::new();
        let open = |name: &&str| {
            // SAFETY: the initializers of NVIDIA's library have no preconditions, and it stays loaded as long
            // as the functions.
            unsafe { libloading::Library::new(*name) }.map_err(|e| reasons.push(said(&e))).ok()
        };
        let Some(library) = names.iter().find_map(open) else { return Err(missing(reasons.join("; "))) };
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is that of the field, which is as `cublasLt.h` declares the function.
                *unsafe { library.get($name) }.map_err(|e| missing(said(&e)))?
            };
        }
        Ok(Functions {
            create: function!("cublasLtCreate"),
            destroy: function!("cublasLtDestroy"),
            name: function!("cublasLtGetStatusName"),
            multiply_create: function!("cublasLtMatmulDescCreate"),
            multiply_set: function!("cublasLtMatmulDescSetAttribute"),
            multiply_destroy: function!("cublasLtMatmulDescDestroy"),
            matrix_create: function!("cublasLtMatrixLayoutCreate"),
            matrix_destroy: function!("cublasLtMatrixLayoutDestroy"),
            preference_create: function!("cublasLtMatmulPreferenceCreate"),
            preference_set: function!("cublasLtMatmulPreferenceSetAttribute"),
            preference_destroy: function!("cublasLtMatmulPreferenceDestroy"),
            heuristic: function!("cublasLtMatmulAlgoGetHeuristic"),
            run: function!("cublasLtMatmul"),
            _library: library,
        })
    }

    fn done(&self, call: &'static str, status: Status) -> Result<()> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: the function takes any integer, and returns null or a constant string of the library.
        let name = unsafe {
            let name = (self.name)(status);
            if name.is_null() { None } else { Some(CStr::from_ptr(name)) }
        };
        let name = name.map_or("a status unknown to it".into(), CStr::to_string_lossy);
        Err(Error::Driver { call, cause: format!("{name} ({status})") })
    }
}

/// The library, opened in the context that was current.
pub(super) struct Library {
    functions: Functions,
    handle: Handle,
}

// SAFETY: the library's handle may be used by several threads concurrently.
unsafe impl Send for Library {}
// SAFETY: the same as for `Send`.
unsafe impl Sync for Library {}

/// Marks the descriptor of a matmul: its operations and types.
pub(super) struct Multiply;
/// Marks the layout of a matrix.
pub(super) struct Matrix;
/// Marks the preferences for the choice of an algorithm.
struct Limits;

/// An object created by the library.
pub(super) struct Object<T> {
    handle: Handle,
    destroy: Destroy,
    kind: PhantomData<T>,
}

// SAFETY: the objects are host memory without thread affinity, and are only read after their creation.
unsafe impl<T> Send for Object<T> {}
// SAFETY: the same as for `Send`.
unsafe impl<T> Sync for Object<T> {}

impl<T> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: created by the function that matches this one, destroyed once; it frees host memory. The
        // library is still loaded: `Blas` owns the plans, drops them first, and is borrowed while a plan is
        // used.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}

/// The arguments of a matmul.
pub(super) struct Call<'a> {
    pub(super) multiply: &'a Object<Multiply>,
    /// The layouts of A, B and C.
    pub(super) matrices: &'a [Object<Matrix>; 3],
    pub(super) algorithm: &'a Algorithm,
    /// α and β.
    pub(super) scales: [f32; 2],
    pub(super) addrs: [*mut c_void; 3],
    pub(super) workspace: (*mut c_void, usize),
    pub(super) stream: *mut c_void,
}

impl Library {
    /// Loads the library and opens it in the current context.
    pub(super) fn open() -> Result<Library> {
        let functions = Functions::load(&NAMES)?;
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` receives the result.
        functions.done("cublasLtCreate", unsafe { (functions.create)(&mut handle) })?;
        Ok(Library { functions, handle })
    }

    fn object<T>(
        &self,
        call: &'static str,
        destroy: Destroy,
        create: impl FnOnce(*mut Handle) -> Status,
    ) -> Result<Object<T>> {
        let mut handle = ptr::null_mut();
        self.functions.done(call, create(&mut handle))?;
        Ok(Object { handle, destroy, kind: PhantomData })
    }

    /// A descriptor of a matmul of bf16 operands, each optionally transposed, with f32 accumulation and
    /// scales.
    pub(super) fn multiply(&self, transposed: [bool; 2]) -> Result<Object<Multiply>> {
        let f = &self.functions;
        let (sums, scales) = (cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType::CUDA_R_32F);
        let made = self.object("cublasLtMatmulDescCreate", f.multiply_destroy, |to| {
            // SAFETY: `to` receives the result.
            unsafe { (f.multiply_create)(to, sums, scales) }
        })?;
        let attributes = [Attribute::CUBLASLT_MATMUL_DESC_TRANSA, Attribute::CUBLASLT_MATMUL_DESC_TRANSB];
        for (attribute, transposed) in attributes.into_iter().zip(transposed) {
            // 0 is CUBLAS_OP_N and 1 is CUBLAS_OP_T.
            let value = u32::from(transposed);
            // SAFETY: the descriptor is alive, and the attribute is a 32-bit enum.
            let status = unsafe {
                (f.multiply_set)(made.handle, attribute as u32, (&raw const value).cast(), size_of::<u32>())
            };
            f.done("cublasLtMatmulDescSetAttribute", status)?;
        }
        Ok(made)
    }

    /// The layout of a column-major matrix with leading dimension `ld`.
    pub(super) fn matrix(
        &self,
        kind: cudaDataType,
        rows: usize,
        cols: usize,
        ld: usize,
    ) -> Result<Object<Matrix>> {
        let f = &self.functions;
        self.object("cublasLtMatrixLayoutCreate", f.matrix_destroy, |to| {
            // SAFETY: `to` receives the result.
            unsafe { (f.matrix_create)(to, kind, rows as u64, cols as u64, ld as i64) }
        })
    }

    /// The first algorithm of the heuristics for operands aligned to `aligned` bytes and at most `workspace`
    /// bytes of workspace; `None` if there is none.
    pub(super) fn first_algorithm(
        &self,
        multiply: &Object<Multiply>,
        [a, b, c]: &[Object<Matrix>; 3],
        aligned: [u32; 3],
        workspace: usize,
    ) -> Result<Option<Algorithm>> {
        let f = &self.functions;
        let limits: Object<Limits> =
            self.object("cublasLtMatmulPreferenceCreate", f.preference_destroy, |to| {
                // SAFETY: `to` receives the result.
                unsafe { (f.preference_create)(to) }
            })?;
        let set = |preference: Preference, value: *const c_void, bytes: usize| {
            // SAFETY: the preferences are alive, and each call below passes the size that its preference has.
            let status = unsafe { (f.preference_set)(limits.handle, preference as u32, value, bytes) };
            f.done("cublasLtMatmulPreferenceSetAttribute", status)
        };
        // A 64-bit integer.
        let bytes = workspace as u64;
        set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const bytes).cast(), 8)?;
        // Split-K partial sums stay in f32, as in the kernels. The mask and the alignments are 32-bit
        // integers.
        let scheme = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (&raw const scheme).cast(), 4)?;
        let [of_a, of_b, of_c] = &aligned;
        for (preference, value) in [
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, of_a),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, of_b),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, of_c),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_c),
        ] {
            set(preference, ptr::from_ref(value).cast(), 4)?;
        }
        let (mut found, mut count) = (MaybeUninit::<Heuristic>::zeroed(), 0);
        // SAFETY: all objects are alive, and `found` has room for the one result requested.
        let status = unsafe {
            (f.heuristic)(
                self.handle,
                multiply.handle,
                a.handle,
                b.handle,
                c.handle,
                c.handle,
                limits.handle,
                1,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        if status == NOT_SUPPORTED {
            return Ok(None);
        }
        f.done("cublasLtMatmulAlgoGetHeuristic", status)?;
        // SAFETY: all fields are integers and floats, for which zeros and whatever the library wrote are
        // valid.
        let found = unsafe { found.assume_init() };
        let fits = count > 0 && found.state == SUCCESS && found.workspace <= workspace;
        Ok(fits.then_some(found.algorithm))
    }

    /// Queues a matmul.
    ///
    /// # Safety
    /// The layouts must describe live device memory at the addresses, and C is written. The algorithm must
    /// have been chosen for these layouts. The workspace must have the given size and not be used
    /// concurrently. The stream must be alive and belong to the current context.
    pub(super) unsafe fn run(&self, call: &Call) -> Result<()> {
        let ([a, b, c], [alpha, beta]) = (call.matrices, &call.scales);
        // SAFETY: the caller's contract. The scales are in host memory, which is the default, and are read
        // before the call returns. The matmul is in place: D is C, with the same layout.
        let status = unsafe {
            (self.functions.run)(
                self.handle,
                call.multiply.handle,
                ptr::from_ref(alpha).cast(),
                call.addrs[0],
                a.handle,
                call.addrs[1],
                b.handle,
                ptr::from_ref(beta).cast(),
                call.addrs[2],
                c.handle,
                call.addrs[2],
                c.handle,
                call.algorithm,
                call.workspace.0,
                call.workspace.1,
                call.stream,
            )
        };
        self.functions.done("cublasLtMatmul", status)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once. An error repeats one that an earlier call reported.
        let _ = unsafe { (self.functions.destroy)(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let error = Functions::load(&["libpheye_has_no_such_library.so.1"]).err().expect("there is none");
        let text = error.to_string();
        assert!(text.starts_with("libcublasLt cannot be loaded (libpheye_has_no_such_library"), "{text}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_library_without_the_functions_is_refused() {
        let error = Functions::load(&["libc.so.6"]).err().expect("the C library has no products");
        assert!(error.to_string().contains("cublasLtCreate"), "{error}");
    }
}
