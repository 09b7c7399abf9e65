//! `pheye score`: the scores of golden captions and answers, and what it refuses.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{ends, refuses, s, top};
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    top().join("crates/metrics/tests/data").join(name)
}

#[test]
fn captions_are_scored_as_pycocoevalcap_does() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("each.jsonl");
    let (references, predictions) = (golden("references.json"), golden("predictions.json"));
    let files = ["--references", s(&references), "--predictions", s(&predictions)];
    let said =
        ends(0, [&["score", "--metric", "caption", "--json", "--per-item", s(&out)], &files[..]].concat());
    let scores: Value = serde_json::from_str(&said.out).unwrap();
    let expected: Value =
        serde_json::from_str(&fs::read_to_string(golden("expected.json")).unwrap()).unwrap();
    let near = |have: &Value, want: &Value| (have.as_f64().unwrap() - want.as_f64().unwrap()).abs() < 1e-9;
    for name in ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"] {
        assert!(near(&scores[name], &expected["corpus"][name]), "{name}");
    }
    assert!(scores.get("METEOR").is_none());
    let each = fs::read_to_string(out).unwrap();
    assert_eq!(each.lines().count(), 160);
    let first: Value = serde_json::from_str(each.lines().nth(1).unwrap()).unwrap();
    assert!(near(&first["CIDEr"], &expected["per_image"][1]["CIDEr"]));
    let shown = ends(0, [&["score", "--metric", "caption"], &files[..]].concat());
    assert!(shown.out.contains("METEOR   not computed"), "{shown:#?}");
    // Two golden captions have no tokens, which is reported.
    assert!(shown.err.contains("2 captions without tokens, of the images: 1000, 1086"), "{shown:#?}");
}

#[test]
fn accuracies_are_printed_by_type_and_bad_results_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (references, predictions) = (dir.path().join("a.json"), dir.path().join("b.json"));
    let answers = vec![json!({"answer": "red"}); 10];
    let row = |id: u32, kind: &str| json!({"question_id": id, "question_type": "what", "answer_type": kind, "answers": answers});
    fs::write(&references, json!({"annotations": [row(1, "other"), row(2, "yes/no")]}).to_string()).unwrap();
    fs::write(&predictions, r#"[{"question_id":1,"answer":"red"},{"question_id":2,"answer":""}]"#).unwrap();
    let args = ["score", "--metric", "vqa", "--references", s(&references), "--predictions", s(&predictions)];
    let said = ends(0, [&args[..], &["--json"]].concat());
    let want = json!({"accuracy": 50.0, "answer_types": {"other": 100.0, "yes/no": 0.0}, "question_types": {"what": 50.0}, "questions": 2});
    assert_eq!(serde_json::from_str::<Value>(&said.out).unwrap(), want);
    assert!(said.err.contains("b.json: 1 answers are empty, to the questions: 2"), "{said:#?}");
    assert!(ends(0, args).out.starts_with("50.00 % over 2 questions\n  100.00 %  other\n"));
    refuses([&args[..], &["--meteor", "x.jar"]].concat(), &["--meteor goes with --metric caption"]);
    fs::write(&predictions, r#"[{"question_id":1,"answer":"red"}]"#).unwrap();
    refuses(args, &["b.json: 1 results are missing, for ids of the references: 2"]);
}
