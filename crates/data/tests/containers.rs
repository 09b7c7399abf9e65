//! Sources whose images and texts are in one container.

use std::path::{Path, PathBuf};

use pheye_data::{Content, Format, Mixture, Source, SourceConfig};

fn config(format: Format, name: &str) -> SourceConfig {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/stores").join(name);
    SourceConfig::new(format, path)
}

/// The images of a source with their questions and answers, sorted; all images but `missing` can be read.
fn questions(source: Source, missing: Option<&str>) -> Vec<(String, String, String)> {
    let mixture = Mixture::new(vec![source], None, Content::Questions, 1).unwrap();
    let mut all = Vec::new();
    for position in 0..mixture.epoch_len() {
        let draw = mixture.draw(position);
        let item = mixture.item(&draw).unwrap();
        let image = item.image.unwrap();
        let read = mixture.source(&draw).store().read(&image);
        assert_eq!(read.is_ok(), missing != Some(image.as_str()), "{image}");
        all.extend(item.qa.into_iter().map(|(question, answer)| (image.clone(), question, answer)));
    }
    all.sort();
    all
}

#[test]
fn tar_shards() {
    let source = Source::open(&config(Format::WebDataset, "gnu.tar"), None).unwrap();
    let mixture = Mixture::new(vec![source], None, Content::Questions, 1).unwrap();
    let summary = mixture.summaries().remove(0);
    let left: Vec<_> = summary.left_out.iter().map(|(why, left)| (why.as_str(), left.count)).collect();
    // A segmentation map (`.seg.png`) is not the image of its sample.
    assert_eq!(left, [("without .json and .txt", 4), ("without an image", 3)]);
    let parts: Vec<_> = summary.parts.iter().map(|part| (part.name.as_str(), part.samples)).collect();
    assert_eq!(parts, [("captions", 1)]);
    let source = Source::open(&config(Format::WebDataset, "gnu.tar"), None).unwrap();
    assert_eq!(questions(source, None), [("000.jpg".to_owned(), String::new(), "two cats".to_owned())]);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet() {
    let source = Source::open(&config(Format::Parquet, "hf_index.parquet"), None).unwrap();
    let all = questions(source, Some("7"));
    assert_eq!(all.len(), 39);
    assert!(all.contains(&("12".to_owned(), "what is 12?".to_owned(), "it is 12".to_owned())));
    let source = Source::open(&config(Format::Parquet, "plain.parquet"), None).unwrap();
    assert_eq!(questions(source, None).len(), 40);
}

#[test]
fn what_is_no_such_container_is_refused() {
    let refused = |format, name| Source::open(&config(format, name), None).unwrap_err().to_string();
    let error = refused(Format::WebDataset, "plain.parquet");
    assert!(error.contains("is neither a .tar file nor a folder of them"), "{error}");
    assert!(refused(Format::Parquet, "gnu.tar").contains("is neither a .parquet file"));
}
