//! Lists the tensors of a checkpoint, and prints the first values of one:
//!
//! `cargo run -p pheye-weights --example tensors -- FILE [NAME]`
#![allow(clippy::print_stdout, clippy::print_stderr)]

use pheye_tensor::DType;
use pheye_weights::Checkpoint;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let checkpoint = Checkpoint::open(args.next().ok_or("usage: tensors FILE [NAME]")?)?;
    for tensor in checkpoint.tensors() {
        println!("{tensor:?}");
    }
    if let Some(name) = args.next() {
        let tensor = checkpoint.tensor(&name, DType::F32)?;
        println!("{:?}", &tensor.f32()?[..tensor.shape().elements().min(8)]);
    }
    Ok(())
}
