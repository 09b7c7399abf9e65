//! Generates the Rust code of a package's kernels: `KERNELS` and the module `params`.

use std::path::Path;

use crate::Package;
use crate::cuda::{Fatbin, Images};
use crate::params::{self, Struct};

/// The code that `pheye_kernels::include_kernels!` includes. `emulated` has the names of the kernels in the
/// emulator's library.
pub(crate) fn text(package: &Package, images: &Images, emulated: &[String], structs: &[Struct]) -> String {
    let Images { fatbins, archs, missing } = images;
    let name = &package.name;
    let symbol = |kernel: &str| format!("{}__{kernel}", package.identifier());
    let externs: String = emulated
        .iter()
        .map(|kernel| {
            let symbol = symbol(kernel);
            format!("        fn {symbol}(params: *const u8);\n        static {symbol}_spec: [u32; 7];\n")
        })
        .collect();
    let entries: String = emulated
        .iter()
        .map(|kernel| {
            let symbol = symbol(kernel);
            // The SAFETY comment of the generated code holds, because nothing writes the record.
            format!("            ({kernel:?}, {symbol}, &{symbol}_spec),\n")
        })
        .collect();
    let images: String = fatbins.iter().map(image).collect();
    let foreign = match emulated.is_empty() {
        true => String::new(),
        false => format!("    unsafe extern \"C\" {{\n{externs}    }}\n"),
    };
    format!(
        "/// The kernels of this crate, as its build script compiled them; `Gpu::load` makes them launchable.\n\
         #[allow(unsafe_code)]\n\
         pub static KERNELS: ::pheye_kernels::KernelSet = {{\n\
         {foreign}    \
             const IMAGES: &[::pheye_kernels::Image] = &[\n{images}    ];\n    \
             // SAFETY: the build script made the fatbins, and compiled each entry with the record beside it, which lives as\n    \
             // long as the program and is never written.\n    \
             unsafe {{\n        \
                 ::pheye_kernels::KernelSet::new({name:?}, IMAGES, &{archs:?}, {missing:?}, &[\n{entries}        ])\n    \
             }}\n\
         }};\n\n{}",
        params::text(structs)
    )
}

fn image(fatbin: &Fatbin) -> String {
    let Fatbin { source, file, kernels } = fatbin;
    let file: &Path = file;
    let kernels: Vec<_> = kernels.iter().collect();
    format!(
        "        ::pheye_kernels::Image::new({source:?}, ::pheye_kernels::include_aligned!({file:?}), &{kernels:?}),\n"
    )
}
