//! Prints the ids and tokens of the prompt for an instruction:
//! `cargo run -p pheye-text --example tokens -- path/to/tokenizer.json "What is this?"`
#![allow(clippy::print_stdout, clippy::print_stderr)]

use pheye_text::{PromptTemplate, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(instruction)) = (args.next(), args.next()) else {
        return Err("usage: tokens TOKENIZER INSTRUCTION".into());
    };
    let tokenizer = Tokenizer::from_file(path, None)?;
    let prompt = PromptTemplate::default().render(&instruction)?;
    for id in tokenizer.encode(&prompt)? {
        println!("{id:6}  {}", tokenizer.piece(id).unwrap_or_default());
    }
    println!("answers end with {}", tokenizer.end_token());
    Ok(())
}
