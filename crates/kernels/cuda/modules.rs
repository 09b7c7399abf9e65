//! Loads the image that contains a kernel at the kernel's first use, and returns its function and record.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, RwLock};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};

use super::card::Card;
use super::driver::{Called, Stream, failed, text};
use super::file;
use crate::image::{self, Image, Sets};
use crate::{Error, KERNELS, KernelSet, Result, Spec};

/// The bytes of dynamic shared memory that a block may use without opt-in.
const SHARED: usize = 48 << 10;

/// A kernel of a loaded module.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub(super) function: sys::CUfunction,
    pub(super) spec: Spec,
}

/// The name of a crate, and one of its sources.
type Key = (&'static str, &'static str);

/// The modules loaded in one context.
pub(super) struct Modules {
    card: Card,
    replacement: Option<Module>,
    sets: Sets,
    /// The modules of embedded images, by crate and source.
    embedded: Mutex<HashMap<Key, Module>>,
    kernels: RwLock<HashMap<&'static str, Kernel>>,
}

impl Modules {
    /// The modules of the current context, which is on `card`. The first image is loaded at once, so that
    /// opening a GPU fails if its driver cannot load the compiled kernels.
    pub(super) fn new(device: &str, card: &Card) -> Result<Modules> {
        let modules = Modules {
            card: card.clone(),
            replacement: replacement()?,
            sets: Sets::own(),
            embedded: Mutex::default(),
            kernels: RwLock::default(),
        };
        modules.try_first(device, &KERNELS)?;
        Ok(modules)
    }

    /// Makes the kernels of another crate available. The context must be current.
    pub(super) fn load(&self, device: &str, set: &'static KernelSet) -> Result<()> {
        self.try_first(device, set)?;
        self.sets.add(set)
    }

    /// Loads the first image of `set`, unless there is a replacement, which may contain all kernels needed.
    fn try_first(&self, device: &str, set: &'static KernelSet) -> Result<()> {
        if self.replacement.is_some() {
            return Ok(());
        }
        let none = || {
            let why = set.missing().unwrap_or("it was built without a .cu file");
            let reason = match std::ptr::eq(set, &KERNELS) {
                true => why.to_owned(),
                false => format!("{}: {why}", set.crate_name()),
            };
            Error::NoKernels { device: device.to_owned(), reason }
        };
        let first = set.images().first().ok_or_else(none)?;
        let mut embedded = self.embedded.lock().unwrap_or_else(|e| e.into_inner());
        self.module(set, first, &mut embedded).map(drop)
    }

    /// The module of `image`, which is loaded at first use.
    fn module<'a>(
        &self,
        set: &KernelSet,
        image: &Image,
        embedded: &'a mut HashMap<Key, Module>,
    ) -> Result<&'a Module> {
        match embedded.entry((set.crate_name(), image.source)) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => Ok(new.insert(Module::embedded(set, image, &self.card)?)),
        }
    }

    /// A kernel that was found before.
    pub(super) fn known(&self, name: &str) -> Option<Kernel> {
        self.kernels.read().unwrap_or_else(|e| e.into_inner()).get(name).copied()
    }

    /// Finds a kernel, in the replacement first. The context must be current. The kernel's record is read on
    /// `stream`, which must not be capturing.
    pub(super) fn find(&self, name: &'static str, stream: &Stream) -> Result<Kernel> {
        let mut embedded = self.embedded.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(kernel) = self.known(name) {
            return Ok(kernel); // found by another thread meanwhile
        }
        let replaced = match &self.replacement {
            Some(module) => module.kernel(name, &self.card, stream)?,
            None => None,
        };
        let kernel = match replaced {
            Some(kernel) => kernel,
            None => self.in_image(name, &mut embedded, stream)?,
        };
        self.kernels.write().unwrap_or_else(|e| e.into_inner()).insert(name, kernel);
        Ok(kernel)
    }

    fn in_image(
        &self,
        name: &'static str,
        embedded: &mut HashMap<Key, Module>,
        stream: &Stream,
    ) -> Result<Kernel> {
        let (set, image) = self.sets.find(name, |set| {
            let image = set.images().iter().find(|image| image.kernels.binary_search(&name).is_ok())?;
            Some((set, image))
        })?;
        // The image may contain the kernel for other architectures only.
        let kernel = self.module(set, image, embedded)?.kernel(name, &self.card, stream)?;
        kernel.map_or_else(|| self.sets.find(name, |_| None), Ok)
    }
}

/// A loaded image.
struct Module(sys::CUmodule);

impl Module {
    fn embedded(set: &KernelSet, image: &Image, card: &Card) -> Result<Module> {
        // SAFETY: a complete fatbin from the build script, aligned to 16 bytes; the driver copies it.
        let loaded = unsafe { Module::load(image.bytes().as_ptr().cast()) };
        loaded.map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
                Error::OldDriver { found: card.driver.clone(), needed: "a later version".to_owned() }
            }
            CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_INVALID_IMAGE => Error::NoKernels {
                device: format!("cuda:{}", card.index),
                reason: format!(
                    "{}.cu of {}, on compute capability {} and a driver for CUDA {}: {}; PHEYE_CUDA_ARCHS says \
                     what is compiled, and an older driver cannot load what a newer nvcc made",
                    image.source,
                    set.crate_name(),
                    card.capability,
                    card.driver,
                    text(error)
                ),
            },
            _ => failed("cuModuleLoadData")(error),
        })
    }

    /// # Safety
    /// `image` must point to a complete fatbin or cubin aligned to at least 8 bytes: the driver reads its
    /// size from its headers.
    unsafe fn load(image: *const c_void) -> Called<Module> {
        // SAFETY: the caller's contract.
        unsafe { result::module::load_data(image) }.map(Module)
    }

    /// The kernel of this name with its record `<name>_spec`; `None` if this module does not contain it.
    fn kernel(&self, name: &'static str, card: &Card, stream: &Stream) -> Result<Option<Kernel>> {
        let Ok(c_name) = CString::new(name) else { return Ok(None) };
        // SAFETY: the module is loaded.
        let function = match unsafe { result::module::get_function(self.0, c_name) } {
            Err(DriverError(CUresult::CUDA_ERROR_NOT_FOUND)) => return Ok(None),
            found => found.map_err(failed("cuModuleGetFunction"))?,
        };
        let spec = self.spec(name, stream)?;
        if spec.shared > card.shared {
            let cause = format!(
                "a block needs {} bytes of shared memory, and may have {} on {}",
                spec.shared, card.shared, card.name
            );
            return Err(Error::Driver { call: name, cause });
        }
        if spec.shared > SHARED {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // Does not overflow: the limit of the card, which is not less, was an i32.
            let bytes = i32::try_from(spec.shared).unwrap_or(i32::MAX);
            // SAFETY: the function belongs to a loaded module.
            unsafe { result::function::set_function_attribute(function, attribute, bytes) }
                .map_err(|error| Error::Driver { call: name, cause: text(error) })?;
        }
        Ok(Some(Kernel { function, spec }))
    }

    fn spec(&self, name: &'static str, stream: &Stream) -> Result<Spec> {
        let wrong = |cause: String| Error::Driver { call: name, cause };
        let symbol = CString::new(format!("{name}_spec")).map_err(|error| wrong(error.to_string()))?;
        let mut words = [0u32; 7];
        // SAFETY: the module is loaded.
        let (addr, bytes) = unsafe { result::module::get_global(self.0, symbol) }.map_err(|error| {
            wrong(format!("its record cannot be read, KERNEL declares it: {}", text(error)))
        })?;
        if bytes != size_of_val(&words) {
            return Err(wrong(format!("its record has {bytes} bytes, and not {}", size_of_val(&words))));
        }
        // SAFETY: the record has the size of `words`, which is not read before the wait; kernels do not write
        // the record.
        unsafe { result::memcpy_dtoh_async(&mut words, addr, stream.handle()) }
            .and_then(|()| stream.wait())
            .map_err(|error| wrong(text(error)))?;
        Ok(Spec::from(words))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded once, unloaded once; `Cuda` has waited for its kernels. An error repeats an earlier
        // one.
        let _ = unsafe { result::module::unload(self.0) };
    }
}

/// The module of the file that `PHEYE_KERNELS` names.
fn replacement() -> Result<Option<Module>> {
    let wrong = |reason: String| {
        let path = std::env::var_os(image::REPLACEMENT).unwrap_or_default();
        Error::Replacement { path: path.to_string_lossy().into_owned(), reason }
    };
    let Some(bytes) = image::replacement().map_err(|error| wrong(error.why))? else { return Ok(None) };
    file::check(&bytes).map_err(|reason| wrong(reason.to_owned()))?;
    let mut aligned = vec![0u128; bytes.len().div_ceil(size_of::<u128>())];
    bytemuck::cast_slice_mut::<u128, u8>(&mut aligned)[..bytes.len()].copy_from_slice(&bytes);
    // SAFETY: aligned to 16 bytes, and the file is as long as its headers say. The driver copies it.
    unsafe { Module::load(aligned.as_ptr().cast()) }.map(Some).map_err(|error| wrong(text(error)))
}
