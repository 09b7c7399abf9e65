//! Any bytes to tiles: decoding, orientation, resizing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pheye_image::{DecodeOptions, Preprocess, decode};

fuzz_target!(|data: &[u8]| {
    // Small, so that a run is about headers and streams, not about filling pixels.
    for apply_orientation in [true, false] {
        let options = DecodeOptions { max_pixels: 1 << 16, apply_orientation, ..DecodeOptions::default() };
        match decode(data, "input", &options) {
            Ok(image) => {
                assert_eq!(image.pixels.len(), 3 * image.width * image.height);
                let tiles = Preprocess::new(8, 2).pixels(&image);
                assert_eq!((tiles.global.len(), tiles.local.len()), (3 * 64, 4 * 3 * 64));
            }
            Err(error) => return assert!(error.to_string().contains("input")),
        }
    }
});
