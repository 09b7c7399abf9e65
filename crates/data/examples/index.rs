//! Indexes a published conversation file and reads some of its rows, with the time and the memory that takes.
//!
//! ```text
//! cargo run --release -p pheye-data --example index -- share-captioner.json 1500
//! ```
//!
//! If the file does not exist, one of so many megabytes is written first, of rows as long as ShareGPT4V's.
#![allow(clippy::print_stdout)]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use pheye_data::{Content, Format, Mixture, Source, SourceConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, rest @ ..] = arguments.as_slice() else { return Err("usage: index FILE [MEGABYTES]".into()) };
    let file = Path::new(file);
    if !file.exists() {
        write(file, rest.first().map_or(Ok(1500), |text| text.parse())? << 20)?;
    }
    let config = SourceConfig::new(Format::Conversation, file);
    let indices = tempfile::tempdir()?;
    let megabytes = file.metadata()?.len() as f64 / 1e6;
    for how in ["indexed", "loaded from the index"] {
        let began = Instant::now();
        let source = Source::open(&config, Some(indices.path()))?;
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{how}: {} items, {megabytes:.0} MB in {seconds:.2} s ({:.0} MB/s)",
            source.len(),
            megabytes / seconds
        );
    }
    let mixture =
        Mixture::new(vec![Source::open(&config, Some(indices.path()))?], None, Content::Questions, 0)?;
    let (began, rows) = (Instant::now(), mixture.epoch_len().min(100_000));
    for position in 0..rows {
        mixture.item(&mixture.draw(position))?;
    }
    println!("{rows} rows in a random order: {:.0} a second", rows as f64 / began.elapsed().as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("peak memory {line}"));
    Ok(())
}

/// Writes an array of about `bytes` bytes.
fn write(path: &Path, bytes: u64) -> std::io::Result<()> {
    let words = [
        "a",
        "wooden",
        "table",
        "stands",
        "near \\\"the\\\" window",
        "with",
        "blue",
        "flowers",
        "and",
        "light.\\n",
    ];
    let mut out = BufWriter::new(File::create(path)?);
    let (mut written, mut row) = (1, 0usize);
    write!(out, "[")?;
    while written < bytes {
        let comma = if row == 0 { "" } else { ", " };
        let text: Vec<&str> = (0..180).map(|i| words[(i * i + row * 7) % words.len()]).collect();
        let text = format!(
            "{comma}{{\"id\": \"{row:012}\", \"image\": \"sam/images/sa_{row}.jpg\", \"conversations\": [{{\"from\": \
             \"human\", \"value\": \"<image>\\nDescribe it.\"}}, {{\"from\": \"gpt\", \"value\": \"{}\"}}]}}",
            text.join(" ")
        );
        out.write_all(text.as_bytes())?;
        (written, row) = (written + text.len() as u64, row + 1);
    }
    writeln!(out, "]")?;
    out.flush()
}
