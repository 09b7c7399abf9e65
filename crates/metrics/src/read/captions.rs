//! Captions: references of COCO, NoCaps, TextCaps and DOCCI, and results for them.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::id::Id;
use super::json::{self, name};
use super::matching::{covered, in_order, none_of, unique};
use super::{Cover, Warning, warning};
use crate::caption::{Scores, Tokenized, scores};
use crate::ptb::{self, has_line_break, kept, tokenize_all};
use crate::{Error, Result};

/// Maximum length of a caption in bytes. The tokenizer takes quadratic time in the length of a text without spaces.
const LONGEST: usize = 16384;

/// Captions with their references, in the order of the references' images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptionSet {
    /// The ids of the images.
    pub images: Vec<Id>,
    /// The captions to score, one for each image.
    pub captions: Vec<String>,
    /// The captions that people wrote, at least one for each image.
    pub references: Vec<Vec<String>>,
    /// What is doubtful about them.
    pub warnings: Vec<Warning>,
}

impl CaptionSet {
    /// The images for which `keep` returns true, for example those of one domain of NoCaps. Their CIDEr is not
    /// that in the whole set, because a set has its own document frequencies.
    pub fn filtered(&self, keep: impl Fn(&Id) -> bool) -> CaptionSet {
        let kept = |i: &usize| keep(&self.images[*i]);
        let at: Vec<usize> = (0..self.images.len()).filter(kept).collect();
        CaptionSet {
            images: at.iter().map(|&i| self.images[i].clone()).collect(),
            captions: at.iter().map(|&i| self.captions[i].clone()).collect(),
            references: at.iter().map(|&i| self.references[i].clone()).collect(),
            warnings: Vec::new(),
        }
    }
}

/// The references of one image.
struct Image {
    id: Id,
    captions: Vec<String>,
}

/// COCO's form: `captions_val2014.json`, `nocaps_val_4500_captions.json`.
#[derive(Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<Caption>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: Id,
}

#[derive(Deserialize)]
struct Caption {
    image_id: Id,
    caption: String,
}

/// TextCaps' form: a row for each caption, each with all captions of its image.
#[derive(Deserialize)]
struct TextCaps {
    data: Vec<TextCapsRow>,
}

#[derive(Deserialize)]
struct TextCapsRow {
    image_id: Id,
    reference_strs: Vec<String>,
}

/// A line of DOCCI: one description of an image.
#[derive(Deserialize)]
struct Docci {
    example_id: Id,
    description: String,
}

/// A file of references in one of the forms that are one JSON value.
#[derive(Deserialize)]
struct Form {
    images: Option<serde::de::IgnoredAny>,
    data: Option<serde::de::IgnoredAny>,
}

/// Reads references (COCO, NoCaps, TextCaps or DOCCI) and results
/// (`[{"image_id": 42, "caption": "a dog"}]`) of the images that `cover`
/// selects.
///
/// # Errors
/// Returns [`Error::Io`] or [`Error::Form`] for a file that is not of its form, and [`Error::Entries`] if ids
/// occur twice, an image has no reference, a caption is longer than 16384 bytes, or results and images do not match.
pub fn captions(references: &Path, results: &Path, cover: Cover) -> Result<CaptionSet> {
    let mut images = images(references)?;
    let from = name(references);
    unique(&from, "images occur twice, with the ids", images.iter().map(|image| image.id.as_str()))?;
    let without: Vec<&str> =
        images.iter().filter(|image| image.captions.is_empty()).map(|image| image.id.as_str()).collect();
    none_of(&from, "images without a reference", &without)?;
    let too_long = |caption: &String| caption.len() > LONGEST;
    let what = "captions are longer than 16384 bytes, of the images";
    let long = images.iter().filter(|image| image.captions.iter().any(too_long));
    none_of(&from, what, &long.map(|image| image.id.as_str()).collect::<Vec<_>>())?;
    let rows: Vec<Caption> = json::read(results, "a list of results with `image_id` and `caption`")?;
    let long = rows.iter().filter(|row| too_long(&row.caption));
    none_of(&name(results), what, &long.map(|row| row.image_id.as_str()).collect::<Vec<_>>())?;
    let rows: Vec<_> = rows.into_iter().map(|row| (row.image_id, row.caption)).collect();
    covered(cover, &mut images, |image| image.id.as_str(), &rows);
    let captions = in_order(&name(results), images.iter().map(|image| image.id.as_str()), rows)?;
    let (ids, references): (Vec<_>, Vec<_>) = images.into_iter().map(|i| (i.id, i.captions)).unzip();
    let warnings = warnings([&from, &name(results)], &ids, &references, &captions);
    Ok(CaptionSet { images: ids, captions, references, warnings })
}

fn images(path: &Path) -> Result<Vec<Image>> {
    let text = json::text(path)?;
    let nothing = || Error::Empty { name: name(path), what: "references" };
    if path.extension().is_some_and(|ending| ending == "jsonlines" || ending == "jsonl") {
        let rows: Vec<Docci> = json::lines(&text, path, "lines of DOCCI")?;
        let image = |row: Docci| Image { id: row.example_id, captions: vec![row.description] };
        return Some(rows.into_iter().map(image).collect())
            .filter(|all: &Vec<_>| !all.is_empty())
            .ok_or_else(nothing);
    }
    let form: Form = json::parse(&text, path, "references of captions")?;
    let images = if form.images.is_none() && form.data.is_some() {
        by_rows(json::parse(&text, path, "references of TextCaps")?)
    } else {
        by_annotations(path, json::parse(&text, path, "references of COCO's form")?)?
    };
    Some(images).filter(|all| !all.is_empty()).ok_or_else(nothing)
}

/// The images of TextCaps in the order of their first row.
fn by_rows(file: TextCaps) -> Vec<Image> {
    let mut seen = std::collections::HashSet::new();
    let first = |row: &TextCapsRow| seen.insert(row.image_id.clone());
    let rows = file.data.into_iter().filter(first);
    rows.map(|row| Image { id: row.image_id, captions: row.reference_strs }).collect()
}

fn by_annotations(path: &Path, file: Coco) -> Result<Vec<Image>> {
    let mut images: Vec<Image> =
        file.images.into_iter().map(|image| Image { id: image.id, captions: Vec::new() }).collect();
    let places: HashMap<String, usize> =
        images.iter().enumerate().map(|(i, im)| (im.id.to_string(), i)).collect();
    let mut unknown = Vec::new();
    for annotation in file.annotations {
        match places.get(annotation.image_id.as_str()) {
            Some(&place) => images[place].captions.push(annotation.caption),
            None => unknown.push(annotation.image_id),
        }
    }
    let unknown: Vec<&str> = unknown.iter().map(Id::as_str).collect();
    none_of(&name(path), "captions of images that are not listed", &unknown)?;
    Ok(images)
}

/// What is doubtful about references and captions, whose files are `names`.
fn warnings(names: [&str; 2], ids: &[Id], references: &[Vec<String>], captions: &[String]) -> Vec<Warning> {
    // A text of letters or digits has tokens, so few texts are read here.
    let blank =
        |text: &String| !text.contains(char::is_alphanumeric) && kept(&ptb::tokenize(text)).is_empty();
    let reference = |wrong: &dyn Fn(&String) -> bool| -> Vec<&str> {
        let each =
            ids.iter().zip(references).flat_map(|(id, texts)| texts.iter().map(move |text| (id, text)));
        each.filter(|(_, text)| wrong(text)).map(|(id, _)| id.as_str()).collect()
    };
    let caption = |wrong: &dyn Fn(&String) -> bool| -> Vec<&str> {
        let each = ids.iter().zip(captions);
        each.filter(|(_, text)| wrong(text)).map(|(id, _)| id.as_str()).collect()
    };
    let breaks = |text: &String| has_line_break(text);
    let line = "captions with a line separator, which is read as a space, of the images";
    let found = [
        warning(names[0], "references without tokens, of the images", &reference(&blank)),
        warning(names[0], line, &reference(&breaks)),
        warning(names[1], "captions without tokens, of the images", &caption(&blank)),
        warning(names[1], line, &caption(&breaks)),
    ];
    found.into_iter().flatten().collect()
}

/// The tokens of a set: those of all references as one text, and those of all captions as another, as the
/// official tools make them.
pub fn tokenize(set: &CaptionSet) -> Vec<Tokenized> {
    let kept_all =
        |texts: &[&str]| -> Vec<String> { tokenize_all(texts).iter().map(|tokens| kept(tokens)).collect() };
    let captions = kept_all(&set.captions.iter().map(String::as_str).collect::<Vec<_>>());
    let references: Vec<&str> = set.references.iter().flatten().map(String::as_str).collect();
    let mut references = kept_all(&references).into_iter();
    let own = |texts: &Vec<String>| texts.len();
    let lengths = set.references.iter().map(own);
    let items = captions.into_iter().zip(lengths);
    items
        .map(|(caption, n)| Tokenized { caption, references: references.by_ref().take(n).collect() })
        .collect()
}

/// All scores of a set that need no other program.
pub fn caption_scores(set: &CaptionSet) -> Scores {
    scores(&tokenize(set))
}
