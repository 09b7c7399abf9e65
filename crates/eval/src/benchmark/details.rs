//! How large what a question asks about is in its image (section 3.3 of the paper).

use std::collections::HashMap;
use std::path::Path;

use pheye_metrics::read::{Id, Metric, Reference, json, references};
use pheye_metrics::relative_size::{Region, Tertile, compared_with, most_similar, tertiles};
use serde::Deserialize;

use super::{Files, Form, Item, Prediction};
use crate::Result;

/// The size of what each question asks about, as a share of its image's area, and the tertile of the question.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// The share of the area, for each answer; `None` where no text or object is known.
    pub shares: Vec<Option<f64>>,
    /// The tertile, for each answer whose share is known.
    pub tertiles: Vec<Option<Tertile>>,
}

impl Details {
    fn new(shares: Vec<Option<f64>>) -> Details {
        let known: Vec<f64> = shares.iter().flatten().copied().collect();
        let mut of_known = tertiles(&known).into_iter();
        let tertiles = shares.iter().map(|share| share.and_then(|_| of_known.next())).collect();
        Details { shares, tertiles }
    }

    /// The number of answers whose size is not known.
    pub fn left_out(&self) -> usize {
        self.shares.iter().filter(|share| share.is_none()).count()
    }

    /// The mean of `values`, one for each answer, in each tertile: small, medium, large. `None` in an empty tertile.
    pub fn means(&self, values: &[f64]) -> [Option<f64>; 3] {
        Tertile::ALL.map(|tertile| {
            let of = self.tertiles.iter().zip(values).filter(|(t, _)| **t == Some(tertile));
            let values: Vec<f64> = of.map(|(_, value)| *value).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        })
    }

    /// The largest share of the small and of the medium tertile.
    pub fn bounds(&self) -> [Option<f64>; 2] {
        [Tertile::Small, Tertile::Medium].map(|tertile| {
            let of = self.tertiles.iter().zip(&self.shares).filter(|(t, _)| **t == Some(tertile));
            of.filter_map(|(_, share)| *share).max_by(f64::total_cmp)
        })
    }
}

#[derive(Deserialize)]
struct OcrFile {
    data: Vec<OcrRow>,
}

#[derive(Deserialize)]
struct OcrRow {
    image_id: Id,
    ocr_info: Vec<OcrToken>,
}

#[derive(Deserialize)]
struct OcrToken {
    word: String,
    bounding_box: OcrBox,
}

/// Sides as shares of the image's.
#[derive(Deserialize)]
struct OcrBox {
    width: f64,
    height: f64,
}

#[derive(Deserialize)]
struct Instances {
    images: Vec<InstanceImage>,
    annotations: Vec<Instance>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct InstanceImage {
    id: u64,
    width: f64,
    height: f64,
}

#[derive(Deserialize)]
struct Instance {
    image_id: u64,
    category_id: u64,
    area: f64,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

/// The sizes of what `items` ask about, for the answers `predictions`, which are a prefix of them. `regions` is the file
/// of OCR tokens for TextVQA (`TextVQA_Rosetta_OCR_v0.2_val.json`), or of segmented objects for VQAv2
/// (`instances_val2014.json`); the scenes of this project have the boxes of their answers in the manifest. `None` if
/// there is nothing to know sizes from.
///
/// # Errors
/// When a file cannot be read or has another form.
pub fn details(
    form: Form,
    files: &Files,
    items: &[Item],
    predictions: &[Prediction],
    regions: Option<&Path>,
) -> Result<Option<Details>> {
    let items = &items[..predictions.len().min(items.len())];
    let shares = match (form, regions) {
        (Form::TextVqa, Some(path)) => of_tokens(path, files, items)?,
        (Form::Vqa, Some(path)) => of_objects(path, files, items)?,
        (Form::Manifest, _) if items.iter().any(|item| item.area.is_some()) => {
            let of = |(item, row): (&Item, &Prediction)| {
                let [width, height] = row.image_size.map(|side| side as f64);
                Some(item.area? / (width * height))
            };
            items.iter().zip(predictions).map(of).collect()
        }
        _ => return Ok(None),
    };
    Ok(Some(Details::new(shares)))
}

fn of_tokens(path: &Path, files: &Files, items: &[Item]) -> Result<Vec<Option<f64>>> {
    let file: OcrFile = json(path, "OCR tokens of TextVQA's form")?;
    let region = |token: OcrToken| {
        let OcrBox { width, height } = token.bounding_box;
        Region { text: token.word, share: width * height }
    };
    let tokens = file.data.into_iter().map(|row| {
        let regions: Vec<Region> = row.ocr_info.into_iter().map(region).collect();
        (row.image_id.to_string(), regions)
    });
    let tokens: HashMap<String, Vec<Region>> = tokens.collect();
    let references = by_id(references(Metric::TextVqa, &files.annotations)?);
    let share = |item: &Item| {
        let regions = tokens.get(item.image.trim_end_matches(".jpg"))?;
        Some(most_similar(regions, &references.get(item.id.as_str())?.answers)?.share)
    };
    Ok(items.iter().map(share).collect())
}

fn of_objects(path: &Path, files: &Files, items: &[Item]) -> Result<Vec<Option<f64>>> {
    let file: Instances = json(path, "instances of COCO's form")?;
    let areas: HashMap<u64, f64> =
        file.images.into_iter().map(|row| (row.id, row.width * row.height)).collect();
    let names: HashMap<u64, String> = file.categories.into_iter().map(|row| (row.id, row.name)).collect();
    let mut regions: HashMap<u64, Vec<Region>> = HashMap::new();
    for row in file.annotations {
        if let (Some(area), Some(name)) = (areas.get(&row.image_id), names.get(&row.category_id)) {
            let region = Region { text: name.clone(), share: row.area / area };
            regions.entry(row.image_id).or_default().push(region);
        }
    }
    let references = by_id(references(Metric::Vqa, &files.annotations)?);
    let share = |item: &Item| {
        let reference = references.get(item.id.as_str())?;
        let answers: Vec<&str> = reference.answers.iter().map(String::as_str).collect();
        let with = compared_with(reference.answer_type.as_deref()?, &item.question, &answers);
        Some(most_similar(regions.get(&coco_id(&item.image)?)?, &with)?.share)
    };
    Ok(items.iter().map(share).collect())
}

fn by_id(references: Vec<Reference>) -> HashMap<String, Reference> {
    references.into_iter().map(|reference| (reference.id.to_string(), reference)).collect()
}

/// The id in the name of an image of COCO, such as `COCO_val2014_000000000042.jpg`.
fn coco_id(image: &str) -> Option<u64> {
    image.trim_end_matches(".jpg").rsplit('_').next()?.parse().ok()
}
