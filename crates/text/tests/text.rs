//! `data/tokenizer.json` is a byte-level BPE of 300 tokens; the expected ids were computed with the Python
//! package.

use std::fs;
use std::path::{Path, PathBuf};

use pheye_text::{Error, PromptTemplate, Tokenizer};

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer.json")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(file(), None).unwrap()
}

const PROMPT: [u32; 25] = [
    41, 287, 26, 296, 72, 290, 275, 79, 76, 79, 82, 280, 265, 264, 72, 65, 80, 69, 31, 199, 47, 293, 80, 293,
    26,
];

#[test]
fn ids_are_those_of_python() {
    let t = tokenizer();
    assert_eq!(t.encode("Instruction: what color is the shape?\nOutput:").unwrap(), PROMPT);
    assert_eq!(t.encode(" red").unwrap(), [277, 68]);
    let mixed = "naïve “quotes” 日本 🦀\n";
    let ids = [
        78, 65, 128, 108, 86, 69, 221, 159, 223, 251, 81, 85, 79, 84, 69, 83, 159, 223, 252, 221, 163, 246,
        99, 163, 251, 106, 221, 173, 254, 100, 223, 199,
    ];
    assert_eq!(t.encode(mixed).unwrap(), ids);
    assert_eq!(t.decode(&ids).unwrap(), mixed);
    assert_eq!(t.encode("").unwrap(), [0; 0]);
    assert_eq!((t.end_token(), t.vocab_size()), (0, 300));
    assert_eq!(t.piece(277).unwrap(), "Ġre");
    assert_eq!(t.decode(&[0, 277, 68, 0]).unwrap(), " red");
}

#[test]
fn a_stream_gives_the_same_text_and_only_whole_characters() {
    let t = tokenizer();
    for text in ["naïve “quotes” 日本 🦀\n", "it is red", "🦀🦀日本語", "a\u{fffd}b", "\u{fffd}", "é"]
    {
        let mut stream = t.stream();
        let mut parts: Vec<String> = Vec::new();
        for id in t.encode(text).unwrap() {
            parts.extend(stream.push(id).unwrap());
        }
        if !text.contains('\u{fffd}') {
            assert!(parts.iter().all(|p| !p.contains('\u{fffd}')), "{parts:?}");
            assert_eq!(parts.concat(), text);
        }
        parts.extend(stream.finish().unwrap());
        assert_eq!(parts.concat(), text);
    }
    // An emoji cut short, followed by a letter, and a lone continuation byte at the end.
    let ids = [173, 254, 100, 65, 223];
    let mut stream = t.stream();
    let parts: Vec<_> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    let text = t.decode(&ids).unwrap();
    let last = stream.finish().unwrap();
    assert_eq!(parts.iter().flatten().chain(&last).cloned().collect::<String>(), text);
    assert_eq!((&parts[..3], last.as_deref()), (&[None, None, None][..], Some("\u{fffd}")));
    // The end token has no text.
    let mut stream = t.stream();
    assert_eq!(stream.push(277).unwrap().as_deref(), Some(" re"));
    assert_eq!(stream.push(t.end_token()).unwrap(), None);
    assert_eq!(stream.push(68).unwrap().as_deref(), Some("d"));
    assert_eq!(stream.finish().unwrap(), None);
}

#[test]
fn the_default_prompt_is_the_released_one() {
    let p = PromptTemplate::default();
    assert_eq!(
        p.render("Describe {this} {system}").unwrap(),
        "You are an AI visual assistant and you are seeing a single image. You will receive an instruction \
         regarding that image. Your goal is to follow the instruction as faithfully as you can.\n\n\
         Instruction: Describe {this} {system}\nOutput:"
    );
    assert!(matches!(p.render(" \n\t"), Err(Error::EmptyInstruction)));
    let without = PromptTemplate { template: "{system}".into(), ..p };
    assert!(matches!(without.render("x"), Err(Error::NoPlaceholder { template }) if template == "{system}"));
    assert!(without.render("x").unwrap_err().to_string().contains("{instruction}"));
}

#[test]
fn a_config_replaces_parts_of_the_prompt() {
    let p: PromptTemplate = serde_json::from_str(r#"{"template": "Q: {instruction}\nA:"}"#).unwrap();
    assert_eq!(p.render("why?").unwrap(), "Q: why?\nA:");
    assert_eq!(p.system, PromptTemplate::default().system);
    let back: PromptTemplate = serde_json::from_str(&serde_json::to_string(&p).unwrap()).unwrap();
    assert_eq!(back, p);
    assert!(serde_json::from_str::<PromptTemplate>(r#"{"templat": ""}"#).is_err());
}

#[test]
fn loss_is_taken_on_the_answer_and_the_end_token() {
    let t = tokenizer();
    let p = PromptTemplate { template: "Instruction: {instruction}\nOutput:".into(), ..Default::default() };
    let e = p.encode_example(&t, "what color is the shape?", "red", 128).unwrap();
    assert_eq!(e.loss_from, 25);
    assert_eq!(e.ids, [&PROMPT[..], &[277, 68, 0]].concat());
    assert_eq!(e.labels(), [&[-100; 25][..], &[277, 68, 0]].concat());
    assert_eq!(p.encode_prompt(&t, "what color is the shape?", 26).unwrap(), PROMPT);
    let long = p.encode_prompt(&t, "what color is the shape?", 25);
    assert!(matches!(long, Err(Error::TooLong { len: 25, context: 25 })));
    assert!(
        matches!(p.encode_example(&t, "why?", " ", 128), Err(Error::EmptyAnswer { instruction }) if instruction == "why?")
    );
}

#[test]
fn the_end_token_is_found() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(file(), folder.path().join("tokenizer.json")).unwrap();
    let with = |config: &str| {
        fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::from_file(folder.path(), None)
    };
    assert_eq!(with(r#"{"eos_token": "Ġre"}"#).unwrap().end_token(), 277);
    assert_eq!(with(r#"{"eos_token": {"content": "Ġre", "lstrip": false}}"#).unwrap().end_token(), 277);
    assert_eq!(with(r#"{"model_max_length": 2048}"#).unwrap().end_token(), 0);
    let e = with(r#"{"eos_token": "</s>"}"#).unwrap_err();
    assert!(e.to_string().contains("tokenizer.json: the vocabulary has no token `</s>`"), "{e}");
    assert!(matches!(with(r#"{"eos_token": 3}"#), Err(Error::Config { .. })));
    assert!(with("{").unwrap_err().to_string().contains("tokenizer_config.json: bad tokenizer config"));
    assert_eq!(Tokenizer::from_file(folder.path(), Some("d")).unwrap().end_token(), 68);
}

#[test]
fn faults_name_the_file_and_the_numbers() {
    let t = tokenizer();
    t.check_fits(300).unwrap();
    t.check_fits(51200).unwrap();
    let e = t.check_fits(299).unwrap_err();
    assert!(matches!(e, Error::Vocabulary { largest: 299, vocab: 299, .. }));
    assert!(
        e.to_string().contains("tokenizer.json: this tokenizer does not fit the model: its ids go up to 299")
    );
    let absent = Tokenizer::from_file("nowhere/tokenizer.json", None).unwrap_err();
    assert!(absent.to_string() == "nowhere/tokenizer.json: cannot be read", "{absent}");
    assert!(std::error::Error::source(&absent).is_some());
    for bad in [&b""[..], b"{}", b"not json", b"\xff\xfe"] {
        assert!(matches!(Tokenizer::from_bytes(bad, None), Err(Error::NotATokenizer { .. })));
    }
}

#[test]
fn settings_saved_with_a_tokenizer_do_not_cut_or_fill() {
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(file()).unwrap()).unwrap();
    json["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0
    });
    json["padding"] = serde_json::json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"
    });
    let t = Tokenizer::from_bytes(json.to_string().as_bytes(), None).unwrap();
    assert_eq!(t.encode("Instruction: what color is the shape?\nOutput:").unwrap(), PROMPT);
}
