//! The benchmarks of the paper, from the files that their authors publish.
//!
//! A benchmark is a row of [`BENCHMARKS`]: the form of its files, their usual names for each split, what is asked, and
//! how answers are scored. [`items`] reads the questions, [`Predictions`] asks them and keeps the answers in a file
//! that grows, and [`score`] compares the answers with the references as the official codes do.

mod details;
mod forms;
mod predictions;
mod results;
mod score;

pub use details::{Details, details};
pub use forms::{Form, Item, items};
pub use predictions::{Answered, Ask, Asking, Prediction, Predictions};
pub use results::results;
pub use score::{CaptionScores, Scores, score};

use std::path::{Path, PathBuf};

use pheye_metrics::read::Metric;

/// A benchmark.
#[derive(Debug)]
pub struct Benchmark {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its name in reports.
    pub title: &'static str,
    /// The form of its files.
    pub form: Form,
    /// What is asked.
    pub prompt: Prompt,
    /// How answers are scored.
    pub rule: Rule,
    /// Longest answer in tokens.
    pub new_tokens: usize,
    /// Its splits; the first is the default.
    pub splits: &'static [Split],
}

/// What is asked about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// The question alone.
    Bare,
    /// The question, and on the next line "Answer the question using a single word or phrase.", as in training.
    Short,
    /// [`Prompt::Short`] for the question as Python's `capitalize()` writes it, as lmms-eval asks TextVQA.
    ShortCapitalized,
    /// This instruction.
    Instruction(&'static str),
}

/// How answers are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// An accuracy of short answers, as the benchmark's evaluation code computes it.
    Questions(Metric),
    /// The scores of captions, as pycocoevalcap computes them.
    Captions,
    /// The share of answers that equal the expected one.
    Exact,
}

/// A split of a benchmark, with the usual names of its files relative to the folder of the data.
#[derive(Debug)]
pub struct Split {
    /// Its name.
    pub name: &'static str,
    /// The file of the questions or images; empty if the data is the file itself.
    pub questions: &'static str,
    /// The file of the references, if it is another. `None` if they are in `questions`.
    pub annotations: Option<&'static str>,
    /// The folder of the images; empty if the data contains them.
    pub images: &'static str,
    /// Whether the references are published. Otherwise, the results are submitted to a server.
    pub scored: bool,
}

const SHORT_ANSWER: &str = "Answer the question using a single word or phrase.";
const ONE_SENTENCE: &str = "Provide a one-sentence caption for the provided image.";
/// The instruction for the long descriptions of DOCCI; the paper's is not published.
const IN_DETAIL: &str = "Provide a detailed description of the provided image.";

/// A split whose references are published in the file of the questions.
const fn split(name: &'static str, questions: &'static str, images: &'static str) -> Split {
    Split { name, questions, annotations: None, images, scored: true }
}

/// A split whose references are published in another file.
const fn with_annotations(
    name: &'static str,
    questions: &'static str,
    annotations: &'static str,
    images: &'static str,
) -> Split {
    Split { name, questions, annotations: Some(annotations), images, scored: true }
}

/// A split whose references are not published.
const fn hidden(name: &'static str, questions: &'static str, images: &'static str) -> Split {
    Split { name, questions, annotations: None, images, scored: false }
}

/// The benchmarks, in the order of the paper's Table 1, then the others.
pub const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "vqav2",
        title: "VQAv2",
        form: Form::Vqa,
        prompt: Prompt::Short,
        rule: Rule::Questions(Metric::Vqa),
        new_tokens: 16,
        splits: &[
            with_annotations(
                "val",
                "v2_OpenEnded_mscoco_val2014_questions.json",
                "v2_mscoco_val2014_annotations.json",
                "val2014",
            ),
            hidden("test-dev", "v2_OpenEnded_mscoco_test-dev2015_questions.json", "test2015"),
            hidden("test", "v2_OpenEnded_mscoco_test2015_questions.json", "test2015"),
        ],
    },
    Benchmark {
        name: "textvqa",
        title: "TextVQA",
        form: Form::TextVqa,
        prompt: Prompt::ShortCapitalized,
        rule: Rule::Questions(Metric::TextVqa),
        new_tokens: 16,
        splits: &[
            split("val", "TextVQA_0.5.1_val.json", "train_images"),
            hidden("test", "TextVQA_0.5.1_test.json", "test_images"),
        ],
    },
    Benchmark {
        name: "nocaps",
        title: "NoCaps",
        form: Form::Coco,
        prompt: Prompt::Instruction(ONE_SENTENCE),
        rule: Rule::Captions,
        new_tokens: 64,
        splits: &[
            split("val", "nocaps_val_4500_captions.json", "images"),
            hidden("test", "nocaps_test_image_info.json", "images"),
        ],
    },
    Benchmark {
        name: "textcaps",
        title: "TextCaps",
        form: Form::TextCaps,
        prompt: Prompt::Instruction(ONE_SENTENCE),
        rule: Rule::Captions,
        new_tokens: 64,
        splits: &[
            split("val", "TextCaps_0.1_val.json", "train_images"),
            hidden("test", "TextCaps_0.1_test.json", "test_images"),
        ],
    },
    Benchmark {
        name: "docci",
        title: "DOCCI",
        form: Form::Docci,
        prompt: Prompt::Instruction(IN_DETAIL),
        rule: Rule::Captions,
        new_tokens: 512,
        splits: &[
            split("test", "docci_descriptions.jsonlines", "images"),
            split("qual_dev", "docci_descriptions.jsonlines", "images"),
            split("qual_test", "docci_descriptions.jsonlines", "images"),
        ],
    },
    Benchmark {
        name: "coco",
        title: "COCO captions",
        form: Form::Coco,
        prompt: Prompt::Instruction(ONE_SENTENCE),
        rule: Rule::Captions,
        new_tokens: 64,
        splits: &[split("val", "captions_val2014.json", "val2014")],
    },
    Benchmark {
        name: "okvqa",
        title: "OK-VQA",
        form: Form::Vqa,
        prompt: Prompt::Short,
        rule: Rule::Questions(Metric::OkVqa),
        new_tokens: 16,
        splits: &[with_annotations(
            "val",
            "OpenEnded_mscoco_val2014_questions.json",
            "mscoco_val2014_annotations.json",
            "val2014",
        )],
    },
    Benchmark {
        name: "aokvqa",
        title: "A-OKVQA",
        form: Form::AOkVqa,
        prompt: Prompt::Short,
        rule: Rule::Questions(Metric::AOkVqa),
        new_tokens: 16,
        splits: &[
            split("val", "aokvqa_v1p0_val.json", "val2017"),
            hidden("test", "aokvqa_v1p0_test.json", "test2017"),
        ],
    },
    Benchmark {
        name: "gqa",
        title: "GQA",
        form: Form::Gqa,
        prompt: Prompt::Short,
        rule: Rule::Questions(Metric::Gqa),
        new_tokens: 16,
        splits: &[
            split("testdev", "testdev_balanced_questions.json", "images"),
            split("val", "val_balanced_questions.json", "images"),
        ],
    },
    Benchmark {
        name: "ocrvqa",
        title: "OCR-VQA",
        form: Form::OcrVqa,
        prompt: Prompt::Short,
        rule: Rule::Exact,
        new_tokens: 16,
        splits: &[split("test", "dataset.json", "images"), split("val", "dataset.json", "images")],
    },
    Benchmark {
        name: "easy-vqa",
        title: "easy-VQA",
        form: Form::Manifest,
        prompt: Prompt::Bare,
        rule: Rule::Exact,
        new_tokens: 16,
        splits: &[split("test", "", "")],
    },
    Benchmark {
        name: "scene-text",
        title: "Scene text",
        form: Form::Manifest,
        prompt: Prompt::Bare,
        rule: Rule::Exact,
        new_tokens: 16,
        splits: &[split("test", "", "")],
    },
];

impl Benchmark {
    /// The benchmark with this name.
    pub fn named(name: &str) -> Option<&'static Benchmark> {
        BENCHMARKS.iter().find(|benchmark| benchmark.name == name)
    }

    /// What is asked for the question `question`, which is empty where an image is to be described.
    pub fn instruction(&self, question: &str) -> String {
        match self.prompt {
            Prompt::Bare => question.to_owned(),
            Prompt::Short => format!("{question}\n{SHORT_ANSWER}"),
            Prompt::ShortCapitalized => format!("{}\n{SHORT_ANSWER}", capitalized(question)),
            Prompt::Instruction(instruction) => instruction.to_owned(),
        }
    }
}

/// The first letter in upper case and the others in lower case.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.flat_map(char::to_lowercase)).collect()
}

/// The files of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The questions or images.
    pub questions: PathBuf,
    /// The references; the same file as `questions` for most benchmarks.
    pub annotations: PathBuf,
    /// The folder or archive of the images.
    pub images: PathBuf,
}

impl Split {
    /// The files by their usual names in the folder `data`. Of a manifest, `data` is the file, folder or archive.
    pub fn files(&self, data: &Path) -> Files {
        let within = |name: &str| if name.is_empty() { data.to_owned() } else { data.join(name) };
        let questions = within(self.questions);
        let annotations = self.annotations.map_or_else(|| questions.clone(), within);
        Files { questions, annotations, images: within(self.images) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for benchmark in BENCHMARKS {
            assert_eq!(Benchmark::named(benchmark.name).unwrap().title, benchmark.title);
            assert!(!benchmark.splits.is_empty());
        }
        assert!(Benchmark::named("none").is_none());
    }

    #[test]
    fn questions_are_asked_as_in_training() {
        let ask = |name: &str| Benchmark::named(name).unwrap().instruction("what does the ACME sign say?");
        assert_eq!(
            ask("vqav2"),
            "what does the ACME sign say?\nAnswer the question using a single word or phrase."
        );
        assert_eq!(
            ask("textvqa"),
            "What does the acme sign say?\nAnswer the question using a single word or phrase."
        );
        assert_eq!(ask("textcaps"), "Provide a one-sentence caption for the provided image.");
        assert_eq!(ask("scene-text"), "what does the ACME sign say?");
    }

    #[test]
    fn files_have_their_published_names() {
        let files = Benchmark::named("vqav2").unwrap().splits[0].files("/d".as_ref());
        assert_eq!(files.annotations, Path::new("/d/v2_mscoco_val2014_annotations.json"));
        assert_eq!(files.images, Path::new("/d/val2014"));
        let files = Benchmark::named("scene-text").unwrap().splits[0].files("/d/t.zip".as_ref());
        assert_eq!((files.questions, files.images), ("/d/t.zip".into(), "/d/t.zip".into()));
    }
}
