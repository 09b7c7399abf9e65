//! The element types of matrices and their conversion to f32, one at a time or a vector at a time.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::bf16;
use pulp::Simd;

/// A type that matrices are stored in, converted to f32 as it is read.
pub(crate) trait Element: Copy + Sync + 'static {
    fn widen(self) -> f32;
    /// Loads eight elements starting at `x`, converted to f32.
    ///
    /// # Safety
    /// The elements must exist, and the processor must have AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load8(x: *const Self) -> __m256;
    /// Loads sixteen elements starting at `x`, converted to f32.
    ///
    /// # Safety
    /// The elements must exist, and the processor must have AVX-512F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load16(x: *const Self) -> __m512;
    /// The slice itself when it is f32 and needs no conversion.
    fn as_f32_slice(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load8(x: *const f32) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_loadu_ps(x) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load16(x: *const f32) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_loadu_ps(x) }
    }
    fn as_f32_slice(x: &[f32]) -> Option<&[f32]> {
        Some(x)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load8(x: *const bf16) -> __m256 {
        // SAFETY: guaranteed by the caller. A bf16 is the upper half of an f32.
        unsafe {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(x.cast()))))
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load16(x: *const bf16) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.cast()))))
        }
    }
}

impl Element for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self as f32
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load8(x: *const i8) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.cast()))) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load16(x: *const i8) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.cast()))) }
    }
}

/// The number of elements that are converted together.
pub(crate) const LANES8: usize = 8;

/// Converts eight elements to f32.
#[inline(always)]
pub(crate) fn load8_f32<S: Simd, E: Element>(x: &[E; LANES8]) -> [f32; LANES8] {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES >= 8 {
        // SAFETY: there are eight elements, and vectors of eight lanes are selected only where there is AVX2.
        return bytemuck::cast(unsafe { E::load8(x.as_ptr()) });
    }
    x.map(E::widen)
}

/// Loads a vector of elements starting at `x`, converted to f32.
///
/// # Safety
/// The elements must exist.
#[inline(always)]
pub(crate) unsafe fn load_f32<S: Simd, E: Element>(simd: S, x: *const E) -> S::f32s {
    let mut wide = simd.splat_f32s(0.0);
    let lanes: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut wide));
    // SAFETY: the elements exist, and vectors of eight and sixteen lanes are selected only where there is
    // AVX2 and AVX-512.
    unsafe {
        match lanes.len() {
            #[cfg(target_arch = "x86_64")]
            16 => lanes.copy_from_slice(bytemuck::cast_ref::<_, [f32; 16]>(&E::load16(x))),
            #[cfg(target_arch = "x86_64")]
            8 => lanes.copy_from_slice(bytemuck::cast_ref::<_, [f32; 8]>(&E::load8(x))),
            _ => lanes.iter_mut().enumerate().for_each(|(l, lane)| *lane = (*x.add(l)).widen()),
        }
    }
    wide
}
