//! Kernel parameters in Rust. `pheye-kernel-build` generates a Rust struct from each parameter struct in the
//! kernels' sources.

/// The device address of a region that a kernel reads: a `const T*` in the kernel's parameters. The default
/// is null.
///
/// [`Launch::read`](crate::Launch::read) returns it and adds the region to the launch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct In(pub(crate) u64);

/// The device address of a region that a kernel writes and may also read: a `T*` in the kernel's parameters.
/// The default is null.
///
/// [`Launch::write`](crate::Launch::write) and [`Launch::update`](crate::Launch::update) return it and add
/// the region to the launch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Out(pub(crate) u64);

impl In {
    /// The null address, for an optional region that is absent.
    pub const NULL: In = In(0);

    /// The address `bytes` bytes later, in the same region.
    pub fn offset(self, bytes: usize) -> In {
        In(self.0.wrapping_add(bytes as u64))
    }

    /// The same address for a `T*` field that this kernel only reads, in a struct shared with a kernel that
    /// writes it.
    pub fn shared(self) -> Out {
        Out(self.0)
    }
}

impl Out {
    /// The null address, for an optional region that is absent.
    pub const NULL: Out = Out(0);

    /// The address `bytes` bytes later, in the same region.
    pub fn offset(self, bytes: usize) -> Out {
        Out(self.0.wrapping_add(bytes as u64))
    }

    /// The same address for a `const T*` field, for a kernel that works in place.
    pub fn input(self) -> In {
        In(self.0)
    }
}

/// The parameter struct of a kernel.
pub trait Params: ParamField {
    /// The name of the struct in the kernel's source.
    const NAME: &'static str;
}

/// A type of a field of [`Params`], stored with the layout of C++.
pub trait ParamField {
    /// The size in bytes, including padding.
    const SIZE: usize;

    /// Writes the value to `to`, which has [`SIZE`](Self::SIZE) bytes, all zero. Padding stays zero.
    fn store(&self, to: &mut [u8]);
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl ParamField for $number {
            const SIZE: usize = size_of::<$number>();

            fn store(&self, to: &mut [u8]) {
                to.copy_from_slice(&self.to_ne_bytes());
            }
        }
    )*};
}
numbers!(i32 u32 i64 u64 f32 f64);

impl ParamField for In {
    const SIZE: usize = 8;

    fn store(&self, to: &mut [u8]) {
        self.0.store(to);
    }
}

impl ParamField for Out {
    const SIZE: usize = 8;

    fn store(&self, to: &mut [u8]) {
        self.0.store(to);
    }
}

impl<T: ParamField, const N: usize> ParamField for [T; N] {
    const SIZE: usize = N * T::SIZE;

    fn store(&self, to: &mut [u8]) {
        for (item, to) in self.iter().zip(to.chunks_exact_mut(T::SIZE)) {
            item.store(to);
        }
    }
}

/// The FNV-1a hash of a struct's name, as `launch.cuh` computes it.
pub(crate) const fn name_hash(name: &str) -> u32 {
    let mut hash = 2166136261u32;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name.as_bytes()[i] as u32).wrapping_mul(16777619);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_stored_in_order() {
        let mut bytes = [0; 24];
        [In(1), In(2), In(1 << 40)].store(&mut bytes);
        assert_eq!((bytes[0], bytes[8], bytes[21]), (1, 2, 1));
        assert_eq!(<[f32; 3]>::SIZE, 12);
        // Test vectors of the reference implementation.
        assert_eq!(
            (name_hash(""), name_hash("a"), name_hash("foobar")),
            (0x811c9dc5, 0xe40c292c, 0xbf9cf968)
        );
    }
}
