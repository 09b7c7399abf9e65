//! For every kind of decoder, a stream gives the same text as decoding all ids at once, and revokes nothing.

use std::fs;
use std::path::Path;

use pheye_text::Tokenizer;
use serde_json::{Value, json};

fn data(name: &str) -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    Tokenizer::from_bytes(&fs::read(path).unwrap(), None).unwrap()
}

/// The streamed pieces of `ids` and the rest at the end, or the first error.
fn streamed(t: &Tokenizer, ids: &[u32]) -> pheye_text::Result<(Vec<String>, Option<String>)> {
    let mut stream = t.stream();
    let pieces = ids.iter().map(|&id| stream.push(id)).collect::<pheye_text::Result<Vec<_>>>()?;
    Ok((pieces.into_iter().flatten().collect(), stream.finish()?))
}

fn agrees(t: &Tokenizer, ids: &[u32], what: &str) {
    let pieces: Vec<String> = ids.iter().filter_map(|&id| t.piece(id)).collect();
    match (streamed(t, ids), t.decode(ids)) {
        (Ok((parts, rest)), Ok(text)) => {
            let all: String = parts.into_iter().chain(rest).collect();
            assert_eq!(all, text, "{what}: {pieces:?}");
        }
        // If a decoder fails, both ways must fail.
        (Err(a), Err(b)) => assert!(!a.to_string().is_empty() && !b.to_string().is_empty()),
        (stream, text) => panic!("{what}: {pieces:?}: {stream:?} and {text:?}"),
    }
}

/// A pseudo-random number below `n`.
fn random(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as usize % n
}

fn random_ids_agree(t: &Tokenizer, rounds: usize, what: &str) {
    let mut state = 1;
    for _ in 0..rounds {
        let length = random(&mut state, 24);
        let ids: Vec<u32> = (0..length).map(|_| random(&mut state, t.vocab_size() + 1) as u32).collect();
        agrees(t, &ids, what);
    }
}

#[test]
fn characters_in_byte_tokens_come_whole() {
    let t = data("bytefallback.json");
    for text in ["it is 😀 日本", "é", "日本語 is 😀😀!", "a\u{fffd}b", "  two"] {
        let ids = t.encode(text).unwrap();
        assert_eq!(t.decode(&ids).unwrap(), text);
        let (parts, rest) = streamed(&t, &ids).unwrap();
        assert_eq!(parts.concat() + &rest.unwrap_or_default(), text);
        assert!(text.contains('\u{fffd}') || !parts.concat().contains('\u{fffd}'), "{parts:?}");
    }
    // Text before and after the byte tokens is not held back.
    let ids = t.encode("it is 😀 so").unwrap();
    let (parts, rest) = streamed(&t, &ids).unwrap();
    assert!(parts.len() > 5 && parts.contains(&"😀 ".to_owned()), "{parts:?}");
    assert_eq!(rest, None);
    // Valid bytes become U+FFFD if a byte after them is invalid.
    let spelled = |pieces: &[&str]| -> Vec<u32> {
        let id = |piece: &&str| (0..t.vocab_size() as u32).find(|&id| t.piece(id).as_deref() == Some(*piece));
        pieces.iter().map(|piece| id(piece).unwrap()).collect()
    };
    let ids = spelled(&["i", "<0xC3>", "<0xA9>", "<0xC3>", "t"]);
    assert_eq!(streamed(&t, &ids).unwrap().0, ["i", "\u{fffd}\u{fffd}\u{fffd}t"]);
    assert_eq!(streamed(&t, &ids[..4]).unwrap().1.unwrap(), "\u{fffd}\u{fffd}\u{fffd}");
    assert_eq!(streamed(&t, &ids[..3]).unwrap().1.unwrap(), "é");
}

#[test]
fn whole_tokenizers_stream_to_their_decoding() {
    random_ids_agree(&data("tokenizer.json"), 300, "byte-level");
    random_ids_agree(&data("bytefallback.json"), 300, "byte fallback");
}

const PIECES: [&str; 40] = [
    "<|endoftext|>",
    "<unk>",
    "a",
    "b",
    "ab",
    "▁",
    "▁a",
    "▁▁b",
    "a▁",
    "##a",
    "##b",
    "##",
    "<0x41>",
    "<0xC3>",
    "<0xA9>",
    "<0xF0>",
    "<0x9F>",
    "<0x98>",
    "<0x80>",
    "<0x+1>",
    "<0x",
    "<pad>",
    "|",
    "x</w>",
    "</w>",
    "</w>y",
    ".",
    " .",
    "'",
    "n't",
    " do not",
    "é",
    "日",
    "Ġ",
    "Ã",
    "©",
    "\u{fffd}",
    " ",
    "  ",
    "ðŁ",
];

/// A tokenizer with various kinds of words and `decoder`.
fn with(decoder: &Value) -> Tokenizer {
    let vocab: serde_json::Map<String, Value> =
        PIECES.iter().enumerate().map(|(id, piece)| ((*piece).to_owned(), id.into())).collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "post_processor": null, "decoder": decoder,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    });
    Tokenizer::from_bytes(file.to_string().as_bytes(), None).unwrap()
}

/// Every kind of decoder in the format.
fn decoders() -> Vec<Value> {
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme});
    let strip =
        |start: usize, stop: usize| json!({"type": "Strip", "content": " ", "start": start, "stop": stop});
    let replace =
        |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    vec![
        json!(null),
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        json!({"type": "BPEDecoder", "suffix": ""}),
        json!({"type": "ByteFallback"}),
        metaspace("always"),
        metaspace("never"),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "WordPiece", "prefix": "", "cleanup": false}),
        json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true}),
        json!({"type": "Fuse"}),
        strip(1, 0),
        strip(0, 1),
        replace(json!({"String": "▁"}), " "),
        replace(json!({"Regex": "^a|b$"}), "cc"),
        replace(json!({"Regex": ""}), "-"),
    ]
}

#[test]
fn every_decoder_streams_to_its_decoding() {
    for decoder in decoders() {
        random_ids_agree(&with(&decoder), 200, &decoder.to_string());
    }
}

#[test]
fn every_two_decoders_in_a_row_stream_to_their_decoding() {
    let all: Vec<Value> = decoders().into_iter().filter(|decoder| !decoder.is_null()).collect();
    for first in &all {
        for second in &all {
            let decoder = json!({"type": "Sequence", "decoders": [first, second]});
            random_ids_agree(&with(&decoder), 30, &decoder.to_string());
        }
    }
}

#[test]
fn decoders_of_published_tokenizers_stream_as_they_go() {
    let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let strip =
        |start: usize, stop: usize| json!({"type": "Strip", "content": " ", "start": start, "stop": stop});
    let (bytes, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
    for steps in [
        json!([replace, bytes, fuse, strip(1, 0)]),
        json!([replace, bytes, fuse]),
        json!([replace, bytes, fuse, strip(1, 2), strip(1, 1)]),
        json!([{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}, strip(2, 2)]),
        json!([bytes, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}]),
    ] {
        let decoder = json!({"type": "Sequence", "decoders": steps});
        let t = with(&decoder);
        random_ids_agree(&t, 300, &decoder.to_string());
        // Letters are never held back.
        let (parts, rest) = streamed(&t, &[2, 3, 2, 4]).unwrap();
        assert_eq!((parts, rest), (["a", "b", "a", "ab"].map(str::to_owned).to_vec(), None), "{decoder}");
    }
}

#[test]
fn a_token_that_is_left_out_changes_nothing_of_the_next() {
    let t = with(&json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}));
    // The ids of `a`, the end token, `▁a`, and an unknown id.
    let ids = [2, 0, 6, 999];
    assert_eq!(t.decode(&ids).unwrap(), "a a");
    assert_eq!(streamed(&t, &ids).unwrap(), (vec!["a".to_owned(), " a".to_owned()], None));
}
