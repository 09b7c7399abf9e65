//! Each reader on a miniature in the published form (`tests/data`), and on one that differs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pheye_data::{Content, Error, Format, Mixture, Prompt, Source, SourceConfig, Turns};
use pheye_files::chain;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn config(format: Format, name: &str) -> SourceConfig {
    SourceConfig::new(format, file(name))
}

fn open(config: &SourceConfig) -> Source {
    Source::open(config, None).unwrap_or_else(|e| panic!("{}", chain(&e)))
}

/// The images of a source with their questions and answers.
fn items(source: &Source) -> Vec<(String, Vec<(String, String)>)> {
    let item = |i| source.item(i).map(|item| (item.image.unwrap_or_default(), item.qa)).unwrap();
    (0..source.len()).map(item).collect()
}

type Expected<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)])];

fn assert_items(source: &Source, expected: Expected) {
    let text = |text: &&str| text.to_string();
    let pair = |(q, a): &(&str, &str)| (text(q), text(a));
    let expected: Vec<_> =
        expected.iter().map(|(image, qa)| (text(image), qa.iter().map(pair).collect::<Vec<_>>())).collect();
    assert_eq!(items(source), expected);
}

/// What is left out: reason, count, and the first row.
fn left_out(mixture: &Mixture) -> Vec<(String, u64, u32)> {
    let summary = mixture.summaries().remove(0);
    summary.left_out.into_iter().map(|(why, left)| (why, left.count, left.first)).collect()
}

fn mixture(config: &SourceConfig) -> Mixture {
    Mixture::new(vec![open(config)], None, Content::Questions, 3).unwrap()
}

fn named(list: &[(&str, u64, u32)]) -> Vec<(String, u64, u32)> {
    list.iter().map(|(why, count, first)| (why.to_string(), *count, *first)).collect()
}

#[test]
fn conversations() {
    let config = config(Format::Conversation, "conversation.json");
    assert_items(
        &open(&config),
        &[
            ("coco/train2017/000000000009.jpg", &[("What is it?", "A cup."), ("Its colour?", "Blue.")]),
            ("sam/images/sa_1.jpg", &[("Is it big?", "No.")]),
            ("vg/1.jpg", &[("Where?", "Here \u{fffd}.")]),
            ("llava/c.jpg", &[("Why?", "So.")]),
        ],
    );
    let m = mixture(&config);
    assert_eq!(m.epoch_len(), 4);
    let expected = [
        ("no question that is answered", 1, 7),
        ("several images", 1, 5),
        ("without an image (text only)", 1, 3),
    ];
    assert_eq!(left_out(&m), named(&expected));

    let filtered = SourceConfig {
        include: Some(vec!["coco/".into(), "sam/".into(), "llava/".into()]),
        exclude: vec!["sam/".into()],
        turns: Some(Turns::All),
        ..config
    };
    let m = mixture(&filtered);
    assert_eq!((m.len(), m.epoch_len()), (2, 3));
    let left = left_out(&m);
    assert!(left.contains(&("image excluded by prefix".into(), 1, 2)), "{left:?}");
    assert!(left.contains(&("image not included by prefix".into(), 1, 4)), "{left:?}");
}

#[test]
fn the_mix_of_llava_is_divided_into_its_sets() {
    let plain = config(Format::Mix665k, "llava_v1_5_mix665k.json");
    let images = file("llava_v1_5_mix665k.json");
    let images = images.parent().unwrap();
    let config = SourceConfig {
        okvqa_questions: Some(file("OpenEnded_mscoco_train2014_questions.json")),
        images: Some(images.into()),
        ..plain.clone()
    };
    let coco = |n: u32| format!("coco/train2017/{n:012}.jpg");
    assert_items(
        &open(&config),
        &[
            (&coco(1), &[("Describe it.", "A long story."), ("And then?", "It ends.")]),
            (&coco(2), &[("Is it red?", "Yes"), ("How many?", "2"), ("What sport?", "Golf")]),
            (&coco(3), &[("What is it for?", "drinking")]),
            // The second order of the same choices is a different text, of the same question.
            (&coco(4), &[("Who is it?\nA. a cat\nB. a dog", "B"), ("Where is it?\nA. home\nB. away", "A")]),
            ("gqa/images/10.jpg", &[("Is it on the left?", "Yes")]),
            ("ocr_vqa/images/1.jpg", &[("Who wrote it?", "A. B.")]),
            ("textvqa/train_images/11.jpg", &[("", "A red can.")]),
        ],
    );
    let m = mixture(&config);
    let summary = m.summaries().remove(0);
    let parts: Vec<_> =
        summary.parts.iter().map(|p| (p.name.as_str(), p.items, p.turns, p.samples)).collect();
    let expected = [
        ("llava", 1, 2, 1),
        ("vqav2", 1, 3, 2),
        ("ok-vqa", 1, 1, 1),
        ("a-okvqa", 1, 2, 2),
        ("gqa", 1, 1, 1),
        ("ocr-vqa", 1, 1, 1),
        ("textcaps", 1, 1, 1),
    ];
    assert_eq!(parts, expected);
    assert_eq!((summary.rows, summary.samples, m.epoch_len()), (11, 9, 9));
    let expected = [("RefCOCO", 1, 7), ("Visual Genome", 1, 8), ("without an image (text only)", 1, 2)];
    assert_eq!(left_out(&m), named(&expected));

    // Without OK-VQA's questions they count as those of VQAv2.
    let names = |config: &SourceConfig| {
        let parts = mixture(config).summaries().remove(0).parts;
        parts.into_iter().map(|p| (p.name, p.items)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(names(&plain).get("vqav2"), Some(&2));
    assert_eq!(names(&plain).get("ok-vqa"), None);
}

#[test]
fn llavar_lrv_and_mimic_it() {
    let llavar = config(Format::Llavar, "llavar.json");
    assert_items(&open(&llavar), &[("1000_x.jpg", &[("What is written?", "STOP")])]);
    assert_eq!(left_out(&mixture(&llavar)), named(&[("image not included by prefix", 1, 2)]));
    assert_items(
        &open(&config(Format::Lrv, "filter_cap1.json")),
        &[
            ("2392588.jpg", &[("Is it x?", "No.")]),
            ("12.jpg", &[("Q", "A")]),
            ("chart_3.png", &[("How high?", "3")]),
        ],
    );
    let mimic = config(Format::MimicIt, "LACONV_instructions.json");
    assert_items(&open(&mimic), &[("LA_IMG_000000000009", &[("What is it?", "A cup.")])]);
    let expected = [("several images", 1, 2), ("without an image (text only)", 1, 3)];
    assert_eq!(left_out(&mixture(&mimic)), named(&expected));
}

#[test]
fn questions_about_text() {
    let st = config(Format::StVqa, "train_task_3.json");
    assert_items(
        &open(&st),
        &[("coco-text/x.jpg", &[("What brand?", "x")]), ("vizwiz/x.jpg", &[("What year?", "1999")])],
    );
    let again = named(&[("the same question about the same image again", 1, 2)]);
    assert_eq!(left_out(&mixture(&st)), again);
    let every = SourceConfig { unique: Some(false), ..st };
    assert_eq!(mixture(&every).epoch_len(), 3);

    let text = config(Format::TextVqa, "TextVQA_0.5.1_train.json");
    let expected: Expected = &[("003a.jpg", &[("what brand is it?", "nokia"), ("what year?", "1999")])];
    assert_items(&open(&text), expected);
    assert_eq!(mixture(&text).epoch_len(), 2);
    assert_eq!(left_out(&mixture(&text)), named(&[("without an answer", 1, 3)]));

    let ocr = config(Format::OcrVqa, "dataset.json");
    assert_items(&open(&ocr), &[("0001.jpg", &[("Who wrote it?", "A. B."), ("Is it a novel?", "Yes")])]);
    assert_eq!(mixture(&ocr).epoch_len(), 1);
    assert_eq!(left_out(&mixture(&ocr)), named(&[("another split than train", 1, 2)]));
}

#[test]
fn questions_with_choices() {
    let letters = config(Format::AOkvqa, "aokvqa_v1p0_train.json");
    let question = "Who is it?\nA. a\nB. b\nC. c\nD. d";
    assert_items(&open(&letters), &[("000000000042.jpg", &[(question, "C")])]);
    let words = SourceConfig { prompt: Some(Prompt::ShortAnswer), ..letters };
    assert_items(&open(&words), &[("000000000042.jpg", &[("Who is it?", "c")])]);
}

#[test]
fn questions_in_one_file_and_answers_in_another() {
    let mut vqa = config(Format::VqaV2, "v2_OpenEnded_mscoco_train2014_questions.json");
    vqa.annotations = Some(file("v2_mscoco_train2014_annotations.json"));
    let coco = |n: u32| format!("COCO_train2014_{n:012}.jpg");
    assert_items(
        &open(&vqa),
        &[(&coco(42), &[("Is it red?", "yes"), ("Is it big?", "no")]), (&coco(9), &[("How many?", "2")])],
    );
    assert_eq!(mixture(&vqa).epoch_len(), 3);
    assert_eq!(left_out(&mixture(&vqa)), named(&[("question without an annotation", 1, 4)]));
    let renamed = SourceConfig { image_name: Some("train2017/{id:012}.jpg".into()), ..vqa };
    assert_eq!(items(&open(&renamed))[1].0, "train2017/000000000009.jpg");

    let mut ok = config(Format::OkVqa, "OpenEnded_mscoco_train2014_questions.json");
    ok.annotations = Some(file("mscoco_train2014_annotations.json"));
    assert_items(&open(&ok), &[(&coco(3), &[("What is it for?", "drinking")])]);
    let expected = [
        ("annotation that is there twice", 1, 2),
        ("annotation without a question", 1, 3),
        ("question without an annotation", 1, 2),
    ];
    assert_eq!(left_out(&mixture(&ok)), named(&expected));
}

#[test]
fn gqa_and_captions_have_several_rows_an_image() {
    let gqa = config(Format::Gqa, "train_balanced_questions.json");
    assert_items(
        &open(&gqa),
        &[("n1.jpg", &[("Is it red?", "no"), ("Is it old?", "yes")]), ("2.jpg", &[("Is it big?", "yes")])],
    );
    assert_eq!(left_out(&mixture(&gqa)), named(&[("without an answer", 1, 4)]));
    let caps = config(Format::TextCaps, "TextCaps_0.1_train.json");
    assert_items(
        &open(&caps),
        &[
            ("003a.jpg", &[("", "A red can."), ("", "A can of paint."), ("", "A can, red.")]),
            ("003b.jpg", &[("", "A sign.")]),
        ],
    );
    assert_eq!(mixture(&caps).epoch_len(), 2);
    let coco = config(Format::CocoCaptions, "captions_train2014.json");
    assert_items(
        &open(&coco),
        &[
            ("COCO_train2014_000000000009.jpg", &[("", "A plate of food."), ("", "Bread, fruit and nuts.")]),
            ("COCO_train2014_000000000025.jpg", &[("", "A giraffe eats leaves.")]),
        ],
    );
}

#[test]
fn a_folder_of_images_and_texts() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("b")).unwrap();
    for (name, text) in [
        ("a.PNG", ""),
        ("a.txt", "A cup.\n"),
        ("b/c.jpg", ""),
        ("b/c.txt", "\u{feff}A dog."),
        ("d.webp", ""),
        ("e.png", ""),
        ("e.txt", " \n"),
        ("notes.md", "x"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let config = SourceConfig::new(Format::Folder, dir.path());
    assert_items(&open(&config), &[("a.PNG", &[("", "A cup.")]), ("b/c.jpg", &[("", "A dog.")])]);
    let m = mixture(&config);
    assert_eq!(m.epoch_len(), 2);
    let left: Vec<_> = left_out(&m).into_iter().map(|(why, count, _)| (why, count)).collect();
    assert_eq!(left, [("empty text".to_string(), 1), ("image without a .txt file".to_string(), 1)]);
    let captions = Mixture::new(vec![open(&config)], None, Content::Captions, 0).unwrap();
    assert_eq!(captions.epoch_len(), 2);
}

#[test]
fn lines_as_a_source() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.jsonl");
    let line = r#"{"image": "a.png", "qa": [["one?", "1"], ["two?", "2"]], "caption": "numbers"}"#;
    fs::write(&path, format!("\u{feff}{line}\r\n\n{{\"text\": \"alone\"}}\n")).unwrap();
    let config = SourceConfig::new(Format::Lines, &path);
    assert_eq!(mixture(&config).epoch_len(), 2);
    let captions = SourceConfig { prompt: Some(Prompt::CaptionsTen), ..config };
    let m = mixture(&captions);
    assert_eq!(m.epoch_len(), 1);
    assert_items(m.sources().next().unwrap(), &[("a.png", &[("", "numbers")])]);
}

/// A miniature with one change, and what is said about it.
fn refused(format: Format, name: &str, from: &str, to: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let text = fs::read_to_string(file(name)).unwrap();
    assert!(text.contains(from), "{name} {from}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    let mut config = SourceConfig::new(format, &path);
    let annotations = if format == Format::OkVqa { "" } else { "v2_" };
    let two = matches!(format, Format::VqaV2 | Format::OkVqa);
    config.annotations = two.then(|| file(&format!("{annotations}mscoco_train2014_annotations.json")));
    let error = Source::open(&config, None).unwrap_err();
    let text = chain(&error);
    text.strip_prefix(&format!("{}, row ", path.display())).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn another_form_is_refused_with_row_and_field() {
    for (format, name, from, to, expected) in [
        (
            Format::Conversation,
            "conversation.json",
            "\"value\": \"Blue.\"",
            "\"value\": 3",
            "1: `conversations[3].value`: invalid type: integer `3`, expected a",
        ),
        (
            Format::Conversation,
            "conversation.json",
            "\"human\"",
            "\"bot\"",
            "1: `conversations[0].from` is `bot`",
        ),
        (
            Format::Conversation,
            "conversation.json",
            "\"conversations\"",
            "\"turns\"",
            "1: missing field `conversations`",
        ),
        (
            Format::Conversation,
            "conversation.json",
            "\"sam/images/sa_1.jpg\"",
            "{}",
            "2: `image`: expected the name",
        ),
        (Format::Mix665k, "llava_v1_5_mix665k.json", "gqa/", "gqb/", "9: `image` is in none of coco/, gqa/"),
        (
            Format::Llavar,
            "llavar.json",
            "\"from\"",
            "\"form\"",
            "1: `conversations[0]`: missing field `from`",
        ),
        (
            Format::Lrv,
            "filter_cap1.json",
            "\"answer\": \"A\"",
            "\"reply\": \"A\"",
            "2: missing field `answer`",
        ),
        (
            Format::MimicIt,
            "LACONV_instructions.json",
            "\"image_ids\": [\"LA_IMG_000000000009\"]",
            "\"image_ids\": 4",
            "1: `LA_INS_1.image_ids`: invalid type: integer `4`",
        ),
        (Format::StVqa, "train_task_3.json", "\"file_name\"", "\"file\"", "1: missing field `file_name`"),
        (
            Format::TextVqa,
            "TextVQA_0.5.1_train.json",
            "\"003a\"",
            "null",
            "1: `image_id`: invalid type: null",
        ),
        (
            Format::AOkvqa,
            "aokvqa_v1p0_train.json",
            "_idx\": 2",
            "_idx\": 4",
            "1: `correct_choice_idx` is 4, of 4",
        ),
        (
            Format::Gqa,
            "train_balanced_questions.json",
            "\"imageId\": 2",
            "\"image\": 2",
            "2: `202`: missing field `imageId`",
        ),
        (
            Format::OcrVqa,
            "dataset.json",
            "[\"A. B.\", \"Yes\"]",
            "[\"Yes\"]",
            "1: `questions` are 2, and `answers` 1",
        ),
        (
            Format::VqaV2,
            "v2_OpenEnded_mscoco_train2014_questions.json",
            "\"question\": \"Is it big?\"",
            "\"question\": true",
            "3: `question`: invalid type: boolean `true`",
        ),
        (
            Format::OkVqa,
            "OpenEnded_mscoco_train2014_questions.json",
            "\"question_id\": 31",
            "\"id\": 31",
            "1: missing field `question_id`",
        ),
        (
            Format::TextCaps,
            "TextCaps_0.1_train.json",
            "\"image_id\"",
            "\"image\"",
            "1: missing field `image_id`",
        ),
    ] {
        let said = refused(format, name, from, to);
        assert!(said.starts_with(expected), "{name}: {said}");
    }
    let error = Source::open(&config(Format::Gqa, "conversation.json"), None).unwrap_err().to_string();
    assert!(error.contains("conversation.json: here is `[` instead of `{`"), "{error}");
    let error = Source::open(&config(Format::TextCaps, "dataset.json"), None).unwrap_err().to_string();
    assert!(error.contains("dataset.json: the object has no `data`") || error.contains("row 0"), "{error}");
}

#[test]
fn settings_that_do_not_go_with_the_format_are_named() {
    let plain = |format| SourceConfig::new(format, "x.json");
    let key = |config: &SourceConfig| config.fault().map(|(key, _)| key);
    assert_eq!(key(&plain(Format::VqaV2)), Some("annotations"));
    assert_eq!(
        key(&SourceConfig { annotations: Some("y".into()), ..plain(Format::Gqa) }),
        Some("annotations")
    );
    assert_eq!(
        key(&SourceConfig { okvqa_questions: Some("y".into()), ..plain(Format::Gqa) }),
        Some("okvqa_questions")
    );
    assert_eq!(
        key(&SourceConfig { weight: Some(1.0), count: Some(2), ..plain(Format::Gqa) }),
        Some("weight")
    );
    assert_eq!(
        key(&SourceConfig { prompt: Some(Prompt::ShortAnswer), ..plain(Format::TextCaps) }),
        Some("prompt")
    );
    assert_eq!(
        key(&SourceConfig { image_name: Some("{id}".into()), ..plain(Format::Llavar) }),
        Some("image_name")
    );
    assert_eq!(
        key(&SourceConfig { image_name: Some("{ID}".into()), ..plain(Format::Gqa) }),
        Some("image_name")
    );
    let parts = BTreeMap::from([("vqa".to_string(), Default::default())]);
    let (key, why) = SourceConfig { parts, ..plain(Format::Mix665k) }.fault().unwrap();
    assert_eq!((key, why.split(';').next()), ("parts", Some("there is no part `vqa`")));
    let mut vqa = plain(Format::VqaV2);
    (vqa.path, vqa.annotations) = ("questions.json".into(), Some("y".into()));
    let error = Source::open(&vqa, None).unwrap_err();
    assert!(matches!(&error, Error::Setting { key: "image_name", .. }), "{error}");
    let empty =
        SourceConfig { include: Some(vec!["none/".into()]), ..config(Format::Lrv, "filter_cap1.json") };
    let error = Source::open(&empty, None).unwrap_err().to_string();
    assert!(error.ends_with("none of its 3 rows is used (image not included by prefix: 3)"), "{error}");
}
