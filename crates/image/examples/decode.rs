//! Writes an image as it is before resizing: 8-bit RGB, rotated upright.
//!
//! ```text
//! cargo run -p pheye-image --example decode -- dog.jpg dog.png cargo run -p pheye-image --example decode --
//! --stored dog.jpg dog.png
//! ```
//!
//! The first argument is a PNG, JPEG, WebP, GIF or BMP file (or `/dev/stdin`), the second the PNG to write. `--stored`
//! ignores the orientation in the file. The example `tiles` writes the resized tiles.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use pheye_image::{DecodeOptions, open};
use std::error::Error;
use std::process::ExitCode;

const USAGE: &str = "usage: decode [--stored] IMAGE OUT.png";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--help" || a == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let stored = arguments.iter().position(|a| a == "--stored").map(|at| arguments.remove(at)).is_some();
    let [image, out] = &arguments[..] else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if let Err(error) = run(image, out, !stored) {
        let causes = std::iter::successors(error.source(), |&e| e.source());
        eprintln!("{}", causes.fold(error.to_string(), |text, e| format!("{text}: {e}")));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(image: &str, out: &str, apply_orientation: bool) -> Result<(), Box<dyn Error>> {
    let rgb = open(image, &DecodeOptions { apply_orientation, ..DecodeOptions::default() })?;
    let format = image::ImageFormat::Png;
    let (width, height) = (rgb.width as u32, rgb.height as u32);
    image::save_buffer_with_format(out, &rgb.pixels, width, height, image::ColorType::Rgb8, format)?;
    Ok(())
}
