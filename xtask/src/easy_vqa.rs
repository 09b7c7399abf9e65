//! Packs the data set easy-VQA, which this repository ships so that training works without a download.
//!
//! Times and order in the archives are fixed, so packing again gives the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use zip::CompressionMethod::{Deflated, Stored};
use zip::{DateTime, ZipWriter, write::SimpleFileOptions};

use crate::{caption, root};

/// A line of the manifest: an image with its questions and answers.
#[derive(Serialize)]
struct Line {
    image: String,
    qa: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caption: Option<String>,
}

/// Writes data/easy-vqa from the folder `data` of the Python package.
pub(crate) fn pack(args: &[String]) -> Result<()> {
    let [dir] = args else { bail!("usage: cargo xtask pack-easy-vqa DIR") };
    let dir = Path::new(dir);
    let out = root().join("data/easy-vqa");
    fs::create_dir_all(&out)?;
    let mut table = String::new();
    for split in ["train", "test"] {
        let lines = read(&dir.join(split)).with_context(|| format!("{split} data"))?;
        let archive = archive(&dir.join(split), &lines)?;
        fs::write(out.join(format!("{split}.zip")), &archive)?;
        let questions: usize = lines.iter().map(|l| l.qa.len()).sum();
        let full = lines.iter().filter_map(|l| l.caption.as_ref()).filter(|c| is_full(c)).count();
        let none = lines.iter().filter(|l| l.caption.is_none()).count();
        let half = lines.len() - full - none;
        table += &format!("| {split}.zip | {} | {questions} | {full} | {half} | {none} |\n", lines.len());
        println!("{split}.zip: {} images, {} bytes", lines.len(), archive.len());
        if split == "train" {
            let archive = zip_with_manifest(&texts(&lines), &[])?;
            fs::write(out.join("text.zip"), &archive)?;
            println!("text.zip: {} bytes", archive.len());
        }
    }
    fs::write(out.join("README.md"), README.replace("{table}", &table))?;
    let licence = dir.join("../../easy_vqa-1.0.dist-info/LICENSE");
    fs::copy(&licence, out.join("LICENSE")).with_context(|| licence.display().to_string())?;
    Ok(())
}

fn is_full(caption: &str) -> bool {
    caption.split(' ').count() == 3 && !caption.ends_with("shape")
}

/// The images of a split, ordered by number, each with its questions in their original order.
fn read(split: &Path) -> Result<Vec<Line>> {
    let mut images: BTreeMap<u32, Vec<(String, String)>> = BTreeMap::new();
    for entry in fs::read_dir(split.join("images"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "png") {
            let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            images.insert(stem.parse().with_context(|| path.display().to_string())?, Vec::new());
        }
    }
    let questions: Vec<(String, String, u32)> =
        serde_json::from_slice(&fs::read(split.join("questions.json"))?).context("questions.json")?;
    for (question, answer, number) in questions {
        let qa = images.get_mut(&number).with_context(|| format!("no image {number}"))?;
        qa.push((question, answer));
    }
    let line = |(number, qa): (u32, Vec<_>)| {
        ensure!(!qa.is_empty(), "image {number} has no question");
        let caption = caption::infer(&qa).with_context(|| format!("image {number}"))?;
        Ok(Line { image: format!("images/{number}.png"), qa, caption })
    };
    images.into_iter().map(line).collect()
}

fn archive(split: &Path, lines: &[Line]) -> Result<Vec<u8>> {
    let images = lines.iter().map(|l| Ok((l.image.clone(), fs::read(split.join(&l.image))?)));
    zip_with_manifest(lines, &images.collect::<Result<Vec<_>>>()?)
}

/// A line of text for language modeling.
#[derive(Serialize)]
struct Text {
    text: String,
}

/// Every question and answer in the format of the nano model's prompt: after the image's caption, and every
/// third also without it.
fn texts(lines: &[Line]) -> Vec<Text> {
    let mut out = Vec::new();
    for (i, (line, (question, answer))) in
        lines.iter().flat_map(|l| l.qa.iter().map(move |qa| (l, qa))).enumerate()
    {
        let alone = format!("Q: {question}\nA: {answer}");
        out.extend(line.caption.iter().map(|caption| Text { text: format!("{caption}.\n{alone}") }));
        if i % 3 == 0 || line.caption.is_none() {
            out.push(Text { text: alone });
        }
    }
    out
}

/// An archive of the manifest, deflated, and the files, stored, because PNG is already compressed.
fn zip_with_manifest(lines: &[impl Serialize], files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let options = |method| {
        let options = SimpleFileOptions::default().compression_method(method);
        options.last_modified_time(DateTime::DEFAULT).unix_permissions(0o644)
    };
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("manifest.jsonl", options(Deflated).compression_level(Some(9)))?;
    for line in lines {
        writeln!(zip, "{}", serde_json::to_string(line)?)?;
    }
    for (name, bytes) in files {
        zip.start_file(name, options(Stored))?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

const README: &str = "\
# easy-VQA

Images of one shape on a plain ground, 64×64 pixels, and questions about them, by Victor Zhou:
<https://github.com/vzhou842/easy-VQA>, from version 1.0 of the Python package `easy-vqa`. MIT licence, see `LICENSE`.

| archive | images | questions | full captions | half captions | without |
|---|---|---|---|---|---|
{table}
The images and the questions are unchanged. Each archive holds `images/N.png` and `manifest.jsonl`, one line for each image:

    {\"image\":\"images/0.png\",\"qa\":[[\"what is the blue shape?\",\"rectangle\"]],\"caption\":\"a blue rectangle\"}

The caption is no part of easy-VQA. It is what the questions of that image give away together with their answers: a
what-question what it asks for and what it takes for granted, a yes/no question by confirming or excluding (two
shapes excluded leave the third, seven colours the eighth). \"a circle\" and \"a red shape\" are half known. The captions
of the test images serve to measure a vision encoder, never to train one.

Packed by `cargo xtask pack-easy-vqa DIR`, where DIR is the folder `easy_vqa/data` of the unzipped wheel; doing it
again gives the same bytes.
";
