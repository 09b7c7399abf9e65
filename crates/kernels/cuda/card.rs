//! Finding the card that was asked for, and saying why it cannot be used.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};

use super::driver::failed;
use crate::{Error, Result};

/// The oldest driver that this module talks to: CUDA 12.0, as 1000·major + 10·minor. It has every function called here.
const DRIVER: i32 = 12_000;

/// The oldest compute capability: the kernels use bf16 tensor cores and cp.async.
const CAPABILITY: (i32, i32) = (8, 0);

/// A card and what launches need to know of it.
#[derive(Debug, Clone)]
pub(super) struct Card {
    pub(super) index: usize,
    pub(super) device: sys::CUdevice,
    pub(super) name: String,
    /// CUDA version of the driver.
    pub(super) driver: String,
    /// Compute capability.
    pub(super) capability: String,
    /// Multiprocessors.
    pub(super) sms: usize,
    /// Bytes of shared memory that a block may have.
    pub(super) shared: usize,
    /// Whether memory can be taken and given back in the order of a stream.
    pub(super) pools: bool,
}

impl Card {
    /// The card that `device` names by its part after the colon, `option`: a number, or nothing for the first.
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

/// Starts the driver; its CUDA version.
fn start(index: usize) -> Result<String> {
    // SAFETY: it only tries to load libcuda, whose initialisers ask nothing of us. Any other call would panic without one.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::NoDriver);
    }
    result::init().map_err(|error| match error {
        DriverError(CUresult::CUDA_ERROR_NO_DEVICE) => Error::NoDevice { index, count: 0 },
        // The library that toolkits bring for linking, without a driver behind it.
        DriverError(CUresult::CUDA_ERROR_STUB_LIBRARY) => Error::NoDriver,
        error => failed("cuInit")(error),
    })?;
    let mut version = 0;
    // SAFETY: it writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    if version < DRIVER {
        return Err(Error::OldDriver { found: named(version), needed: named(DRIVER) });
    }
    Ok(named(version))
}

/// 12080 is CUDA 12.8.
fn named(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}
