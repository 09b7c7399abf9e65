//! Every row of what the official codes computed: pycocoevalcap with its Java programs, vqaEval, mmf, difflib.

use std::path::{Path, PathBuf};

use pheye_metrics::caption::{Score, cider, meteor, scores};
use pheye_metrics::difflib::{longest_match, matching_blocks, ratio};
use pheye_metrics::ptb::{has_line_break, kept, tokenize, tokenize_all};
use pheye_metrics::read::{Cover, captions, tokenize as tokens_of};
use pheye_metrics::vqa::{Scored, Totals, normalise, normalise_textvqa, textvqa, vqa_v2};
use serde_json::Value;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(data(name)).unwrap()).unwrap()
}

fn rows(name: &str) -> Vec<Value> {
    json(name)["rows"].as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn all_tokens_are_those_of_the_java_program() {
    let rows = rows("ptb_tokens.json");
    let texts: Vec<&str> = rows.iter().map(|row| text(&row[0])).collect();
    assert_eq!(texts.len(), 1532);
    for (row, tokens) in rows.iter().zip(tokenize_all(&texts)) {
        assert_eq!(tokens.join(" "), text(&row[1]), "{:?}", text(&row[0]));
    }
}

#[test]
fn only_what_follows_a_caption_decides_on_some_of_its_full_stops() {
    assert_eq!(tokenize("vitamin C."), ["vitamin", "c."]);
    let two = tokenize_all(&["vitamin C.", "The dog", "x"]);
    assert_eq!(two, [vec!["vitamin", "c", "."], vec!["the", "dog"], vec!["x"]]);
    // Blank captions keep their place, and line breaks inside captions do not shift the others.
    let blank = tokenize_all(&["a\nb", "", " ", "c\u{2028}d", "e\r"]);
    assert_eq!(blank, [vec!["a", "b"], vec![], vec![], vec!["c", "d"], vec!["e"]]);
    assert!(has_line_break("c\u{2028}d") && !has_line_break("a\nb"));
    assert!(tokenize_all::<&str>(&[]).is_empty());
}

#[test]
fn a_tag_may_reach_into_the_next_caption() {
    let two = tokenize_all(&["<a b=\"c", "d\"> x"]);
    assert_eq!(two, [vec!["<a\u{a0}b=\"c"], vec!["d\">", "x"]]);
    assert_eq!(tokenize("<!-- (x) -->"), ["<!--\u{a0}(x)\u{a0}-->"]);
}

#[test]
fn long_sets_are_read_in_pieces_like_short_ones() {
    let rows = rows("ptb_tokens.json");
    let texts: Vec<&str> = rows.iter().map(|row| text(&row[0])).collect();
    let many: Vec<&str> = (0..8).flat_map(|_| texts.iter().copied()).collect();
    let once = tokenize_all(&texts);
    for (i, tokens) in tokenize_all(&many).iter().enumerate() {
        // The last caption of a round is followed by the first of the next.
        if i % texts.len() != texts.len() - 1 {
            assert_eq!(tokens, &once[i % texts.len()], "{i}: {:?}", many[i]);
        }
    }
}

#[test]
fn scores_of_captions_are_those_of_pycocoevalcap() {
    let set = captions(&data("references.json"), &data("predictions.json"), Cover::All).unwrap();
    let items = tokens_of(&set);
    let all = scores(&items);
    let [one, two, three, four] = &all.bleu;
    let named = [
        ("BLEU-1", one),
        ("BLEU-2", two),
        ("BLEU-3", three),
        ("BLEU-4", four),
        ("ROUGE-L", &all.rouge_l),
        ("CIDEr", &all.cider_d),
    ];
    for (name, score) in named {
        equal(name, score, 1e-9);
    }
    // The plain formula neither clips nor penalises, so it is never smaller.
    let plain = cider(&items);
    assert_eq!(plain, all.cider);
    assert!(plain.each.iter().zip(&all.cider_d.each).all(|(plain, d)| plain >= &(d - 1e-12)));
    assert!(plain.corpus > all.cider_d.corpus);
}

fn equal(name: &str, score: &Score, tolerance: f64) {
    let expected = json("expected.json");
    let want = expected["corpus"][name].as_f64().unwrap();
    assert!((score.corpus - want).abs() <= tolerance, "{name}: {} is not {want}", score.corpus);
    let each = expected["per_image"].as_array().unwrap();
    assert_eq!(each.len(), score.each.len());
    for (want, have) in each.iter().zip(&score.each) {
        let number = want[name].as_f64().unwrap();
        assert!((have - number).abs() <= tolerance, "{name} of {}: {have} is not {number}", want["image_id"]);
    }
}

/// `PHEYE_METEOR=meteor-1.5.jar cargo test -p pheye-metrics -- --ignored`: needs Java and the jar, which the
/// PyPI package pycocoevalcap contains.
#[test]
#[ignore = "needs Java and METEOR's jar: PHEYE_METEOR=JAR cargo test -p pheye-metrics --test golden -- --ignored"]
fn meteor_is_that_of_its_jar() {
    let jar = std::env::var("PHEYE_METEOR").expect("PHEYE_METEOR names the jar");
    let set = captions(&data("references.json"), &data("predictions.json"), Cover::All).unwrap();
    equal("METEOR", &meteor(&tokens_of(&set), jar.as_ref()).unwrap(), 1e-9);
}

#[test]
fn without_java_or_the_jar_meteor_is_an_error() {
    let error = meteor(&[], Path::new("no/meteor.jar")).unwrap_err();
    assert_eq!(error.to_string(), "METEOR: java with no/meteor.jar");
}

#[test]
fn accuracies_are_those_of_the_official_evaluators() {
    let (mut vqa, mut text_vqa) = (Vec::new(), Vec::new());
    for row in rows("vqa.json") {
        let answers: Vec<&str> = row["answers"].as_array().unwrap().iter().map(text).collect();
        let prediction = text(&row["prediction"]);
        let id = &row["question_id"];
        assert_eq!(vqa_v2(&answers, prediction), row["vqa_accuracy"].as_f64().unwrap(), "{id}");
        assert_eq!(textvqa(&answers, prediction), row["textvqa_accuracy"].as_f64().unwrap(), "{id}");
        // If people agree, the prediction is not normalised.
        if answers.iter().any(|answer| answer.trim() != answers[0].trim()) {
            assert_eq!(normalise(prediction), text(&row["vqa_normalized_prediction"]), "{id}");
        }
        assert_eq!(normalise_textvqa(prediction), text(&row["textvqa_normalized_prediction"]), "{id}");
        let scored = |accuracy| Scored {
            question_id: id.as_i64().unwrap().into(),
            accuracy,
            answer_type: Some("other".to_owned()),
            question_type: None,
        };
        vqa.push(scored(vqa_v2(&answers, prediction)));
        text_vqa.push(scored(textvqa(&answers, prediction)));
    }
    let overall = &json("vqa.json")["overall"];
    let totals = Totals::of(&vqa);
    assert_eq!(totals.accuracy, overall["vqa_overall_percent"].as_f64().unwrap());
    assert_eq!(totals.answer_types["other"], totals.accuracy);
    assert!(totals.question_types.is_empty());
    let mean = overall["textvqa_mean"].as_f64().unwrap();
    assert!((Totals::of(&text_vqa).accuracy - 100.0 * mean).abs() <= 0.005);
}

#[test]
fn similarities_are_those_of_difflib() {
    let rows = rows("similarity.json");
    assert_eq!(rows.len(), 300);
    for row in rows {
        let (a, b) = (text(&row["a"]), text(&row["b"]));
        assert_eq!(ratio(a, b), row["ratio"].as_f64().unwrap(), "{a:?} and {b:?}");
        let longest = longest_match(a, b);
        assert_eq!(Value::from(vec![longest.a, longest.b, longest.len]), row["longest"], "{a:?} and {b:?}");
        let blocks: Vec<Value> =
            matching_blocks(a, b).iter().map(|block| vec![block.a, block.b, block.len].into()).collect();
        assert_eq!(Value::from(blocks), row["blocks"], "{a:?} and {b:?}");
    }
}

#[test]
fn kept_tokens_lack_punctuation_but_not_brackets() {
    let kept = |caption| kept(&tokenize(caption));
    assert_eq!(kept("\"Stop!\" -- (he said): 'no'..."), "stop -lrb- he said -rrb- no");
    assert_eq!(kept("!!! ?! # $ &"), "!!! ?! # $ &");
    assert_eq!(kept("1 1/2 cups"), "1\u{a0}1/2 cups");
}
