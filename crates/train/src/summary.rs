//! The values of TensorBoard summaries as protocol buffers: scalars, images and text.
//!
//! A `Summary` (`tensorflow/core/framework/summary.proto`) has the field `repeated Value value = 1`. A `Value`
//! has the fields `string tag = 1`, and one of `float simple_value = 2`, `Image image = 4` and
//! `TensorProto tensor = 8`, with `SummaryMetadata metadata = 9`. An `Image` has `height = 1`, `width = 2`,
//! `colorspace = 3` and `bytes encoded_image_string = 4`. A `TensorProto` (`tensor.proto`) has
//! `DataType dtype = 1`, `TensorShapeProto tensor_shape = 2` and `repeated bytes string_val = 8`. A
//! `SummaryMetadata` has `PluginData plugin_data = 1`, with `string plugin_name = 1`, and
//! `string summary_description = 3`.

use crate::Answered;

/// A number as a field of a summary.
pub(crate) fn scalar(tag: &str, number: f64) -> Vec<u8> {
    let mut value = Vec::new();
    bytes(&mut value, 1, tag.as_bytes());
    key(&mut value, 2, 5);
    value.extend((number as f32).to_le_bytes());
    field(&value)
}

/// The image of an answered question, whose description is the question with its correct answer. The answer is
/// in [`table`], because TensorBoard keeps one description for all steps.
pub(crate) fn image(index: usize, answered: &Answered) -> Vec<u8> {
    const RGB: u64 = 3;
    let mut image = Vec::new();
    for (number, value) in [(1, answered.height as u64), (2, answered.width as u64), (3, RGB)] {
        key(&mut image, number, 0);
        varint(&mut image, value);
    }
    bytes(&mut image, 4, &answered.png);
    let mut value = Vec::new();
    bytes(&mut value, 1, format!("answers/{}", index + 1).as_bytes());
    bytes(&mut value, 4, &image);
    let (mut plugin, mut metadata) = (Vec::new(), Vec::new());
    bytes(&mut plugin, 1, b"images");
    bytes(&mut metadata, 1, &plugin);
    let description = format!("{} → {}", cell(&answered.question), cell(&answered.expected));
    bytes(&mut metadata, 3, description.as_bytes());
    bytes(&mut value, 9, &metadata);
    field(&value)
}

/// A Markdown table of answered questions, for TensorBoard's text dashboard.
pub(crate) fn table(shown: &[Answered]) -> Vec<u8> {
    const STRING: u64 = 7;
    let mut text = "| image | question | answer | expected | |\n|---|---|---|---|---|\n".to_owned();
    for (i, a) in shown.iter().enumerate() {
        let mark = if a.answer == a.expected { "right" } else { "wrong" };
        let [question, answer, expected] = [&a.question, &a.answer, &a.expected].map(|text| cell(text));
        text += &format!("| {} | {question} | {answer} | {expected} | {mark} |\n", i + 1);
    }
    // A shape of one dimension of size 1.
    let (mut size, mut shape, mut tensor) = (Vec::new(), Vec::new(), Vec::new());
    key(&mut size, 1, 0);
    varint(&mut size, 1);
    bytes(&mut shape, 2, &size);
    key(&mut tensor, 1, 0);
    varint(&mut tensor, STRING);
    bytes(&mut tensor, 2, &shape);
    bytes(&mut tensor, 8, text.as_bytes());
    let (mut plugin, mut metadata, mut value) = (Vec::new(), Vec::new(), Vec::new());
    bytes(&mut plugin, 1, b"text");
    bytes(&mut metadata, 1, &plugin);
    bytes(&mut value, 1, b"answers/text_summary");
    bytes(&mut value, 8, &tensor);
    bytes(&mut value, 9, &metadata);
    field(&value)
}

/// Text from a data set as one cell of a Markdown table.
fn cell(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;");
    escaped.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A `Value` as a field of a `Summary`.
fn field(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, 1, value);
    out
}

/// Encodes the number and wire type of a field: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
pub(crate) fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

/// Encodes a length-delimited field.
pub(crate) fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// Encodes an integer in groups of seven bits, the lowest first.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
