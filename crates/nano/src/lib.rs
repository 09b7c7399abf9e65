//! The nano model of Pheye as bytes in the program: the files of its folder `model`, and an image to ask about.
//!
//! ```
//! assert!(pheye_nano::CONFIG.contains("\"vision\""));
//! assert_eq!(pheye_nano::WEIGHTS.as_ptr() as usize % 64, 0);
//! ```
#![forbid(unsafe_code)]

/// The configuration, `pheye.json`.
pub const CONFIG: &str = include_str!("../model/pheye.json");

/// The tokenizer, `tokenizer.json`.
pub const TOKENIZER: &[u8] = include_bytes!("../model/tokenizer.json");

/// The weights, `model.safetensors`, at an address that is a multiple of 64, so that tensors can refer to them.
pub static WEIGHTS: &[u8] = &ALIGNED.0;

static ALIGNED: Aligned<[u8; include_bytes!("../model/model.safetensors").len()]> =
    Aligned(*include_bytes!("../model/model.safetensors"));

#[repr(align(64))]
struct Aligned<T>(T);

/// A PNG file to ask about.
pub const PICTURE: &[u8] = include_bytes!("../picture.png");

/// A question about [`PICTURE`].
pub const QUESTION: &str = "what color is the shape?";

/// The question for a description of any image.
pub const DESCRIBE: &str = "what is in the image?";

/// The files of the model's folder, by name.
pub fn files() -> [(&'static str, &'static [u8]); 3] {
    [("model.safetensors", WEIGHTS), ("pheye.json", CONFIG.as_bytes()), ("tokenizer.json", TOKENIZER)]
}
