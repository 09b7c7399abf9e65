//! The size of what a question is about, relative to its image, and the split of questions into tertiles by it.
//!
//! Section 3.3 of the paper compares models on small, medium and large details. The relative size is
//! S = area of the answer / area of the image. The area of TextVQA is the box of the OCR token most similar to
//! the answers; that of VQAv2 is the segmented object whose category name is most similar to them.
//! Questions are then ranked by S and split into tertiles.

use crate::difflib::ratio;

/// A candidate for what an answer is about: an OCR token with its box, or an object with its category.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// The OCR token, or the category's name.
    pub text: String,
    /// Its share of the image's area, in 0..=1: width · height of a box in fractions, or area / (width · height)
    /// of a segmentation in pixels.
    pub share: f64,
}

/// The mean over `answers` of the similarity of `text` with each, in lower case; 0 without answers.
///
/// [`ratio`] is not symmetric: `text` is the first string.
pub fn similarity<S: AsRef<str>>(text: &str, answers: &[S]) -> f64 {
    let text = text.to_lowercase();
    let sum: f64 = answers.iter().map(|answer| ratio(&text, &answer.as_ref().to_lowercase())).sum();
    if answers.is_empty() { 0.0 } else { sum / answers.len() as f64 }
}

/// The region most similar to `answers`, the first of those that are equally similar, or none without regions.
///
/// For yes-or-no and counting questions of VQAv2, whose answers name nothing, the question takes the place of
/// the answers ([`compared_with`]).
pub fn most_similar<'a, S: AsRef<str>>(regions: &'a [Region], answers: &[S]) -> Option<&'a Region> {
    let mut best: Option<(f64, &Region)> = None;
    for region in regions {
        let similar = similarity(&region.text, answers);
        if best.is_none_or(|(most, _)| similar > most) {
            best = Some((similar, region));
        }
    }
    best.map(|(_, region)| region)
}

/// What the regions of a question of VQAv2 are compared with: its answers, or the question itself if its
/// `answer_type` is `yes/no` or `number`.
pub fn compared_with<'a>(answer_type: &str, question: &'a str, answers: &[&'a str]) -> Vec<&'a str> {
    match answer_type {
        "yes/no" | "number" => vec![question],
        _ => answers.to_vec(),
    }
}

/// A tertile of the questions by the size of what they are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tertile {
    /// The smallest tertile.
    Small,
    /// The middle tertile.
    Medium,
    /// The largest tertile.
    Large,
}

impl Tertile {
    /// All, from small to large.
    pub const ALL: [Tertile; 3] = [Tertile::Small, Tertile::Medium, Tertile::Large];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Tertile::Small => "small",
            Tertile::Medium => "medium",
            Tertile::Large => "large",
        }
    }
}

/// The tertile of each question, by the rank of its size. Equal sizes rank in their order here. If the number is
/// not divisible by three, the smaller tertiles have one question more.
pub fn tertiles(sizes: &[f64]) -> Vec<Tertile> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|&i, &j| sizes[i].total_cmp(&sizes[j]));
    let mut tertiles = vec![Tertile::Small; sizes.len()];
    for (rank, &i) in order.iter().enumerate() {
        tertiles[i] = Tertile::ALL[3 * rank / sizes.len()];
    }
    tertiles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(text: &str, share: f64) -> Region {
        Region { text: text.to_owned(), share }
    }

    #[test]
    fn the_first_of_the_most_similar_regions_is_taken() {
        let regions = [region("STOP", 0.1), region("ACME", 0.2), region("acme", 0.3)];
        assert_eq!(most_similar(&regions, &["acme", "Acme inc"]), Some(&regions[1]));
        assert_eq!(most_similar(&[], &["acme"]), None);
        assert_eq!(compared_with("number", "how many dogs?", &["2"]), ["how many dogs?"]);
        assert_eq!(compared_with("other", "what is it?", &["dog", "cat"]), ["dog", "cat"]);
    }

    #[test]
    fn tertiles_are_by_rank() {
        use Tertile::{Large, Medium, Small};
        assert_eq!(tertiles(&[0.5, 0.1, 0.3, 0.2, 0.2]), [Large, Small, Medium, Small, Medium]);
        assert_eq!(tertiles(&[]), []);
        assert_eq!(tertiles(&[0.2; 3]), [Small, Medium, Large]);
    }
}
