//! What a kernel takes, as Rust passes it: structs that `pheye-kernel-build` makes from those in the kernels' sources.

/// The address of a region that a kernel reads, a `const T*` in its parameters; null by default.
///
/// [`Launch::read`](crate::Launch::read) gives it, so that a launch knows of each region that its kernel touches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct In(pub(crate) u64);

/// The address of a region that a kernel writes, and perhaps reads, a `T*` in its parameters; null by default.
///
/// [`Launch::write`](crate::Launch::write) and [`Launch::update`](crate::Launch::update) give it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Out(pub(crate) u64);

impl In {
    /// No region.
    pub const NULL: In = In(0);

    /// The place `bytes` behind it, in the same region.
    pub fn offset(self, bytes: usize) -> In {
        In(self.0.wrapping_add(bytes as u64))
    }

    /// For a struct that several kernels share, where another one writes what this one only reads.
    pub fn shared(self) -> Out {
        Out(self.0)
    }
}

impl Out {
    /// No region.
    pub const NULL: Out = Out(0);

    /// The place `bytes` behind it, in the same region.
    pub fn offset(self, bytes: usize) -> Out {
        Out(self.0.wrapping_add(bytes as u64))
    }

    /// The same region as one that the kernel reads: for a kernel that works in place.
    pub fn input(self) -> In {
        In(self.0)
    }
}

/// A struct that a kernel takes.
pub trait Params: ParamField {
    /// Its name in the kernel's source.
    const NAME: &'static str;
}

/// What can be a field of [`Params`], stored as C++ lays it out.
pub trait ParamField {
    /// Bytes, padding included.
    const SIZE: usize;

    /// Writes it to `to`, [`SIZE`](Self::SIZE) bytes that are zero; padding stays so.
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

/// FNV-1a of a struct's name, as `launch.cuh` computes it.
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
        // Of the reference implementation.
        assert_eq!(
            (name_hash(""), name_hash("a"), name_hash("foobar")),
            (0x811c9dc5, 0xe40c292c, 0xbf9cf968)
        );
    }
}
