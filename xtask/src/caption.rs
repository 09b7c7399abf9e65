//! Infers a caption of an image from its questions and answers.
//!
//! A what-question reveals its answer and what it presupposes ("what is the blue shape?" presupposes blue). A
//! yes/no question confirms or excludes one value, and when all values but one are excluded, that one is
//! known.

use anyhow::{Result, bail, ensure};

const COLOURS: &[&str] = &["black", "blue", "brown", "gray", "green", "red", "teal", "yellow"];
const SHAPES: &[&str] = &["circle", "rectangle", "triangle"];

/// "a red circle", "a circle", "a red shape", or `None` if the questions reveal nothing.
pub(crate) fn infer(qa: &[(String, String)]) -> Result<Option<String>> {
    Ok(match (find(qa, COLOURS)?, find(qa, SHAPES)?) {
        (Some(colour), Some(shape)) => Some(format!("a {colour} {shape}")),
        (Some(colour), None) => Some(format!("a {colour} shape")),
        (None, Some(shape)) => Some(format!("a {shape}")),
        (None, None) => None,
    })
}

/// The one of `names` that the questions imply, or `None` if several are possible.
fn find(qa: &[(String, String)], names: &'static [&'static str]) -> Result<Option<&'static str>> {
    let mut possible = vec![true; names.len()];
    for (question, answer) in qa {
        let words: Vec<&str> = question.trim_end_matches('?').split_whitespace().collect();
        let asks = words.first() == Some(&"what");
        let negated = words.iter().any(|w| ["not", "no"].contains(w));
        for (i, name) in names.iter().enumerate() {
            let named = words.contains(name);
            let is_it = match answer.as_str() {
                answer if asks && (named || answer == *name) => true,
                "yes" if !asks && named => !negated,
                "no" if !asks && named => negated,
                "yes" | "no" => continue,
                _ if asks => continue,
                _ => bail!("`{question}` is answered `{answer}`"),
            };
            if is_it {
                let others = possible.iter_mut().enumerate().filter(|(j, _)| *j != i);
                others.for_each(|(_, p)| *p = false);
            } else {
                possible[i] = false;
            }
        }
    }
    let mut left = names.iter().zip(&possible).filter(|(_, p)| **p).map(|(n, _)| *n);
    let first = left.next();
    ensure!(first.is_some(), "the answers contradict each other: {qa:?}");
    Ok(if left.next().is_none() { first } else { None })
}

#[cfg(test)]
mod tests {
    use super::infer;

    fn caption(qa: &[(&str, &str)]) -> Option<String> {
        let qa: Vec<_> = qa.iter().map(|(q, a)| (q.to_string(), a.to_string())).collect();
        infer(&qa).unwrap()
    }

    #[test]
    fn what_questions_tell_what_they_ask_and_what_they_assume() {
        let full = Some("a blue rectangle".to_string());
        assert_eq!(caption(&[("what is the blue shape?", "rectangle")]), full);
        assert_eq!(caption(&[("what is the color of the rectangle?", "blue")]), full);
        assert_eq!(caption(&[("what color is the shape?", "blue")]), Some("a blue shape".into()));
        assert_eq!(caption(&[("what shape is present?", "circle")]), Some("a circle".into()));
    }

    #[test]
    fn yes_and_no_confirm_or_exclude() {
        assert_eq!(caption(&[("is there a teal shape?", "yes")]), Some("a teal shape".into()));
        assert_eq!(caption(&[("is no circle present?", "no")]), Some("a circle".into()));
        assert_eq!(caption(&[("does the image not contain a red shape?", "no")]), Some("a red shape".into()));
        assert_eq!(caption(&[("is there not a red shape in the image?", "yes")]), None);
        let two = [("is there a circle?", "no"), ("is there not a triangle?", "yes")];
        assert_eq!(caption(&two), Some("a rectangle".into()));
        let colours = ["black", "blue", "brown", "gray", "green", "red", "teal"];
        let questions = colours.map(|c| format!("is a {c} shape present?"));
        let seven: Vec<_> = questions.iter().map(|q| (q.as_str(), "no")).collect();
        assert_eq!(caption(&seven), Some("a yellow shape".into()));
        assert_eq!(caption(&seven[..6]), None);
        assert_eq!(caption(&[]), None);
    }

    #[test]
    fn contradictions_are_errors() {
        let qa = [("is there a circle?", "yes"), ("what shape is present?", "triangle")];
        let qa = qa.map(|(q, a)| (q.to_string(), a.to_string()));
        assert!(infer(&qa).is_err());
    }
}
