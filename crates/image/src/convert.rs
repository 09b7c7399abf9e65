//! Any decoded picture to RGB by the rules of Pillow's `convert("RGB")`.
//!
//! Alpha is dropped, not composited; 16-bit colour keeps its high byte; 16-bit grey alone is clipped at 255, since
//! Pillow opens it as mode "I;16". Bilevel, low-bit and palette pictures arrive already expanded to 8 bits, and CMYK
//! and YCCK JPEGs as RGB by the same naive product that Pillow uses.

use crate::Rgb8;
use image::DynamicImage;

/// `grey16`: the picture is a PNG of colour type 0 with 16 bits (an alpha made from its tRNS chunk may have come along).
pub(crate) fn to_rgb(picture: DynamicImage, grey16: bool) -> Rgb8 {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let narrow = |v: u16| if grey16 { v.min(255) as u8 } else { (v >> 8) as u8 };
    let pixels = match picture {
        DynamicImage::ImageRgb8(p) => p.into_raw(),
        DynamicImage::ImageLuma8(p) => gather(&p, 1, |c| [c[0]; 3]),
        DynamicImage::ImageLumaA8(p) => gather(&p, 2, |c| [c[0]; 3]),
        DynamicImage::ImageRgba8(p) => gather(&p, 4, |c| [c[0], c[1], c[2]]),
        DynamicImage::ImageLuma16(p) => gather(&p, 1, |c| [narrow(c[0]); 3]),
        DynamicImage::ImageLumaA16(p) => gather(&p, 2, |c| [narrow(c[0]); 3]),
        DynamicImage::ImageRgb16(p) => gather(&p, 3, |c| [narrow(c[0]), narrow(c[1]), narrow(c[2])]),
        DynamicImage::ImageRgba16(p) => gather(&p, 4, |c| [narrow(c[0]), narrow(c[1]), narrow(c[2])]),
        // Floating point: none of the three formats has it.
        other => other.into_rgb8().into_raw(),
    };
    Rgb8 { width, height, pixels }
}

fn gather<T>(samples: &[T], channels: usize, rgb: impl Fn(&[T]) -> [u8; 3]) -> Vec<u8> {
    let mut out = Vec::with_capacity(samples.len() / channels * 3);
    samples.chunks_exact(channels).for_each(|pixel| out.extend(rgb(pixel)));
    out
}
