//! A folder of images, each beside a text file of the same stem with its caption.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pheye_files::Kind;
use pheye_image::EXTENSIONS;
use rayon::prelude::*;

use super::prompt::Prompt;
use super::reader::{ONE, Part, Reader, one};
use super::rules::Rules;
use super::{Format, Input, Rows, Share, Source, SourceConfig};
use crate::index::{Facts, LeftOut};
use crate::{Error, Item, Result, Store};

pub(crate) static READER: Reader =
    Reader { parts: &[Part::new("folder", ONE, Prompt::Caption).captions()], ..Reader::USUAL };

/// Maximum length of a text in bytes.
const TEXT_LIMIT: u64 = 16 << 20;
/// Maximum depth of folders.
const DEPTH: usize = 32;

/// The text file of the image `image` in `folder`.
fn text_of(folder: &Path, image: &str) -> PathBuf {
    folder.join(image).with_extension("txt")
}

fn caption(folder: &Path, image: &str) -> Result<String> {
    let path = text_of(folder, image);
    let text = pheye_files::read_text(&path, Kind::Regular, TEXT_LIMIT);
    let text = text.map_err(|source| Error::Io { name: path.display().to_string(), source })?;
    Ok(text.trim().to_owned())
}

/// The item of the image `image`, the number `i` of its source.
pub(super) fn item(folder: &Path, image: &str, i: usize) -> Result<Item> {
    let caption = caption(folder, image)?;
    let item = one(image.to_owned(), "", &caption);
    Ok(Item { caption: Some(caption), line: i + 1, ..item })
}

/// Opens the folder of `config`; reads all its texts.
pub(super) fn open(config: &SourceConfig, rules: Rules) -> Result<Source> {
    let path = config.path.clone();
    let mut names = Vec::new();
    list(&path, "", 0, &mut names)?;
    names.sort_unstable();
    let mut facts = Facts::default();
    let mut left_out = BTreeMap::new();
    let mut leave = |why: &str, number: usize| {
        let first = number as u32;
        left_out.entry(why.to_owned()).or_insert(LeftOut { count: 0, first }).count += 1;
    };
    let mut images = Vec::new();
    for name in names {
        facts.rows += 1;
        match rules.filtered(&name) {
            Some(why) => leave(why, facts.rows as usize),
            None if !text_of(&path, &name).is_file() => {
                leave("image without a .txt file", facts.rows as usize)
            }
            None => images.push(name),
        }
    }
    let texts: Vec<Result<String>> = images.par_iter().map(|image| caption(&path, image)).collect();
    let mut print = (0, crc32fast::Hasher::new());
    let mut used = Vec::new();
    for (i, (image, text)) in images.into_iter().zip(texts).enumerate() {
        let text = text?;
        print.0 += text.len() as u64;
        for part in [image.as_bytes(), b"\0", text.as_bytes(), b"\0"] {
            print.1.update(part);
        }
        if text.is_empty() { leave("empty text", i + 1) } else { used.push(image) }
    }
    facts.left_out = left_out;
    let store = Store::open(config.images.as_ref().unwrap_or(&path))?;
    let inputs = vec![Input { key: "path", path: path.clone(), print: Some((print.0, print.1.finalize())) }];
    let (format, share) = (Format::Folder, Share::Weight(1.0));
    let rows = Rows::Folder { images: used, facts };
    Ok(Source { path, format, store, share, whole: false, rules, rows, inputs })
}

/// Adds the names of the images in `root`/`folder`.
fn list(root: &Path, folder: &str, depth: usize, names: &mut Vec<String>) -> Result<()> {
    let path = root.join(folder);
    let io = |source| Error::Io { name: path.display().to_string(), source };
    for entry in std::fs::read_dir(&path).map_err(io)? {
        let entry = entry.map_err(io)?;
        // A name that is not UTF-8 cannot be in a message or a checkpoint.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        // Links to folders are not followed, because they may lead in a circle.
        if entry.file_type().map_err(io)?.is_dir() {
            if depth < DEPTH {
                list(root, &name, depth + 1, names)?;
            }
        } else if name
            .rsplit_once('.')
            .is_some_and(|(_, end)| EXTENSIONS.iter().any(|e| end.eq_ignore_ascii_case(e)))
        {
            names.push(name);
        }
    }
    Ok(())
}
