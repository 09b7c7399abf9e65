//! `tokenizer.json`: any bytes, or for an input that starts with a key, parts put over a small sound tokenizer, so that
//! all of an input can be steps of a normalizer or decoder. Texts to ids and back, at once and one by one.
//!
//! libFuzzer aborts in the hook that it sets for panics. The reader's own hook, set behind it, keeps the panics that the
//! reader makes errors from that hook, and passes the others on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pheye_text::Tokenizer;

/// Two keys are open behind it: the input closes the text.
const SOUND: &str = r###"{"version":"1.0","added_tokens":[{"id":0,"content":"<|endoftext|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"model":{"type":"BPE","unk_token":null,"byte_fallback":true,"vocab":{"<|endoftext|>":0,"a":1,"b":2,"ab":3,"Ġ":4,"▁":5,"##a":6,"<0xC3>":7,"<0xA9>":8,"Ã":9,"©":10," ":11},"merges":[["a","b"]]},"###;

fuzz_target!(|data: &[u8]| {
    // A file may be large; what it may make of a byte is what is looked for.
    if data.len() > 1 << 16 {
        return;
    }
    let whole;
    let data = match data.starts_with(b"\"") {
        true => {
            whole = [SOUND.as_bytes(), data].concat();
            &whole
        }
        false => data,
    };
    let tokenizer = match Tokenizer::from_bytes(data, None) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return assert!(error.to_string().starts_with("tokenizer.json: ")),
    };
    let mut sequences: Vec<Vec<u32>> = vec![(0..tokenizer.vocab_size().min(300) as u32 + 1).collect()];
    for text in ["what is a b?", "aaaaaaaaaaaaaaaa ab", "é ﷺ 日本 😀\r\n\t", "<|endoftext|> a"] {
        sequences.extend(tokenizer.encode_within(text, 64));
    }
    for ids in sequences {
        compare(&tokenizer, &ids);
    }
});

/// A stream gives what decoding gives, or both fail.
fn compare(tokenizer: &Tokenizer, ids: &[u32]) {
    let whole = tokenizer.decode(ids);
    let mut stream = tokenizer.stream();
    let pieces: Result<Vec<_>, _> = ids.iter().map(|&id| stream.push(id)).collect();
    let streamed = pieces.and_then(|pieces| {
        let rest = stream.finish()?;
        Ok(pieces.into_iter().chain([rest]).flatten().collect::<String>())
    });
    match (whole, streamed) {
        (Ok(whole), Ok(streamed)) => assert_eq!(whole, streamed),
        (whole, streamed) => assert!(whole.is_err() && streamed.is_err(), "{whole:?} {streamed:?}"),
    }
}
