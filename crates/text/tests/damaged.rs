//! Damaged and hostile files give an error that names the file; never a panic, nor unbounded memory or time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pheye_text::{Error, PromptTemplate, Tokenizer};
use serde_json::{Value, json};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn sound() -> Value {
    serde_json::from_slice(&fs::read(data("tokenizer.json")).unwrap()).unwrap()
}

/// A valid tokenizer with some of its parts replaced.
fn with(parts: Value) -> pheye_text::Result<Tokenizer> {
    let mut file = sound();
    for (name, part) in parts.as_object().unwrap() {
        file[name] = part.clone();
    }
    Tokenizer::from_bytes(file.to_string().as_bytes(), None)
}

/// The message with which a file is rejected.
fn refusal(parts: Value) -> String {
    match with(parts) {
        Err(e @ (Error::Refused { .. } | Error::NotATokenizer { .. })) => e.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Calls every function of a tokenizer; errors are allowed.
fn exercise(t: &Tokenizer) {
    for text in ["", "what color is the shape?", "é 日本 🦀\n", "aaaa<|endoftext|>"] {
        if let Ok(ids) = t.encode(text) {
            let mut stream = t.stream();
            let pieces: Result<Vec<_>, _> = ids.iter().map(|&id| stream.push(id)).collect();
            if let (Ok(pieces), Ok(rest), Ok(text)) = (pieces, stream.finish(), t.decode(&ids)) {
                assert_eq!(pieces.into_iter().flatten().chain(rest).collect::<String>(), text);
            }
        }
    }
}

#[test]
fn a_file_cut_off_anywhere_is_no_tokenizer() {
    let bytes = fs::read(data("tokenizer.json")).unwrap();
    let end = bytes.iter().rposition(|&b| b == b'}').unwrap();
    for cut in 0..end {
        let e = Tokenizer::from_bytes(&bytes[..cut], None).unwrap_err();
        assert!(matches!(e, Error::NotATokenizer { .. }), "{cut}: {e}");
        assert!(e.to_string().starts_with("tokenizer.json: "), "{e}");
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_another_tokenizer() {
    let bytes = fs::read(data("tokenizer.json")).unwrap();
    let mut damaged = bytes.clone();
    for at in (0..1200.min(bytes.len())).chain((1200..bytes.len()).step_by(97)) {
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            match Tokenizer::from_bytes(&damaged, None) {
                Ok(t) => exercise(&t),
                Err(e) => assert!(e.to_string().starts_with("tokenizer.json: "), "{e}"),
            }
            damaged[at] = bytes[at];
        }
    }
}

#[test]
fn where_the_library_panics_is_an_error() {
    let charsmap = |text: &str| json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": text}});
    for text in ["!!!", "", "BAAAAA==", "/////w==", "AAAA"] {
        let e = refusal(charsmap(text));
        assert!(e.contains("normalizer: precompiled_charsmap"), "{e}");
    }
    let e = refusal(json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}}));
    assert!(e.contains("pre_tokenizer: pieces of length 0"), "{e}");
    let mut model = sound()["model"].clone();
    model["continuing_subword_prefix"] = json!("0123456789abcdef");
    let e = refusal(json!({"model": model}));
    assert!(e.contains("tokenizer.json: not a tokenizer: the library that reads it panicked"), "{e}");
    let e = refusal(json!({"decoder": "x"}));
    assert!(e.starts_with("tokenizer.json: "), "{e}");
    // Some faults appear only with a text.
    let t =
        with(json!({"normalizer": {"type": "Replace", "pattern": {"Regex": ""}, "content": "x"}})).unwrap();
    let e = t.encode("what").unwrap_err();
    assert!(matches!(e, Error::Tokenize { .. }) && e.to_string().contains("tokenizer.json"), "{e}");
    let t = with(json!({"decoder": {"type": "Strip", "content": "d", "start": 0, "stop": 9}})).unwrap();
    let d = t.encode("d").unwrap();
    assert!(matches!(t.decode(&d), Err(Error::Tokenize { .. })));
    assert!(matches!(t.stream().push(d[0]), Err(Error::Tokenize { .. })));
}

#[test]
fn what_fuzzing_found() {
    for name in ["charsmap.json", "unigram.json"] {
        match Tokenizer::from_file(data(name), None) {
            Ok(t) => exercise(&t),
            Err(e) => assert!(e.to_string().contains(name), "{e}"),
        }
    }
}

#[test]
fn steps_that_multiply_a_text_are_refused() {
    let grows = |content: usize| json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(content)});
    let normalizers = |steps: Vec<Value>| json!({"normalizer": {"type": "Sequence", "normalizers": steps}});
    let e = refusal(normalizers(vec![grows(16); 9]));
    assert!(e.contains("normalizer: its steps may lengthen a text 68719476736 times"), "{e}");
    let nested = |_: usize| json!({"type": "Sequence", "normalizers": [grows(16), grows(16)]});
    assert!(refusal(normalizers((0..3).map(nested).collect())).contains("normalizer"));
    // A missing type is inferred from the keys.
    assert!(refusal(normalizers(vec![json!({"prepend": "a".repeat(200)}); 3])).contains("normalizer"));
    assert!(refusal(normalizers(vec![json!({"type": "NFKD"}); 5])).contains("normalizer"));
    assert!(refusal(normalizers(vec![json!({"type": "StripAccents"}); 65])).contains("66 steps"));
    let decoders = json!({"decoder": {"type": "Sequence", "decoders": [grows(16), grows(16)]}});
    assert!(refusal(decoders).contains("decoder: its steps may lengthen a text 256 times"));
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true});
    let e = refusal(json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": vec![bytes; 5]}}));
    assert!(e.contains("pre_tokenizer"), "{e}");
    // Two steps are within the limit, so the length of the normalized text decides.
    let t = with(normalizers(vec![grows(64), grows(64)])).unwrap();
    assert_eq!(t.encode_within("b", 128).unwrap(), [66]);
    let e = t.encode_within(&"a".repeat(64), 128).unwrap_err();
    assert!(matches!(e, Error::TextTooLong { .. }), "{e}");
}

#[test]
fn parts_beyond_any_real_tokenizer_are_refused() {
    let base = sound();
    let model = |key: &str, value: Value| {
        let mut model = base["model"].clone();
        model[key] = value;
        json!({ "model": model })
    };
    let vocab = |token: &str, id: u64| {
        let mut vocab = base["model"]["vocab"].clone();
        vocab[token] = id.into();
        model("vocab", vocab)
    };
    assert!(refusal(vocab("twice", 5)).contains("two tokens in vocab have the id 5"));
    assert!(refusal(vocab(&"x".repeat(2049), 300)).contains("bytes of a token in vocab: 2049"));
    assert!(refusal(model("end_of_word_suffix", "x".repeat(65).into())).contains("end_of_word_suffix"));
    assert!(refusal(model("max_input_chars_per_word", 100_000.into())).contains("max_input_chars_per_word"));
    assert!(refusal(model("more", "x".repeat(3 << 20).into())).contains("model"));
    assert!(refusal(json!({"post_processor": "x".repeat(3 << 20)})).contains("post_processor"));
    let pieces: Vec<_> = (0..3000).map(|i| json!([format!("{i}{}", "x".repeat(1500)), 0.0])).collect();
    let unigram = json!({"model": {"type": "Unigram", "unk_id": 0, "vocab": pieces}});
    assert!(refusal(unigram).contains("bytes of all tokens in vocab"));
    let mut added = base["added_tokens"].clone();
    let mut token = added[0].clone();
    token["content"] = "x".repeat(3000).into();
    added.as_array_mut().unwrap().push(token);
    assert!(refusal(json!({"added_tokens": added})).contains("added token"));
    // Parsers disagree on a duplicate key.
    let twice = base.to_string().replacen('{', r#"{"normalizer": null, "#, 1);
    assert!(Tokenizer::from_bytes(twice.as_bytes(), None).unwrap_err().to_string().contains("normalizer"));
}

#[test]
fn the_longest_pieces_of_a_unigram_model_are_dropped_without_a_fault() {
    let piece = |len: usize| json!([&"x".repeat(len), -1.0]);
    let vocab = json!([["<|endoftext|>", 0.0], piece(1), piece(2048)]);
    let t = with(json!({"pre_tokenizer": null, "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}}))
        .unwrap();
    assert_eq!(t.encode(&"x".repeat(2049)).unwrap().len(), 2);
}

#[test]
fn too_long_texts_are_refused_before_they_are_tokenized() {
    let t = with(json!({})).unwrap();
    let p = PromptTemplate::default();
    let begun = Instant::now();
    let long = "q ".repeat(5 << 20);
    for e in [
        p.encode_prompt(&t, &long, 128).unwrap_err(),
        p.encode_example(&t, "what?", &long, 128).unwrap_err(),
        t.encode_within(&"q ".repeat(9 << 10), 128).unwrap_err(),
    ] {
        assert!(matches!(e, Error::TextTooLong { tokens: 128, .. }), "{e}");
        assert!(e.to_string().contains("bytes") && e.to_string().contains("128 tokens"), "{e}");
    }
    assert!(matches!(t.encode(&long), Err(Error::TextTooLong { .. })));
    let many = PromptTemplate { template: "{instruction}".repeat(1000), ..p };
    assert!(matches!(many.render(&long), Err(Error::PromptTooLong { .. })));
    assert!(begun.elapsed().as_secs() < 5);
    // A slightly too long text is encoded; the caller checks the number of tokens.
    assert_eq!(t.encode_within(&"q ".repeat(1000), 128).unwrap().len(), 2000);
}

#[test]
fn files_that_are_none_and_files_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let fault = || {
        let e = Tokenizer::from_file(&path, None).unwrap_err();
        assert!(e.to_string().ends_with("tokenizer.json: cannot be read"), "{e}");
        std::error::Error::source(&e).unwrap().to_string()
    };
    fs::File::create(&path).unwrap().set_len(5 << 30).unwrap();
    assert!(fault().contains("larger than the limit"));
    #[cfg(unix)]
    {
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(fault().contains("a device"));
    }
    fs::remove_file(&path).unwrap();
    // A byte order mark is ignored.
    let marked = |from: &[u8]| [b"\xEF\xBB\xBF", from].concat();
    fs::write(&path, marked(&fs::read(data("tokenizer.json")).unwrap())).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), marked(b"{}")).unwrap();
    assert_eq!(Tokenizer::from_file(folder.path(), None).unwrap().vocab_size(), 300);
}

#[test]
fn the_same_text_has_the_same_ids() {
    let text = "Instruction: what color is the shape? what shape is in the image?";
    let expected = with(json!({})).unwrap().encode(text).unwrap();
    let mut model = sound()["model"].clone();
    model["dropout"] = json!(0.5);
    let t = with(json!({ "model": model })).unwrap();
    for _ in 0..20 {
        assert_eq!(t.encode(text).unwrap(), expected);
    }
    // The library does not read the sampling settings of unigram models.
    let vocab = json!([["<|endoftext|>", 0.0], ["a", -1.0], ["aa", -1.5], ["aaa", -2.0]]);
    let model = json!({"type": "Unigram", "unk_id": 0, "vocab": vocab, "nbest_size": 8, "alpha": 0.1});
    let t = with(json!({"pre_tokenizer": null, "model": model})).unwrap();
    let ids = t.encode("aaaaaaaaaaa").unwrap();
    assert!((0..20).all(|_| t.encode("aaaaaaaaaaa").unwrap() == ids));
}

#[test]
fn names_from_a_file_do_not_drive_a_terminal() {
    let e = Tokenizer::from_file(data("tokenizer.json"), Some("\u{1b}[31m\n")).unwrap_err().to_string();
    assert!(e.contains("`\\u{1b}[31m\\n`"), "{e}");
    let p = PromptTemplate::default();
    let e = p.encode_example(&with(json!({})).unwrap(), "\u{7}?", " ", 9).unwrap_err().to_string();
    assert!(!e.contains('\u{7}'), "{e}");
}
