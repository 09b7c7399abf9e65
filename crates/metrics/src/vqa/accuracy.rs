//! The score of one question, by each benchmark's rule.

use super::normalise::{normalise, normalise_textvqa, one_line};

/// The accuracy of `prediction` by the rule of VQAv2, in 0..=1: [`super::normalise`] is applied only if the
/// answers differ, and the accuracy is the mean over the answers of min(1, matches among the others / 3). The
/// official data has ten answers to each question; no answers give 0.
///
/// ```
/// let answers = ["2", "two", "two", "3", "3", "3", "3", "3", "3", "3"];
/// assert!((pheye_metrics::vqa::vqa_v2(&answers, "Two") - 0.9).abs() < 1e-12);
/// ```
pub fn vqa_v2<S: AsRef<str>>(answers: &[S], prediction: &str) -> f64 {
    let answers: Vec<String> = answers.iter().map(|answer| one_line(answer.as_ref())).collect();
    let prediction = one_line(prediction);
    if answers.windows(2).all(|pair| pair[0] == pair[1]) {
        return leave_one_out(&answers, &prediction);
    }
    let answers: Vec<String> = answers.iter().map(|answer| normalise(answer)).collect();
    leave_one_out(&answers, &normalise(&prediction))
}

/// The accuracy of `prediction` by the rule of TextVQA, in 0..=1, which OK-VQA is evaluated with too (as
/// lmms-eval does, without stemming): like [`vqa_v2`], but answers and prediction always pass through
/// [`super::normalise_textvqa`].
pub fn textvqa<S: AsRef<str>>(answers: &[S], prediction: &str) -> f64 {
    let answers: Vec<String> = answers.iter().map(|answer| normalise_textvqa(answer.as_ref())).collect();
    leave_one_out(&answers, &normalise_textvqa(prediction))
}

/// The mean over the answers of min(1, matches among the others / 3), summed in the order of the answers.
fn leave_one_out(answers: &[String], prediction: &str) -> f64 {
    let matches = answers.iter().filter(|answer| *answer == prediction).count();
    let others = |answer: &String| matches - usize::from(answer == prediction);
    let sum: f64 = answers.iter().map(|answer| third(others(answer))).sum();
    if answers.is_empty() { 0.0 } else { sum / answers.len() as f64 }
}

/// min(1, n / 3).
fn third(n: usize) -> f64 {
    (n as f64 / 3.0).min(1.0)
}

/// The accuracy of a direct answer by the rule of A-OKVQA, in 0..=1: min(1, matches / 3) of the text as it is.
pub fn aokvqa_direct<S: AsRef<str>>(answers: &[S], prediction: &str) -> f64 {
    third(answers.iter().filter(|answer| answer.as_ref() == prediction).count())
}

/// The accuracy of a choice by the rule of A-OKVQA: 1 if it is the text of the correct choice, otherwise 0.
pub fn aokvqa_choice<S: AsRef<str>>(choices: &[S], correct: usize, prediction: &str) -> f64 {
    f64::from(u8::from(choices.get(correct).is_some_and(|choice| choice.as_ref() == prediction)))
}

/// The accuracy by the rule of GQA: 1 if `prediction` is the answer, in lower case and without a full stop at
/// the end, otherwise 0.
pub fn gqa(answer: &str, prediction: &str) -> f64 {
    f64::from(u8::from(plain(answer) == plain(prediction)))
}

fn plain(text: &str) -> String {
    let text = text.to_lowercase();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_answers_are_compared_as_they_are() {
        assert_eq!(vqa_v2(&["Yes"; 10], "yes"), 0.0);
        assert_eq!(vqa_v2(&["Yes"; 10], " Yes\n"), 1.0);
        assert_eq!(textvqa(&["Yes"; 10], "yes"), 1.0);
    }

    #[test]
    fn the_rules_of_gqa_and_a_okvqa() {
        assert_eq!([gqa("no", "No."), gqa("no", "no.."), gqa("no", "yes")], [1.0, 0.0, 0.0]);
        let answers = ["cup", "cup", "mug", "glass"];
        assert_eq!(["cup", "mug", "Cup"].map(|p| aokvqa_direct(&answers, p)), [2.0 / 3.0, 1.0 / 3.0, 0.0]);
        assert_eq!([0, 1, 9].map(|correct| aokvqa_choice(&["a", "b"], correct, "b")), [0.0, 1.0, 0.0]);
    }
}
