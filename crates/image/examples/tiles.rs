//! Writes the global image and the local tiles of an image as PNG files, to show what the model sees.
//!
//! ```text
//! cargo run -p pheye-image --example tiles -- dog.jpg out 3
//! ```
//!
//! This writes `out/global.png` and, at level 3, `out/tile0.png` to `out/tile8.png`.

use pheye_image::{DecodeOptions, Preprocess, open};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, folder, rest @ ..] = arguments.as_slice() else {
        return Err("usage: tiles IMAGE FOLDER [LEVEL]".into());
    };
    let level = rest.first().map_or(Ok(2), |text| text.parse())?;
    let image = open(image, &DecodeOptions::default())?;
    std::fs::create_dir_all(folder)?;
    for (i, view) in Preprocess::new(224, level).views(&image).iter().enumerate() {
        let name = if i == 0 { "global.png".into() } else { format!("tile{}.png", i - 1) };
        let (width, height) = (view.width as u32, view.height as u32);
        image::save_buffer(
            Path::new(folder).join(name),
            &view.pixels,
            width,
            height,
            image::ColorType::Rgb8,
        )?;
    }
    Ok(())
}
