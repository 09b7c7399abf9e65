//! What the readers accept, refuse and warn about.

use std::fs;
use std::path::PathBuf;

use pheye_metrics::caption::Tokenized;
use pheye_metrics::read::{Cover, Metric, captions, questions, tokenize};
use pheye_metrics::vqa::Totals;
use tempfile::TempDir;

/// Writes two files and returns their paths.
fn pair(dir: &TempDir, references: &str, results: &str) -> (PathBuf, PathBuf) {
    let (a, b) = (dir.path().join("references.json"), dir.path().join("results.json"));
    fs::write(&a, references).unwrap();
    fs::write(&b, results).unwrap();
    (a, b)
}

/// The error of scoring captions, without the folder.
fn refused(references: &str, results: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(&dir, references, results);
    let error = captions(&a, &b, Cover::All).unwrap_err();
    pheye_files::chain(&error).replace(&format!("{}/", dir.path().display()), "")
}

const COCO: &str = r#"{"images":[{"id":1},{"id":2}],"annotations":[{"id":1,"image_id":2,"caption":"A dog."},
    {"id":2,"image_id":"1","caption":"a\u2028cat"},{"id":3,"image_id":1,"caption":" "}]}"#;

#[test]
fn captions_are_in_the_order_of_the_images_with_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(
        &dir,
        &format!("\u{feff}{COCO}"),
        r#"[{"image_id":2,"caption":"x"},{"image_id":1,"caption":""}]"#,
    );
    let set = captions(&a, &b, Cover::All).unwrap();
    assert_eq!(set.images, ["1", "2"]);
    assert_eq!(set.captions, ["", "x"]);
    assert_eq!(set.references, [vec!["a\u{2028}cat", " "], vec!["A dog."]]);
    let warnings: Vec<String> = set
        .warnings
        .iter()
        .map(|w| w.to_string().replace(&format!("{}/", dir.path().display()), ""))
        .collect();
    assert_eq!(
        warnings,
        [
            "references.json: 1 references without tokens, of the images: 1",
            "references.json: 1 captions with a line separator, which is read as a space, of the images: 1",
            "results.json: 1 captions without tokens, of the images: 1",
        ]
    );
    let want = |caption: &str, references: &[&str]| Tokenized {
        caption: caption.to_owned(),
        references: references.iter().map(|&r| r.to_owned()).collect(),
    };
    assert_eq!(tokenize(&set), [want("", &["a cat", ""]), want("x", &["a dog"])]);
    assert_eq!(set.filtered(|id| id == "2").captions, ["x"]);
}

#[test]
fn captions_that_do_not_match_are_refused() {
    let one = r#"{"image_id":1,"caption":"x"}"#;
    let two = r#"{"image_id":2,"caption":"x"}"#;
    assert_eq!(
        refused(COCO, &format!("[{one}]")),
        "results.json: 1 results are missing, for ids of the references: 2"
    );
    assert_eq!(
        refused(COCO, &format!("[{one},{two},{one}]")),
        "results.json: 1 results for an id that has one already: 1"
    );
    assert_eq!(
        refused(COCO, &format!(r#"[{one},{two},{{"image_id":"z\u001b","caption":""}}]"#)),
        "results.json: 1 results for ids that the references lack: z\\u{1b}"
    );
    let without = r#"{"images":[{"id":1},{"id":2}],"annotations":[{"image_id":1,"caption":"x"}]}"#;
    assert_eq!(refused(without, "[]"), "references.json: 1 images without a reference: 2");
    let twice = r#"{"images":[{"id":1},{"id":1}],"annotations":[{"image_id":1,"caption":"x"}]}"#;
    assert_eq!(refused(twice, "[]"), "references.json: 1 images occur twice, with the ids: 1");
    let unlisted = r#"{"images":[{"id":1}],"annotations":[{"image_id":7,"caption":"x"}]}"#;
    assert_eq!(refused(unlisted, "[]"), "references.json: 1 captions of images that are not listed: 7");
    assert_eq!(refused(r#"{"images":[],"annotations":[]}"#, "[]"), "references.json: it has no references");
}

#[test]
fn a_caption_of_any_length_is_not_tokenized() {
    let long = "x".repeat(16385);
    let result = |id: u32, caption: &str| format!("{{\"image_id\":{id},\"caption\":\"{caption}\"}}");
    let results = format!("[{},{}]", result(1, "a"), result(2, &long));
    let error = refused(COCO, &results);
    assert_eq!(error, "results.json: 1 captions are longer than 16384 bytes, of the images: 2");
    let error = refused(&COCO.replace("A dog.", &long), &format!("[{},{}]", result(1, "a"), result(2, "b")));
    assert_eq!(error, "references.json: 1 captions are longer than 16384 bytes, of the images: 2");
}

#[test]
fn files_of_another_form_are_refused_with_the_place() {
    assert_eq!(
        refused(COCO, r#"[{"image_id":1}]"#),
        "results.json: not a list of results with `image_id` and `caption`: missing field `caption` at line 1 column 15"
    );
    assert!(refused("[1", "[]").starts_with("references.json: not references of captions: "));
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(&dir, COCO, "[]");
    fs::write(&b, b"\xff\xfe[\0]\0").unwrap();
    let said = pheye_files::chain(&captions(&a, &b, Cover::All).unwrap_err());
    assert!(said.ends_with("results.json: cannot be read: it is UTF-16; save it as UTF-8"), "{said}");
}

#[test]
fn textcaps_and_docci_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let row = |id, text| {
        format!(
            r#"{{"caption_id":{id},"image_id":"003a","caption_str":"{text}","reference_strs":["a","b"]}}"#
        )
    };
    let (a, b) = pair(
        &dir,
        &format!(r#"{{"data":[{},{}]}}"#, row(1, "a"), row(2, "b")),
        r#"[{"image_id":"003a","caption":"x"}]"#,
    );
    assert_eq!(captions(&a, &b, Cover::All).unwrap().references, [["a", "b"]]);
    let lines = dir.path().join("docci.jsonlines");
    fs::write(&lines, "{\"example_id\":\"003a\",\"split\":\"test\",\"description\":\"A dog.\"}\n\n").unwrap();
    assert_eq!(captions(&lines, &b, Cover::All).unwrap().references, [["A dog."]]);
}

fn ten(answer: &str, other: &str) -> String {
    let answers: Vec<String> = (0..10)
        .map(|i| format!(r#"{{"answer":"{}","answer_id":{i}}}"#, if i < 2 { answer } else { other }))
        .collect();
    answers.join(",")
}

/// The error of scoring answers.
fn refused_answers(metric: Metric, references: &str, results: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(&dir, references, results);
    let error = questions(metric, &a, &b, Cover::All).unwrap_err();
    pheye_files::chain(&error).replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn vqa_and_ok_vqa_are_scored_by_type() {
    let dir = tempfile::tempdir().unwrap();
    let row = |id: u32, kind: &str| {
        let answers = ten("Two", "three");
        format!(
            r#"{{"question_id":{id},"question_type":"how many","answer_type":"{kind}","answers":[{answers}]}}"#
        )
    };
    let (a, b) = pair(
        &dir,
        &format!(r#"{{"annotations":[{},{}]}}"#, row(1, "number"), row(2, "other")),
        r#"[{"question_id":2,"answer":"3"},{"question_id":1,"answer":"2."}]"#,
    );
    let totals = Totals::of(&questions(Metric::Vqa, &a, &b, Cover::All).unwrap().answers);
    // Two of ten: eight answers see two others, two see one: (8 · 2/3 + 2 · 1/3) / 10.
    assert_eq!([totals.answer_types["number"], totals.answer_types["other"]], [60.0, 100.0]);
    assert_eq!([totals.question_types["how many"], totals.accuracy], [80.0, 80.0]);
    assert_eq!(Totals::of(&questions(Metric::OkVqa, &a, &b, Cover::All).unwrap().answers).accuracy, 80.0);
    let results = r#"[{"question_id":1,"answer":"3"}]"#;
    let references = format!(
        r#"{{"annotations":[{}]}}"#,
        row(1, "number").replace(r#""answers":["#, r#""answers":[{"answer":"x"},"#)
    );
    assert_eq!(
        refused_answers(Metric::Vqa, &references, results),
        "references.json: 1 questions without exactly ten answers: 1"
    );
}

#[test]
fn textvqa_and_gqa_are_scored() {
    let dir = tempfile::tempdir().unwrap();
    let answers = [r#""Lay's""#; 10].join(",");
    let (a, b) = pair(
        &dir,
        &format!(r#"{{"data":[{{"question_id":7,"answers":[{answers}]}}]}}"#),
        r#"[{"question_id":"7","answer":"lay's?"}]"#,
    );
    assert_eq!(questions(Metric::TextVqa, &a, &b, Cover::All).unwrap().answers[0].accuracy, 1.0);
    let (a, b) = pair(
        &dir,
        r#"{"201":{"answer":"no"},"202":{"answer":"yes"}}"#,
        r#"[{"questionId":"202","prediction":"Yes."},{"questionId":"201","prediction":"yes"}]"#,
    );
    let scored = questions(Metric::Gqa, &a, &b, Cover::All).unwrap().answers;
    assert_eq!([scored[0].accuracy, scored[1].accuracy], [0.0, 1.0]);
    assert_eq!(
        refused_answers(Metric::Gqa, r#"{"1":{"answer":"a"},"1":{"answer":"b"}}"#, "[]"),
        "references.json: 1 questions occur twice, with the ids: 1"
    );
}

const A_OKVQA: &str = r#"[{"question_id":"a","choices":["cup","mug"],"correct_choice_idx":1,"direct_answers":["mug","mug","cup"],
    "difficult_direct_answer":false},{"question_id":"b","choices":["red","blue"],"correct_choice_idx":0,
    "direct_answers":["red"],"difficult_direct_answer":true}]"#;

#[test]
fn a_okvqa_has_two_accuracies_and_leaves_difficult_questions_out() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(
        &dir,
        A_OKVQA,
        r#"{"b":{"multiple_choice":"blue","direct_answer":"red"},"a":{"multiple_choice":"mug","direct_answer":"mug"}}"#,
    );
    let scored = questions(Metric::AOkVqa, &a, &b, Cover::All).unwrap();
    assert_eq!([scored.choices[0].accuracy, scored.choices[1].accuracy], [1.0, 0.0]);
    assert_eq!((scored.answers.len(), scored.answers[0].accuracy, scored.left_out), (1, 2.0 / 3.0, 1));
    let list = r#"[{"question_id":"a","answer":"cup"},{"question_id":"b","answer":"x"}]"#;
    let (a, b) = pair(&dir, A_OKVQA, list);
    assert_eq!(questions(Metric::AOkVqa, &a, &b, Cover::All).unwrap().answers[0].accuracy, 1.0 / 3.0);
    assert_eq!(
        refused_answers(
            Metric::AOkVqa,
            A_OKVQA,
            r#"{"a":{"multiple_choice":"jar"},"b":{"multiple_choice":"red"}}"#
        ),
        "results.json: 1 choices that their question does not offer, of the questions: a"
    );
    assert_eq!(
        refused_answers(
            Metric::AOkVqa,
            A_OKVQA,
            r#"{"a":{"multiple_choice":"cup"},"b":{"direct_answer":"red"}}"#
        ),
        "results.json: 1 results without `direct_answer`, which others have: a"
    );
}

/// A trial on a part of a benchmark scores the questions that have a result.
#[test]
fn a_part_of_the_references_can_be_covered() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(
        &dir,
        r#"{"1":{"answer":"yes"},"2":{"answer":"no"},"3":{"answer":"red"}}"#,
        r#"[{"questionId":"3","prediction":"Red."},{"questionId":"1","prediction":"no"}]"#,
    );
    assert!(questions(Metric::Gqa, &a, &b, Cover::All).is_err());
    let scored = questions(Metric::Gqa, &a, &b, Cover::Some).unwrap().answers;
    let found: Vec<(&str, f64)> = scored.iter().map(|s| (s.question_id.as_str(), s.accuracy)).collect();
    assert_eq!(found, [("1", 0.0), ("3", 1.0)]);
}
