//! Times the scorers on invented captions, and the similarity of short texts: `cargo run --release -p pheye-metrics --example speed`.
//!
//! `-- N` sets the number of captions (40,000 by default), each with five references. `-- N FILE` also writes
//! their tokens and the pairs as JSON, on which `tests/peer.py` times pycocoevalcap and difflib.

use std::io::{Write, stdout};
use std::time::Instant;

use pheye_metrics::caption::{Tokenized, bleu, cider_d, rouge_l};
use pheye_metrics::difflib::ratio;
use pheye_metrics::ptb::{kept, tokenize_all};

const WORDS: [&str; 24] = [
    "a", "man", "woman", "dog", "the", "on", "in", "of", "street", "red", "table", "with", "holding",
    "plate", "two", "people", "sitting", "next", "to", "bench", "large", "white", "is", "isn't",
];

/// Captions of 8 to 15 words, most of them frequent.
fn caption(state: &mut u64) -> String {
    let mut next = |n: u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % n
    };
    let words = 8 + next(8);
    let word = |next: &mut dyn FnMut(u64) -> u64| match next(4) {
        0 => format!("noun{}", next(3000)),
        _ => WORDS[next(WORDS.len() as u64) as usize].to_owned(),
    };
    let text: Vec<String> = (0..words).map(|_| word(&mut next)).collect();
    text.join(" ") + "."
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    // Standard output may be closed.
    let _ = writeln!(stdout(), "{what:<12} {:.2} s", start.elapsed().as_secs_f64());
    result
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let captions = arguments.next().map_or(Ok(40_000), |n| n.parse())?;
    let mut state = 1;
    let texts: Vec<String> = (0..6 * captions).map(|_| caption(&mut state)).collect();
    let tokens = timed("tokens", || tokenize_all(&texts));
    let kept: Vec<String> = tokens.iter().map(|tokens| kept(tokens)).collect();
    let item = |texts: &[String]| Tokenized { caption: texts[0].clone(), references: texts[1..].to_vec() };
    let items: Vec<Tokenized> = kept.chunks(6).map(item).collect();
    let scores = [
        timed("BLEU", || bleu(&items)[3].corpus),
        timed("ROUGE-L", || rouge_l(&items).corpus),
        timed("CIDEr", || cider_d(&items).corpus),
    ];
    let _ = writeln!(stdout(), "BLEU-4, ROUGE-L, CIDEr: {scores:?}");
    // An OCR token or the name of an object with an answer, as for relative sizes: all but short words are rare.
    let words = |text: &String| text.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let pairs: Vec<(String, String)> = texts.chunks(2).map(|two| (words(&two[0]), words(&two[1]))).collect();
    let sum = timed("difflib", || pairs.iter().map(|(a, b)| ratio(a, b)).sum::<f64>());
    let _ = writeln!(stdout(), "difflib's ratio of {} pairs: sum {sum:?}", pairs.len());
    if let Some(path) = arguments.next() {
        let rows: Vec<_> = items.iter().map(|item| (&item.caption, &item.references)).collect();
        let data = serde_json::json!({"captions": rows, "pairs": pairs});
        std::fs::write(path, data.to_string())?;
    }
    Ok(())
}
