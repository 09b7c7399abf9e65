//! Converts a completely decoded image to RGB, as Pillow's `convert("RGB")`.

use crate::Rgb8;
use image::DynamicImage;

/// Alpha is dropped, not composited.
pub(crate) fn to_rgb(image: DynamicImage) -> Rgb8 {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pixels = match image {
        DynamicImage::ImageRgb8(p) => p.into_raw(),
        DynamicImage::ImageRgba8(p) => {
            let mut out = Vec::with_capacity(3 * width * height);
            p.as_chunks::<4>().0.iter().for_each(|&[r, g, b, _]| out.extend([r, g, b]));
            out
        }
        DynamicImage::ImageLuma8(p) => grey_to_rgb(&p),
        // Does not occur: JPEG and WebP are decoded to the types above only.
        other => other.into_rgb8().into_raw(),
    };
    Rgb8 { width, height, pixels }
}

/// Converts CMYK (amounts of ink) to RGB as Pillow does, without a colour profile: (255 − ink)·(255 − black)
/// / 255.
pub(crate) fn cmyk_to_rgb(ink: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ink.len() / 4 * 3);
    for &[cyan, magenta, yellow, black] in ink.as_chunks::<4>().0 {
        let white = 255 - black;
        out.extend([cyan, magenta, yellow].map(|ink| white - scaled(ink, white)));
    }
    out
}

/// `a * b / 255`, rounded as in Pillow.
fn scaled(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// Repeats each grey value for R, G and B.
pub(crate) fn grey_to_rgb(grey: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 * grey.len());
    grey.iter().for_each(|&v| out.extend([v; 3]));
    out
}
