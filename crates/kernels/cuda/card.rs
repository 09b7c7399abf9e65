//! Finds the requested GPU, and checks that it can run the kernels.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};

use super::driver::failed;
use crate::{Error, Result};

/// The oldest supported driver as 1000·major + 10·minor: CUDA 12.0, which has every function called here.
const DRIVER: i32 = 12_000;

/// The lowest supported compute capability: the kernels use bf16 tensor cores and cp.async.
const CAPABILITY: (i32, i32) = (8, 0);

/// A GPU and the properties that launches need.
#[derive(Debug, Clone)]
pub(super) struct Card {
    pub(super) index: usize,
    pub(super) device: sys::CUdevice,
    pub(super) name: String,
    /// The CUDA version that the driver supports.
    pub(super) driver: String,
    /// The compute capability, as `major.minor`.
    pub(super) capability: String,
    /// The number of multiprocessors.
    pub(super) sms: usize,
    /// The maximum bytes of shared memory of a block, with opt-in.
    pub(super) shared: usize,
    /// Whether the device supports stream-ordered allocation (memory pools).
    pub(super) pools: bool,
}

impl Card {
    /// The GPU of `device`, whose part after the colon is `option`: an index, or empty for the first GPU.
    pub(super) fn find(device: &str, option: &str) -> Result<Card> {
        let index: usize =
            if option.is_empty() { 0 } else { option.parse().map_err(|_| Error::Name(device.to_owned()))? };
        let driver = start(index)?;
        let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
        let count = usize::try_from(count).unwrap_or(0);
        let none = Error::NoDevice { index, count };
        if index >= count {
            return Err(none);
        }
        let device =
            result::device::get(i32::try_from(index).map_err(|_| none)?).map_err(failed("cuDeviceGet"))?;
        let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
        let ask = |attribute| {
            // SAFETY: the device is from `cuDeviceGet`.
            unsafe { result::device::get_attribute(device, attribute) }
                .map_err(failed("cuDeviceGetAttribute"))
        };
        let capability = (
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let found = format!("{}.{}", capability.0, capability.1);
        if capability < CAPABILITY {
            return Err(Error::OldCard { name, found });
        }
        let size = |value: i32| usize::try_from(value).unwrap_or(0);
        Ok(Card {
            index,
            device,
            name,
            driver,
            capability: found,
            sms: size(ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?),
            shared: size(ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?),
            pools: ask(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0,
        })
    }
}

/// Initializes the driver and returns its CUDA version.
fn start(index: usize) -> Result<String> {
    // SAFETY: this only loads libcuda, whose initializers have no preconditions. Other calls panic without
    // the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::NoDriver);
    }
    result::init().map_err(|error| match error {
        DriverError(CUresult::CUDA_ERROR_NO_DEVICE) => Error::NoDevice { index, count: 0 },
        // The stub library, which CUDA toolkits contain for linking.
        DriverError(CUresult::CUDA_ERROR_STUB_LIBRARY) => Error::NoDriver,
        error => failed("cuInit")(error),
    })?;
    let mut version = 0;
    // SAFETY: it writes one integer, to `version`.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    if version < DRIVER {
        return Err(Error::OldDriver { found: named(version), needed: named(DRIVER) });
    }
    Ok(named(version))
}

/// The version as text: 12080 is CUDA 12.8.
fn named(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}
