//! Continues a prompt with a published GPT-2: the most likely tokens, or sampled ones if a temperature is given.
//! `cargo run -p pheye-gpt2 --example generate -- FOLDER PROMPT [TEMPERATURE]`
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;

use pheye_gpt2::{Gpt2, Layout};
use pheye_ops::Cx;
use pheye_ops::sampling::{self, Sampling};
use pheye_tensor::DType;
use pheye_text::Tokenizer;

/// The maximum number of new tokens.
const NEW: usize = 40;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (folder, prompt, temperature) = match &args[..] {
        [folder, prompt] => (folder, prompt, 0.0),
        [folder, prompt, temperature] => (folder, prompt, temperature.parse()?),
        _ => return Err("usage: generate FOLDER PROMPT [TEMPERATURE]".into()),
    };
    println!("{}", generate(folder, prompt, temperature)?);
    Ok(())
}

/// The prompt and its continuation.
pub(crate) fn generate(folder: &str, prompt: &str, temperature: f32) -> Result<String, Box<dyn Error>> {
    let (cx, gpt2, tokenizer) =
        (Cx::cpu(), Gpt2::load(folder, DType::F32)?, Tokenizer::from_file(folder, None)?);
    let mut ids = tokenizer.encode(prompt)?;
    let most = gpt2.config.n_positions.min(ids.len() + NEW);
    let (mut caches, mut past) = (gpt2.caches(&cx, 1, most)?, 0);
    while ids.len() < most && ids.last() != Some(&tokenizer.end_token()) {
        let layout = Layout::cached(&[past], &[ids.len() - past], most);
        let logits = cx.install(|| gpt2.next_logits(&cx, &ids[past..], &layout, Some(&mut caches)))?;
        past = ids.len();
        ids.extend(sampling::forward(
            &cx,
            &logits,
            &Sampling { temperature, ..Sampling::default() },
            &[past as u64],
        )?);
    }
    Ok(tokenizer.decode(&ids)?)
}
