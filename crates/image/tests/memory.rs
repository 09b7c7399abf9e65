//! Memory stays within a few times the image and the result, for any shape. This is the only test of its
//! process, because it reads the peak memory of the process.
#![cfg(target_os = "linux")]

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use pheye_image::{DecodeOptions, PassOrder, Preprocess, decode, resize_bicubic_in};

/// A value of `/proc/self/status` in bytes.
fn status(key: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap() << 10
}

/// The result of `work`, and by how many bytes the peak memory grew.
fn growth<T>(work: impl FnOnce() -> T) -> (T, usize) {
    // Resets the peak to the current use.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let result = work();
    (result, status("VmHWM:").saturating_sub(before))
}

fn png(width: u32, height: u32, colour: ExtendedColorType) -> Vec<u8> {
    let bytes = width as usize * height as usize * usize::from(colour.bits_per_pixel() / 8);
    let mut out = Vec::new();
    let samples: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    PngEncoder::new(&mut out).write_image(&samples, width, height, colour).unwrap();
    out
}

#[test]
fn memory_follows_image_and_result() {
    const MB: usize = 1 << 20;
    let options = DecodeOptions::default();
    // Between the passes, the complete intermediate image would have 100 MB at 672 pixels, and 300 MB at
    // 2016.
    for (width, height) in [(1, 50_000), (50_000, 1)] {
        let bytes = png(width, height, ExtendedColorType::L8);
        let (image, grown) = growth(|| decode(&bytes, "thin", &options).unwrap());
        assert!(grown < 4 * MB, "decoding {width}x{height}: {} kB", grown >> 10);
        for order in [PassOrder::RowsFirst, PassOrder::Pillow13] {
            let (_, grown) = growth(|| resize_bicubic_in(&image, 672, 672, order));
            assert!(grown < 24 * MB, "{width}x{height} to 672, {order:?}: {} kB", grown >> 10);
        }
        let preprocess = Preprocess::new(336, 6);
        let (tiles, grown) = growth(|| preprocess.pixels(&image));
        let result = 4 * (tiles.global.len() + tiles.local.len());
        assert!(grown < 3 * result, "{width}x{height} to tiles: {} kB for {} kB", grown >> 10, result >> 10);
    }
    // Eight bytes per pixel in the file, three in memory.
    let bytes = png(2000, 2000, ExtendedColorType::Rgba16);
    let (image, grown) = growth(|| decode(&bytes, "deep", &options).unwrap());
    assert!(grown < image.pixels.len() + 4 * MB, "16 bits: {} kB", grown >> 10);
}
