//! The rows that the scanner finds are the values that serde_json reads from the whole file, however the file
//! is cut into pieces.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// All rows of `text`, parsed, or why it is refused.
fn rows(text: &[u8], layout: Layout, piece: usize) -> Result<Vec<Value>, String> {
    let (mut scanner, mut found) = (Scanner::new(text, layout, piece), Vec::new());
    while let Some(block) = scanner.block().map_err(|broken| format!("{broken:?}"))? {
        for row in block.rows {
            assert_eq!(row.number as usize, found.len() + 1);
            let bytes = &block.bytes[row.range.clone()];
            let at = block.offset as usize + row.range.start;
            assert_eq!(&text[at..at + bytes.len()], bytes);
            let bytes = if layout.members() { [b"{", bytes, b"}"].concat() } else { bytes.to_vec() };
            found.push(serde_json::from_slice(&bytes).map_err(|e| e.to_string())?);
        }
    }
    assert_eq!(scanner.print(), (text.len() as u64, crc32fast::hash(text)));
    Ok(found)
}

fn value() -> impl Strategy<Value = Value> {
    let text = "[a-z\"\\\\\\[\\]{},:\u{e9}\u{1f44d}\n]{0,12}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text, inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_array_in_any_pieces(values in prop::collection::vec(value(), 0..9), piece in 1usize..64, pretty: bool) {
        let array = Value::from(values.clone());
        let text = if pretty { format!("{array:#}\n") } else { array.to_string() };
        prop_assert_eq!(rows(text.as_bytes(), Layout::Array, piece).unwrap(), values.clone());
        let outer = json!({"info": {"data": [1, "]"]}, "data": values, "z": [[]]});
        let text = if pretty { format!("\u{feff}{outer:#}") } else { outer.to_string() };
        prop_assert_eq!(rows(text.as_bytes(), Layout::ArrayIn("data"), piece).unwrap(), values);
    }

    #[test]
    fn any_object_in_any_pieces(map in prop::collection::btree_map(".{0,5}", value(), 0..9), piece in 1usize..64) {
        let map: Map<String, Value> = map.into_iter().collect();
        let members: Vec<_> = map.iter().map(|(k, v)| json!({k.as_str(): v})).collect();
        let text = Value::from(map).to_string();
        prop_assert_eq!(rows(text.as_bytes(), Layout::Object, piece).unwrap(), members.clone());
        let text = format!("{{\"meta\": \"\\\"{{\", \"data\": {text}}}");
        prop_assert_eq!(rows(text.as_bytes(), Layout::ObjectIn("data"), piece).unwrap(), members);
    }

    /// A text with one other byte, or cut short, is refused exactly if serde_json refuses it.
    #[test]
    fn what_is_no_array_is_refused(
        values in prop::collection::vec(value(), 0..5),
        at: prop::sample::Index,
        byte in prop::sample::select(b"[]{},:\"\\ 1a\n".to_vec()),
        cut: bool,
        piece in 1usize..64,
    ) {
        let mut text = Value::from(values).to_string().into_bytes();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = byte }
        let whole: Option<Vec<Value>> = serde_json::from_slice(&text).ok();
        prop_assert_eq!(rows(&text, Layout::Array, piece).ok(), whole);
    }
}

fn refused(text: &str, layout: Layout) -> (u32, u64, String) {
    let mut scanner = Scanner::new(text.as_bytes(), layout, 7);
    loop {
        match scanner.block() {
            Ok(Some(_)) => {}
            Err(Broken::Form { row, byte, message }) => return (row, byte, message),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, layout, row, byte, message) in [
        ("", Layout::Array, 0, 0, "it is empty"),
        ("{\"a\": 1}", Layout::Array, 0, 0, "here is `{` instead of `[`, because the file is an array"),
        ("[1, 2", Layout::Array, 2, 5, "the file ends here, before its last bracket: it is not complete"),
        ("[1 2]", Layout::Array, 1, 3, "here is `2` instead of `,` or `]`"),
        ("[[1}]", Layout::Array, 1, 1, "`}` closes no bracket"),
        ("[1] 2", Layout::Array, 1, 4, "here is `2` instead of the end of the file"),
        ("{\"a\": 1}", Layout::ArrayIn("data"), 0, 7, "the object has no `data`"),
        (
            "{\"data\": {}}",
            Layout::ArrayIn("data"),
            0,
            9,
            "here is `{` instead of `[`, because `data` is an array",
        ),
        ("{\"data\": [1], \"data\": [2]}", Layout::ArrayIn("data"), 1, 20, "`data` is there twice"),
        ("{1: 2}", Layout::Object, 0, 1, "here is `1` instead of the next key"),
        (
            "version https://git-lfs",
            Layout::Array,
            0,
            0,
            "here is `v` instead of `[`, because the file is an array",
        ),
    ] {
        assert_eq!(refused(text, layout), (row, byte, message.to_string()), "{text}");
    }
    let deep = format!("[{}", "[".repeat(200));
    assert_eq!(refused(&deep, Layout::Array).2, "brackets are nested more than 127 deep");
    let long = format!("[\"{}\"]", "x".repeat(ROW_LIMIT + 9));
    let mut scanner = Scanner::new(long.as_bytes(), Layout::Array, 1 << 20);
    let Err(Broken::Form { row: 1, message, .. }) = scanner.block() else { panic!() };
    assert_eq!(message, "longer than the limit of 16777216 bytes");
}

/// The memory of a scan is that of a block, even of one value without rows that has no end.
#[test]
fn memory_is_bounded() {
    let rows = (0..20_000).map(|i| format!("{{\"row\": {i}}}")).collect::<Vec<_>>().join(",");
    let text = format!("{{\"skip\": [{rows}], \"data\": [{rows}]}}");
    let mut scanner = Scanner::new(text.as_bytes(), Layout::ArrayIn("data"), 1000);
    let (mut found, mut most) = (0, 0);
    while let Some(block) = scanner.block().unwrap() {
        found += block.rows.len();
        most = most.max(block.bytes.len());
    }
    assert_eq!(found, 20_000);
    assert!(most < 3000 && scanner.buffer.capacity() < 8000, "{most} {}", scanner.buffer.capacity());
}
