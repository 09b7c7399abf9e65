//! Runs an image through a CLIP B/32 tower of two layers with random weights:
//! `cargo run -p pheye-vit --example random -- picture.png`
#![allow(clippy::print_stdout, clippy::print_stderr)]

use pheye_image::{DecodeOptions, Preprocess, open};
use pheye_ops::lora::Route;
use pheye_ops::{Cx, RandomInit};
use pheye_tensor::{Scope, Tensor};
use pheye_vit::{Config, Vit};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: random IMAGE")?;
    let sizes = Config { hidden_size: 768, intermediate_size: 3072, patch_size: 32, ..Config::h14() };
    let config = Config { num_hidden_layers: 2, num_attention_heads: 12, image_size: 224, ..sizes };
    let vit = Vit::new(&mut Scope::new(&mut RandomInit::new(1), ""), &config, &[])?;
    let tiles = Preprocess::new(224, 1).pixels(&open(path, &DecodeOptions::default())?);
    let pixels = Tensor::from_f32([1, 3, 224, 224], &tiles.global)?;
    let y = vit.infer(&Cx::cpu(), &pixels, &Route::default())?;
    println!("{}: a class token and 7 x 7 patches", y.shape());
    Ok(())
}
