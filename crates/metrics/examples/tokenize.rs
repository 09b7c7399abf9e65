//! Prints the tokens of each line of standard input, separated by blanks: a line for each line.
//!
//! `cargo run --release -p pheye-metrics --example tokenize < captions.txt`; with `--kept`, without punctuation.

use std::io::{Read, Write, stdin, stdout};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    stdin().read_to_string(&mut text)?;
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    let kept = std::env::args().any(|argument| argument == "--kept");
    let mut out = String::new();
    for tokens in pheye_metrics::ptb::tokenize_all(&lines) {
        out += &if kept { pheye_metrics::ptb::kept(&tokens) } else { tokens.join(" ") };
        out.push('\n');
    }
    stdout().write_all(out.as_bytes())?;
    Ok(())
}
