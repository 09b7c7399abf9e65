//! Small data sets, and the packed one of the repository.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use pheye_data::{
    Augmentation, Content, Encode, Encoded, Example, Loader, LoaderOptions, Manifest, Mixture, OnBroken,
};
use pheye_image::Preprocess;

pub(crate) fn easy_vqa(split: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../data/easy-vqa/{split}.zip"))
}

/// Writes the lines into `dir/name` and opens it as a manifest.
pub(crate) fn manifest(dir: &Path, name: &str, lines: &[String]) -> Manifest {
    let path = dir.join(name);
    std::fs::write(&path, lines.join("\n")).unwrap();
    Manifest::open(path).unwrap()
}

pub(crate) fn texts(dir: &Path, name: &str, n: usize) -> Manifest {
    let lines: Vec<_> = (0..n).map(|i| format!("{{\"text\": \"{name} {i}\"}}")).collect();
    manifest(dir, name, &lines)
}

/// Uses bytes as tokens; the targets start after the question.
pub(crate) fn encode() -> Box<Encode> {
    Box::new(|text| {
        let (before, learnt) = match text {
            Example::Question(question, answer) => (question, answer),
            Example::Text(text) => ("", text),
        };
        let ids = before.bytes().chain(learnt.bytes()).map(u32::from).collect();
        Ok(Encoded { ids, loss_from: before.len() })
    })
}

pub(crate) fn options() -> LoaderOptions {
    LoaderOptions {
        batch: 8,
        content: Content::Questions,
        questions: Some(3),
        augmentation: Augmentation::parse(&["hflip", "vflip", "rot90", "shift:6"]).unwrap(),
        max_tokens: 500,
        cache_bytes: 1 << 20,
        decode: Default::default(),
        on_broken: OnBroken::Stop,
    }
}

pub(crate) fn loader(manifests: Vec<Manifest>, options: LoaderOptions) -> Loader {
    let mixture = Mixture::new(manifests, None, options.content, 5).unwrap();
    Loader::new(mixture, Preprocess::new(16, 2), encode(), options).unwrap()
}
