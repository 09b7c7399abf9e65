//! Answers in the form in which a benchmark takes results, for its evaluation code or its server.

use serde_json::{Value, json};

use super::{Form, Prediction};

/// The results of a benchmark whose files have the form `form`, as one JSON value.
///
/// | form | results |
/// |---|---|
/// | VQAv2, OK-VQA, TextVQA, OCR-VQA, manifests | `[{"question_id", "answer"}]` |
/// | A-OKVQA | `{ID: {"direct_answer"}}` |
/// | GQA | `[{"questionId", "prediction"}]` |
/// | COCO, NoCaps, TextCaps, DOCCI | `[{"image_id", "caption"}]` |
pub fn results(form: Form, predictions: &[Prediction]) -> Value {
    let each = |row: fn(&Prediction) -> Value| Value::Array(predictions.iter().map(row).collect());
    match form {
        Form::Vqa | Form::TextVqa | Form::OcrVqa | Form::Manifest => {
            each(|p| json!({"question_id": p.id, "answer": p.answer}))
        }
        Form::AOkVqa => {
            let entry = |p: &Prediction| (p.id.to_string(), json!({"direct_answer": p.answer}));
            Value::Object(predictions.iter().map(entry).collect())
        }
        Form::Gqa => each(|p| json!({"questionId": p.id, "prediction": p.answer})),
        Form::Coco | Form::TextCaps | Form::Docci => each(|p| json!({"image_id": p.id, "caption": p.answer})),
    }
}
