//! `pheye eval BENCHMARK`: miniatures of every benchmark in its published form, against `pheye score` on the results
//! that it writes; continued evaluations; what is refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{data_set, ends, refuses, s, tree};
use serde_json::{Value, json};

/// A folder with four images under the names that a benchmark gives them, and its files.
struct Miniature {
    dir: tempfile::TempDir,
}

impl Miniature {
    fn new() -> Miniature {
        let dir = tempfile::tempdir().unwrap();
        data_set(&dir.path().join("set"), 4);
        Miniature { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Image `i` under another name. The decoder goes by the contents, not by the ending.
    fn image(&self, i: usize, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(self.path(&format!("set/{i}.png")), path).unwrap();
    }

    fn json(&self, name: &str, value: &Value) {
        fs::write(self.path(name), value.to_string()).unwrap();
    }

    /// The report of an evaluation into the folder `out`.
    fn eval(&self, benchmark: &str, out: &str, more: &[&str]) -> Value {
        let (data, out) = (self.dir.path(), self.path(out));
        let args = ["eval", benchmark, "--data", s(data), "--out", s(&out), "--json", "--batch", "3"];
        serde_json::from_str(&ends(0, [&args[..], more].concat()).out).unwrap()
    }

    /// What `pheye score` prints for the results.
    fn score(&self, metric: &str, references: &str, out: &str) -> Value {
        let (references, results) = (self.path(references), self.path(out).join("results.json"));
        let args = [
            "score",
            "--metric",
            metric,
            "--json",
            "--references",
            s(&references),
            "--predictions",
            s(&results),
        ];
        serde_json::from_str(&ends(0, args).out).unwrap()
    }
}

const COLORS: [&str; 4] = ["red", "blue", "green", "black"];

fn ten(answer: &str) -> Vec<Value> {
    (1..=10).map(|i| json!({"answer": answer, "answer_confidence": "yes", "answer_id": i})).collect()
}

/// Two questions about each of four images in VQA's form.
fn vqa(m: &Miniature, questions: &str, annotations: &str) {
    let (mut asked, mut answers) = (Vec::new(), Vec::new());
    for (i, color) in COLORS.iter().enumerate() {
        m.image(i, &format!("val2014/COCO_val2014_{i:012}.jpg"));
        // The questions about an image are not adjacent in the file.
        asked.push(json!({"image_id": i, "question": "what color is the shape?", "question_id": 10 * i}));
        answers.push(json!({"question_id": 10 * i, "image_id": i, "question_type": "what color",
            "answer_type": "other", "multiple_choice_answer": color, "answers": ten(color)}));
    }
    for i in 0..4 {
        asked.push(json!({"image_id": i, "question": "is there a circle?", "question_id": 10 * i + 1}));
        answers.push(json!({"question_id": 10 * i + 1, "image_id": i, "question_type": "is there",
            "answer_type": "yes/no", "multiple_choice_answer": "no", "answers": ten("no")}));
    }
    m.json(questions, &json!({ "questions": asked }));
    m.json(annotations, &json!({ "annotations": answers }));
}

/// The shipped model answers the bare question.
const BARE: [&str; 2] = ["--prompt", "{question}"];

#[test]
fn vqav2_by_type_and_by_the_size_of_objects() {
    let m = Miniature::new();
    let annotations = "v2_mscoco_val2014_annotations.json";
    vqa(&m, "v2_OpenEnded_mscoco_val2014_questions.json", annotations);
    let instances: Vec<Value> = (0..3)
        .map(|i| {
            json!({"id": i, "image_id": i, "category_id": 1, "area": 100.0 * (i + 1) as f64,
            "segmentation": [], "bbox": [0, 0, 1, 1], "iscrowd": 0})
        })
        .collect();
    let images: Vec<Value> =
        (0..4).map(|i| json!({"id": i, "width": 32, "height": 32, "file_name": "x"})).collect();
    let categories = json!([{"id": 1, "name": "shape", "supercategory": "thing"}]);
    let file = json!({"images": images, "annotations": instances, "categories": categories});
    m.json("instances_val2014.json", &file);
    let regions = m.path("instances_val2014.json");
    let report = m.eval("vqav2", "out", &[&BARE[..], &["--regions", s(&regions), "--attention"]].concat());
    assert_eq!(report["scores"], m.score("vqa", annotations, "out"));
    assert_eq!(report["questions"], 8);
    assert!(report["scores"]["answer_types"]["yes/no"].as_f64().unwrap() > 0.0, "{report}");
    // Two questions about each of three images have an object, two about the fourth have none.
    let sizes = &report["by_size"];
    assert_eq!(sizes["left_out"], 2);
    assert_eq!(sizes["largest_share"], json!([100.0 / 1024.0, 200.0 / 1024.0]));
    assert_eq!(sizes["global_attention"].as_array().unwrap().len(), 3);
    for share in report["global_attention"].as_array().unwrap() {
        assert!((0.0..1.0).contains(&share.as_f64().unwrap()), "{report}");
    }
    let rows = fs::read_to_string(m.path("out/predictions.jsonl")).unwrap();
    let first: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!((&first["id"], &first["image"]), (&json!(0), &json!("COCO_val2014_000000000000.jpg")));
    assert!(first["log_prob"].as_f64().unwrap() < 0.0 && first["tokens"].as_u64().unwrap() >= 2, "{first}");
    // The server takes results without references.
    m.json(
        "v2_OpenEnded_mscoco_test-dev2015_questions.json",
        &json!({"questions": [{"image_id": 1, "question": "is it red?", "question_id": 7}]}),
    );
    m.image(1, "test2015/COCO_test2015_000000000001.jpg");
    let report = m.eval("vqav2", "dev", &[&BARE[..], &["--split", "test-dev"]].concat());
    assert!(report.get("scores").is_none());
    let results: Value = serde_json::from_slice(&fs::read(m.path("dev/results.json")).unwrap()).unwrap();
    assert_eq!(results[0]["question_id"], 7);
}

#[test]
fn every_form_of_questions() {
    let m = Miniature::new();
    vqa(&m, "OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json");
    let report = m.eval("okvqa", "ok", &BARE);
    assert_eq!(report["scores"], m.score("okvqa", "mscoco_val2014_annotations.json", "ok"));

    let (mut text, mut aok, mut gqa, mut ocr, mut boxes) =
        (Vec::new(), Vec::new(), serde_json::Map::new(), serde_json::Map::new(), Vec::new());
    for (i, color) in COLORS.iter().enumerate() {
        let question = "what color is the shape?";
        m.image(i, &format!("train_images/00{i}.jpg"));
        m.image(i, &format!("val2017/{i:012}.jpg"));
        m.image(i, &format!("images/n{i}.jpg"));
        m.image(i, &format!("images/k{i}.png"));
        text.push(json!({"question_id": 5 + i, "image_id": format!("00{i}"), "question": question,
            "answers": vec![color; 10], "set_name": "val"}));
        let bounds =
            json!({"top_left_x": 0.1, "top_left_y": 0.1, "width": 0.1 * (i + 1) as f64, "height": 0.5});
        boxes.push(json!({"image_id": format!("00{i}"), "ocr_tokens": [color],
            "ocr_info": [{"word": color.to_uppercase(), "bounding_box": bounds}]}));
        aok.push(json!({"split": "val", "image_id": i, "question_id": format!("q{i}"), "question": question,
            "choices": COLORS, "correct_choice_idx": i, "direct_answers": vec![color; 10],
            "difficult_direct_answer": false, "rationales": ["x"]}));
        gqa.insert(
            format!("20{i}"),
            json!({"imageId": format!("n{i}"), "question": question, "answer": color}),
        );
        ocr.insert(
            format!("k{i}"),
            json!({"imageURL": "http://x/y.png", "questions": [question, "is there a circle?"],
            "answers": [color.to_uppercase(), "No"], "title": "T", "split": if i == 3 { 2 } else { 3 }}),
        );
    }
    m.json("TextVQA_0.5.1_val.json", &json!({ "data": text }));
    m.json("ocr.json", &json!({ "data": boxes }));
    m.json("aokvqa_v1p0_val.json", &json!(aok));
    m.json("testdev_balanced_questions.json", &json!(gqa));
    m.json("dataset.json", &json!(ocr));
    let regions = m.path("ocr.json");
    let report = m.eval("textvqa", "text", &[&BARE[..], &["--regions", s(&regions)]].concat());
    assert_eq!(report["scores"], m.score("textvqa", "TextVQA_0.5.1_val.json", "text"));
    let shares = &report["by_size"]["largest_share"];
    assert!((shares[0].as_f64().unwrap() - 0.1).abs() < 1e-12, "{report}");
    let report = m.eval("aokvqa", "aok", &BARE);
    assert_eq!(report["scores"], m.score("aokvqa", "aokvqa_v1p0_val.json", "aok"));
    let report = m.eval("gqa", "gqa", &BARE);
    assert_eq!(report["scores"], m.score("gqa", "testdev_balanced_questions.json", "gqa"));
    // Six questions of split 3, of which "is there a circle?" is answered without regard to case.
    let report = m.eval("ocrvqa", "ocrvqa", &BARE);
    assert_eq!(report["questions"], 6);
    assert!(report["scores"]["accuracy"].as_f64().unwrap() >= 50.0, "{report}");
}

#[test]
fn every_form_of_captions() {
    let m = Miniature::new();
    let (mut images, mut annotations, mut rows, mut docci) =
        (Vec::new(), Vec::new(), Vec::new(), String::new());
    for i in 0..4 {
        m.image(i, &format!("images/{i}.jpg"));
        m.image(i, &format!("val2014/{i}.jpg"));
        m.image(i, &format!("train_images/{i}.jpg"));
        let domain = ["in-domain", "near-domain", "out-domain", "out-domain"][i];
        let caption = format!("a {} shape", COLORS[i]);
        images.push(
            json!({"id": i, "file_name": format!("{i}.jpg"), "domain": domain, "width": 32, "height": 32}),
        );
        for n in 0..2 {
            annotations.push(json!({"id": 10 * i + n, "image_id": i, "caption": caption}));
            rows.push(json!({"caption_id": 10 * i + n, "image_id": format!("{i}"), "caption_str": caption,
                "reference_strs": [caption, caption], "set_name": "val"}));
        }
        let split = if i == 0 { "train" } else { "test" };
        docci += &format!(
            "{}\n",
            json!({"example_id": format!("{split}_{i}"), "split": split,
            "image_file": format!("{i}.jpg"), "description": caption})
        );
    }
    let coco = json!({"images": images, "annotations": annotations});
    m.json("nocaps_val_4500_captions.json", &coco);
    m.json("captions_val2014.json", &coco);
    m.json("TextCaps_0.1_val.json", &json!({ "data": rows }));
    fs::write(m.path("docci_descriptions.jsonlines"), docci).unwrap();
    let ask = ["--prompt", "what color is the shape?"];
    for (name, file) in [
        ("nocaps", "nocaps_val_4500_captions.json"),
        ("coco", "captions_val2014.json"),
        ("textcaps", "TextCaps_0.1_val.json"),
    ] {
        let report = m.eval(name, name, &ask);
        assert_eq!(report["scores"], m.score("caption", file, name), "{name}");
        let domains = report.get("domains").and_then(Value::as_object).map_or(0, |domains| domains.len());
        assert_eq!(domains, if name == "textcaps" { 0 } else { 3 }, "{report}");
    }
    let report = m.eval("docci", "docci", &ask);
    assert_eq!((&report["questions"], &report["of"]), (&json!(3), &json!(3)));
    assert!(report["scores"]["BLEU-1"].as_f64().is_some());
}

#[test]
fn a_stopped_evaluation_ends_with_the_same_files() {
    let m = Miniature::new();
    let set = m.path("set");
    let args = |out: &Path| {
        ["eval", "scene-text", "--data", s(&set), "--out", s(out), "--batch", "1"].map(str::to_owned)
    };
    let files = |out: &Path| {
        let mut files = tree(out);
        files.remove("times.jsonl");
        files.remove("command.txt");
        files
    };
    let (whole, part) = (m.path("whole"), m.path("part"));
    let said = ends(0, args(&whole));
    assert!(said.out.contains("% over 12 questions"), "{said:#?}");
    // A trial on a part, then all questions, then one whose last answers were lost and whose last line was cut off.
    ends(0, [&args(&part)[..], &["--questions".to_owned(), "4".to_owned()]].concat());
    ends(0, args(&part));
    assert_eq!(files(&whole), files(&part));
    let rows = part.join("predictions.jsonl");
    let text = fs::read(&rows).unwrap();
    // A write may also end in the middle of a character.
    let cut = [&text[..text.len() / 2], "{\"id\":\"ü".as_bytes()].concat();
    let cut =
        [&text[..0], &text[..10], &text[..text.len() / 2], &text[..text.len() - 1], &cut[..cut.len() - 1]];
    for kept in cut {
        fs::write(&rows, kept).unwrap();
        ends(0, args(&part));
        assert_eq!(files(&whole), files(&part), "{} bytes were kept", kept.len());
    }
    // Other settings would mix two evaluations.
    refuses(
        [&args(&part)[..], &["--prompt".to_owned(), "x".to_owned()]].concat(),
        &["settings.json", "`prompt`"],
    );
    fs::write(&rows, text.iter().map(|b| if *b == b'#' { b'+' } else { *b }).collect::<Vec<_>>()).unwrap();
    refuses(args(&part), &["predictions.jsonl, line 1", "an answer to `0.png+0`, where `0.png#0` is asked"]);
}

#[cfg(unix)]
#[test]
fn a_killed_evaluation_ends_with_the_same_files() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use common::{pheye, same};

    let dir = tempfile::tempdir().unwrap();
    let (set, whole, killed) = (dir.path().join("set"), dir.path().join("whole"), dir.path().join("killed"));
    data_set(&set, 60);
    let eval = |out: &Path| pheye(["eval", "scene-text", "--data", s(&set), "--out", s(out), "--batch", "2"]);
    assert!(eval(&whole).output().unwrap().status.success());
    let answered = || {
        fs::read(killed.join("predictions.jsonl")).map_or(0, |b| b.iter().filter(|b| **b == b'\n').count())
    };
    for after in [0, 1, 40, 90, 150] {
        let mut child = eval(&killed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        while answered() < after {
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < patience, "{after} answers");
            std::thread::sleep(Duration::from_micros(500));
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "after {after} answers it had ended");
    }
    let before = answered();
    assert!((150..180).contains(&before), "{before} answers");
    assert!(eval(&killed).output().unwrap().status.success());
    let files = |out: &Path| {
        let mut files = tree(out);
        files.remove("times.jsonl");
        files.remove("command.txt");
        files
    };
    same(&files(&whole), &files(&killed));
}

#[test]
fn scaling_down_first_changes_what_is_seen() {
    let m = Miniature::new();
    let (set, whole, small) = (m.path("set"), m.path("a"), m.path("b"));
    let args = |out| ["eval", "easy-vqa", "--data", s(&set), "--out", s(out)];
    ends(0, args(&whole));
    ends(0, [&args(&small)[..], &["--down-scale=4"]].concat());
    let rows = |out: &Path| fs::read_to_string(out.join("predictions.jsonl")).unwrap();
    assert_ne!(rows(&whole), rows(&small));
}

#[test]
fn what_does_not_fit_is_named() {
    let m = Miniature::new();
    let out = m.path("out");
    let run = |benchmark: &'static str, more: &[&str]| {
        [&["eval", benchmark, "--data", s(m.dir.path()), "--out", s(&out)], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    refuses(["eval", "textvqx"], &["textvqx: neither a config nor a benchmark", "textvqa"]);
    refuses(["eval", "textvqa"], &["textvqa: --data is missing"]);
    refuses(run("textvqa", &["--split", "dev"]), &["textvqa has no split `dev`; it has val, test"]);
    refuses(run("textvqa", &[]), &["TextVQA_0.5.1_val.json: cannot be read"]);
    m.json("TextVQA_0.5.1_val.json", &json!({"questions": []}));
    refuses(run("textvqa", &[]), &["TextVQA_0.5.1_val.json: not questions of TextVQA's form", "data"]);
    let row =
        |id: usize| json!({"question_id": id, "image_id": "a", "question": "x?", "answers": vec!["x"; 10]});
    m.json("TextVQA_0.5.1_val.json", &json!({"data": [row(1), row(1)]}));
    refuses(run("textvqa", &[]), &["1 questions or images occur twice, with the ids: 1"]);
    m.json("TextVQA_0.5.1_val.json", &json!({"data": [row(1), row(2)]}));
    fs::create_dir_all(m.path("train_images")).unwrap();
    refuses(run("textvqa", &[]), &["train_images: 1 images are missing: a.jpg"]);
    refuses(
        ["eval", s(&m.path("set/manifest.jsonl")), "--attention"],
        &["--attention goes with the name of a benchmark"],
    );
}

/// A page and Markdown of two evaluations, with the changes by size, attention, samples and commands.
#[test]
fn a_report_of_two_evaluations() {
    let m = Miniature::new();
    let set = m.path("scenes");
    ends(0, ["data", "scene-text", "--out", s(&set), "--count", "6", "--seed", "3"]);
    for (out, more) in [("one", ["--down-scale=8", "--attention"]), ("two", ["--samples=2", "--attention"])] {
        let out = m.path(out);
        ends(0, [&["eval", "scene-text", "--data", s(&set), "--out", s(&out)], &more[..]].concat());
    }
    let (one, two, out) = (m.path("one"), m.path("two"), m.path("report"));
    let named = [format!("reduced <first>={}", s(&one)), format!("whole={}", s(&two))];
    ends(0, ["report", &named[0], &named[1], "--out", s(&out), "--title", "Nano"]);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for part in [
        "<title>Nano</title>",
        "reduced &lt;first&gt;",
        "small details",
        "data:image/png;base64,",
        "--down-scale=8",
        "attention on the global image in %",
        "Scene text, test",
    ] {
        assert!(page.contains(part), "no `{part}`");
    }
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "the page needs no other file");
    assert_eq!(page.matches("<article>").count(), 8, "six samples by default and two by option");
    let markdown = fs::read_to_string(out.join("report.md")).unwrap();
    assert!(markdown.contains("| whole | ") && markdown.contains("(details-1.svg)"), "{markdown}");
    for file in ["details-1.svg", "attention-1-1.svg", "attention-1-2.svg"] {
        assert!(out.join(file).exists(), "{file}");
    }
    refuses(["report", s(&m.path("set"))], &["it has no scores.json"]);
}
