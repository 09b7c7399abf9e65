//! Questions and images in the forms of the benchmarks' official files.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use pheye_data::{Content, Manifest, Store};
use pheye_metrics::read::{Entries, Id, json, lines, none_of, text, unique};
use serde::Deserialize;

use super::Files;
use crate::{Error, Result};

/// The form of a benchmark's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"questions": [{"question_id", "image_id", "question"}]}`; the images are COCO's.
    Vqa,
    /// `{"data": [{"question_id", "image_id", "question"}]}`.
    TextVqa,
    /// `[{"question_id", "image_id", "question"}]`.
    AOkVqa,
    /// `{ID: {"imageId", "question"}}`.
    Gqa,
    /// `{KEY: {"imageURL", "questions", "answers", "split"}}`.
    OcrVqa,
    /// `{"images": [{"id", "file_name"}]}`.
    Coco,
    /// `{"data": [{"image_id"}]}`.
    TextCaps,
    /// A line `{"example_id", "split", "image_file"}` for each image.
    Docci,
    /// A manifest of this project.
    Manifest,
}

/// A question about an image, or an image to be described.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The id of the question, or of the image if it is to be described.
    pub id: Id,
    /// The name of the image in its store.
    pub image: String,
    /// The question; empty if the image is to be described.
    pub question: String,
    /// The expected answer, where a single one is in the file of the questions.
    pub expected: Option<String>,
    /// The area of what the answer is about in pixels, in scenes whose manifest has its box.
    pub area: Option<f64>,
}

impl Item {
    fn new(id: Id, image: String, question: String) -> Item {
        Item { id, image, question, expected: None, area: None }
    }
}

#[derive(Deserialize)]
struct Row {
    question_id: Id,
    image_id: Id,
    question: String,
}

#[derive(Deserialize)]
struct VqaFile {
    questions: Vec<Row>,
}

#[derive(Deserialize)]
struct TextVqaFile {
    data: Vec<Row>,
}

#[derive(Deserialize)]
struct GqaRow {
    #[serde(rename = "imageId")]
    image: String,
    question: String,
}

#[derive(Deserialize)]
struct OcrVqaRow {
    #[serde(rename = "imageURL")]
    url: String,
    questions: Vec<String>,
    answers: Vec<String>,
    split: u8,
}

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: Id,
    file_name: String,
}

#[derive(Deserialize)]
struct TextCapsFile {
    data: Vec<TextCapsRow>,
}

#[derive(Deserialize)]
struct TextCapsRow {
    image_id: Id,
}

#[derive(Deserialize)]
struct DocciRow {
    example_id: Id,
    split: String,
    image_file: String,
}

/// The questions of a split, in an order in which those about one image are adjacent.
///
/// # Errors
/// When a file cannot be read or has another form, has no questions or has an id twice, or lacks an image.
pub fn items(form: Form, split: &str, files: &Files) -> Result<Vec<Item>> {
    let path = &files.questions;
    let of = |row: Row, image: String| Item::new(row.question_id, image, row.question);
    let mut items: Vec<Item> = match form {
        Form::Vqa => {
            let file: VqaFile = json(path, "questions of VQA's form")?;
            let prefix = coco_prefix(&files.images);
            let each = file.questions.into_iter().map(|row| {
                let image = format!("{prefix}{:0>12}.jpg", row.image_id.as_str());
                of(row, image)
            });
            each.collect()
        }
        Form::TextVqa => {
            let file: TextVqaFile = json(path, "questions of TextVQA's form")?;
            let each = file.data.into_iter().map(|row| {
                let image = format!("{}.jpg", row.image_id);
                of(row, image)
            });
            each.collect()
        }
        Form::AOkVqa => {
            let rows: Vec<Row> = json(path, "questions of A-OKVQA's form")?;
            let each = rows.into_iter().map(|row| {
                let image = format!("{:0>12}.jpg", row.image_id.as_str());
                of(row, image)
            });
            each.collect()
        }
        Form::Gqa => {
            let Entries(rows) = json::<Entries<GqaRow>>(path, "questions of GQA's form")?;
            let each = rows
                .into_iter()
                .map(|(id, row)| Item::new(id.as_str().into(), format!("{}.jpg", row.image), row.question));
            each.collect()
        }
        Form::OcrVqa => ocr_vqa(path, split)?,
        Form::Coco => {
            let file: CocoFile = json(path, "images of COCO's form")?;
            file.images.into_iter().map(|row| Item::new(row.id, row.file_name, String::new())).collect()
        }
        Form::TextCaps => {
            let file: TextCapsFile = json(path, "images of TextCaps' form")?;
            let mut seen = HashSet::new();
            // A row for each caption: an image has several.
            let rows = file.data.into_iter().filter(|row| seen.insert(row.image_id.clone()));
            rows.map(|row| {
                let image = format!("{}.jpg", row.image_id);
                Item::new(row.image_id, image, String::new())
            })
            .collect()
        }
        Form::Docci => docci(path, split)?,
        Form::Manifest => manifest(path)?,
    };
    check(path, &items)?;
    let mut first: HashMap<String, usize> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        first.entry(item.image.clone()).or_insert(i);
    }
    // Stable, so that the questions about an image keep their order.
    items.sort_by_key(|item| first[&item.image]);
    present(&files.images, &items)?;
    Ok(items)
}

/// Fails if there are no questions, or one has the id of another.
fn check(path: &Path, items: &[Item]) -> Result<()> {
    if items.is_empty() {
        return Err(Error::NoQuestions(path.display().to_string()));
    }
    let ids = items.iter().map(|item| item.id.as_str());
    Ok(unique(&path.display().to_string(), "questions or images occur twice, with the ids", ids)?)
}

/// Fails if images are missing.
fn present(images: &Path, items: &[Item]) -> Result<()> {
    let store = Store::open(images)?;
    let names = items.chunk_by(|a, b| a.image == b.image).map(|same| same[0].image.as_str());
    let missing: Vec<&str> = names.filter(|name| !store.contains(name)).collect();
    Ok(none_of(&images.display().to_string(), "images are missing", &missing)?)
}

/// The names of COCO's images of 2014 and 2015 begin with the name of their folder.
fn coco_prefix(images: &Path) -> String {
    let stem = images.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let known = ["train2014", "val2014", "test2014", "test2015"];
    known.iter().find(|name| **name == stem).map_or_else(String::new, |name| format!("COCO_{name}_"))
}

fn ocr_vqa(path: &Path, split: &str) -> Result<Vec<Item>> {
    let Entries(rows) = json::<Entries<OcrVqaRow>>(path, "questions of OCR-VQA's form")?;
    let wanted = match split {
        "train" => 1,
        "val" => 2,
        _ => 3,
    };
    let mut items = Vec::new();
    let mut odd = Vec::new();
    for (key, row) in rows.iter().filter(|(_, row)| row.split == wanted) {
        if row.questions.len() != row.answers.len() {
            odd.push(key.as_str());
            continue;
        }
        let ending = row.url.rsplit_once('.').map_or("jpg", |(_, ending)| ending);
        for (i, (question, answer)) in row.questions.iter().zip(&row.answers).enumerate() {
            let id = format!("{key}_{i}");
            let mut item = Item::new(id.as_str().into(), format!("{key}.{ending}"), question.clone());
            item.expected = Some(answer.clone());
            items.push(item);
        }
    }
    none_of(&path.display().to_string(), "images whose numbers of questions and answers differ", &odd)?;
    Ok(items)
}

fn docci(path: &Path, split: &str) -> Result<Vec<Item>> {
    let rows: Vec<DocciRow> = lines(&text(path)?, path, "lines of DOCCI")?;
    let of_split = rows.into_iter().filter(|row| row.split == split);
    Ok(of_split.map(|row| Item::new(row.example_id, row.image_file, String::new())).collect())
}

/// What the lines of scenes have beside a manifest's keys.
#[derive(Deserialize, Default)]
struct Boxes {
    #[serde(default)]
    boxes: Vec<Option<[f64; 4]>>,
}

fn manifest(path: &Path) -> Result<Vec<Item>> {
    let manifest = Manifest::open(path)?;
    let lines = boxes(path, &manifest)?;
    let mut items = Vec::new();
    // An image may be on several lines.
    let mut asked_before: HashMap<&str, usize> = HashMap::new();
    for (item, boxes) in manifest.items.iter().zip(lines).filter(|(item, _)| item.has(Content::Questions)) {
        let Some(image) = &item.image else { continue };
        for (i, (question, answer)) in item.qa.iter().enumerate() {
            let number = asked_before.entry(image).or_default();
            let id = format!("{image}#{number}");
            *number += 1;
            let mut asked = Item::new(id.as_str().into(), image.clone(), question.clone());
            asked.expected = Some(answer.clone());
            asked.area = boxes.boxes.get(i).copied().flatten().map(|[_, _, w, h]| w * h);
            items.push(asked);
        }
    }
    Ok(items)
}

/// The boxes of the answers in each line of a manifest, which are no part of a [`Manifest`].
fn boxes(path: &Path, manifest: &Manifest) -> Result<Vec<Boxes>> {
    let text = if path.extension().is_some_and(|ending| ending == "jsonl") {
        text(path)?
    } else {
        String::from_utf8_lossy(&manifest.store.read("manifest.jsonl")?).into_owned()
    };
    let lines: Vec<&str> = text.lines().collect();
    // Lines without boxes, or with boxes of another form, have no areas.
    let of = |line: usize| lines.get(line.saturating_sub(1)).and_then(|line| serde_json::from_str(line).ok());
    Ok(manifest.items.iter().map(|item| of(item.line).unwrap_or_default()).collect())
}
