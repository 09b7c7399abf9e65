//! The options of `pheye ask`, with the nano model of this repository.

mod common;

use common::{ends, refuses, run, s, top};
use serde_json::Value;

const COLOR: &str = "what color is the shape?";

fn ask(more: &[&str]) -> String {
    let image = top().join("picture.png");
    ends(0, [&["ask", s(&image), COLOR, "--device", "cpu"], more].concat()).out
}

fn json(more: &[&str]) -> Vec<Value> {
    let out = ask(&[more, &["--json"]].concat());
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_way_to_generate() {
    let greedy = ask(&[]);
    assert_eq!(greedy.lines().count(), 1);
    // The trained model is confident, so that beam search and mild sampling give the greedy answer.
    assert_eq!(ask(&["--beams", "3", "--length-penalty", "-0.5", "--early-stopping", "never"]), greedy);
    assert_eq!(ask(&["--temperature", "0.1", "--top-k", "3", "--top-p", "0.5", "--min-p", "0.2"]), greedy);
    let wild = ["--temperature", "9", "--top-k", "0", "--max-new-tokens", "8"];
    let seeded = |seed| ask(&[&wild[..], &["--seed", seed]].concat());
    assert_eq!(seeded("1"), seeded("1"));
    assert_ne!(seeded("1"), seeded("2"));
    let longer = json(&["--min-new-tokens", "5", "--no-repeat-ngram", "1", "--repetition-penalty", "1.2"]);
    assert!(longer[0]["tokens"].as_u64().unwrap() >= 5, "{longer:?}");
    // Stopped before the second letter of the answer.
    let answer = greedy.trim();
    let (first, rest) = answer.split_at(1);
    assert_eq!(ask(&["--stop", "nowhere", "--stop", &rest[..1]]).trim(), first);
}

#[test]
fn several_questions_answers_and_images() {
    let image = top().join("picture.png");
    let (shape, blue) = ("what shape is in the image?", "is it a blue shape?");
    let also = ["--also", s(&image), blue];
    let together = json(&[&[shape][..], &also].concat());
    let questions: Vec<&str> = together.iter().map(|a| a["question"].as_str().unwrap()).collect();
    assert_eq!(questions, [COLOR, shape, blue]);
    for answer in &together {
        let question = answer["question"].as_str().unwrap();
        let alone = ends(0, ["ask", s(&image), question, "--device", "cpu"]).out;
        assert_eq!(answer["answer"], alone.trim());
        assert_eq!(answer["image"], s(&image));
    }
    let text = ask(&[&[shape][..], &also].concat());
    for part in questions.iter().copied().chain(together.iter().map(|a| a["answer"].as_str().unwrap())) {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let samples = json(&["--answers", "4", "--temperature", "5", "--top-k", "0"]);
    assert_eq!(samples.len(), 4);
    assert!(samples.iter().any(|a| a["answer"] != samples[0]["answer"]), "{samples:?}");
    assert_eq!(json(&["--answers", "2", "--beams", "3"]).len(), 2);
}

#[test]
fn options_at_odds_are_named() {
    let image = top().join("picture.png");
    let refused =
        |more: &[&str], parts: &[&str]| _ = refuses([&["ask", s(&image), COLOR], more].concat(), parts);
    refused(&["--temperature", "0"], &["--temperature", "above 0"]);
    refused(&["--temperature", "-1"], &["--temperature", "above 0"]);
    refused(&["--top-p", "1.5"], &["--top-p", "from 0 to 1"]);
    refused(&["--min-p", "-0.5"], &["--min-p", "from 0 to 1"]);
    refused(&["--beams", "0"], &["--beams"]);
    refused(&["--beams", "2", "--seed", "3"], &["--beams", "--sample"]);
    refused(&["--answers", "2"], &["--answers", "--beams"]);
    refused(&["--length-penalty", "2"], &["--length-penalty", "--beams"]);
    refused(&["--early-stopping", "never"], &["--early-stopping", "--beams"]);
    refused(&["--repetition-penalty", "0"], &["--repetition-penalty"]);
    refused(&["--min-new-tokens", "9", "--max-new-tokens", "8"], &["--min-new-tokens"]);
    refused(&["--stop", ""], &["--stop"]);
    // Errors that the command-line parser reports itself (exit code 2).
    for wrong in [&["--early-stopping", "maybe"][..], &["--also", "one.png"], &["--top-k", "-3"]] {
        let ended = run(common::pheye([&["ask", s(&image), COLOR], wrong].concat()));
        assert_eq!(ended.code, Some(2), "{ended:#?}");
    }
}

#[test]
fn help_teaches_by_groups() {
    let help = ends(0, ["ask", "--help"]).out;
    for part in
        ["Search with beams:", "Sampling:", "Repetition:", "Length and end of answers:", "--top-p 0.9"]
    {
        assert!(help.contains(part), "no `{part}` in\n{help}");
    }
}

/// `--look` writes a heat map for each token and a page of them, and does not change the answer.
#[test]
fn looks_are_drawn_for_each_answer() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("new/looks");
    assert_eq!(ask(&["--look", s(&dir)]), ask(&[]));
    let page = std::fs::read_to_string(dir.join("look.html")).unwrap();
    let answer = ask(&[]);
    let parts = [COLOR, "data:image/png;base64,", "\"global\"", answer.trim()];
    parts.iter().for_each(|part| assert!(page.contains(part), "no `{part}`"));
    let map = image::open(dir.join("look-1-1.png")).unwrap();
    assert_eq!((map.width(), map.height()), (448, 448));
    ask(&["--look", s(&dir), "--beams", "2", "--answers", "2"]);
    assert!(dir.join("look-2-1.png").exists());
    let file = s(&dir).to_owned() + "/look.html";
    let image = top().join("picture.png");
    refuses(["ask", s(&image), COLOR, "--look", &file], &["look.html"]);
}
