//! Opens a source: its published files, their index, and its images.

use std::path::{Path, PathBuf};

use super::lines;
use super::mix665k;
use super::{Format, Input, Reader, Rows, Rules, Share, Source, SourceConfig, containers, folder};
use crate::index::Index;
use crate::index_cache::Stored;
use crate::published::{LIMIT, Published};
use crate::{Error, Result, Store};

/// Maximum size of a manifest in bytes.
const LINES_LIMIT: u64 = 4 << 30;
/// The manifest in a folder or archive.
const MANIFEST: &str = "manifest.jsonl";

impl Source {
    /// Opens the source that `config` names. The index of a large published file is kept in the folder
    /// `indices` if one is given.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if `config` is invalid, an error that names file and row if a published file
    /// cannot be read or has another form, and [`Error::Empty`] if no row can be used.
    pub fn open(config: &SourceConfig, indices: Option<&Path>) -> Result<Source> {
        let reader = config.format.reader();
        let mut rules = Rules::new(config, reader)?;
        let share = config.count.map_or(Share::Weight(config.weight.unwrap_or(1.0)), Share::Count);
        let mut source = match config.format {
            Format::Folder => folder::open(config, rules)?,
            Format::WebDataset | Format::Parquet => containers::open(config, rules)?,
            Format::Lines => {
                let mut opened = open_lines(&config.path, rules, indices, &settings(config))?;
                if let Some(images) = &config.images {
                    opened.store = Store::open(images)?;
                }
                opened
            }
            _ => {
                let paths = [Some(&config.path), config.annotations.as_ref()];
                let files = paths.into_iter().flatten().map(|path| Published::open(path, LIMIT));
                let files = files.collect::<Result<Vec<_>>>()?;
                let questions = config.okvqa_questions.as_ref();
                let questions = questions.map(|path| Published::open(path, LIMIT)).transpose()?;
                if let Some(file) = &questions {
                    rules.okvqa = Some(mix665k::okvqa(file)?);
                }
                let (index, fresh) =
                    index(&files, questions.as_ref(), reader, &rules, indices, &settings(config))?;
                let mut inputs = inputs(&files, reader, &index, fresh);
                let path = config.okvqa_questions.clone();
                inputs.extend(path.map(|path| Input { key: "okvqa_questions", path, print: None }));
                let store = Store::open(config.images.as_deref().unwrap_or_else(|| beside(&config.path)))?;
                let (path, format) = (config.path.clone(), config.format);
                let rows = Rows::Indexed { files, index };
                Source { path, format, store, share, whole: false, rules, rows, inputs }
            }
        };
        (source.share, source.whole) = (share, false);
        source.not_empty()
    }

    /// Opens a `.jsonl` file, or the `manifest.jsonl` in a folder or a `.zip` archive: a regular file of at
    /// most 4 GiB, with lines of at most 16 MiB. All that a line has is one sample.
    ///
    /// # Errors
    /// Returns [`Error::Io`], [`Error::Zip`] or [`Error::Duplicate`] if the file or archive cannot be read,
    /// and [`Error::Line`] for the first invalid line.
    pub fn lines(path: impl AsRef<Path>, indices: Option<&Path>) -> Result<Source> {
        open_lines(path.as_ref(), lines::rules(), indices, "lines")
    }

    fn not_empty(self) -> Result<Source> {
        if !self.is_empty() {
            return Ok(self);
        }
        let facts = self.facts();
        let reasons = facts.left_out.iter().map(|(why, left)| format!("{why}: {}", left.count));
        let why = reasons.collect::<Vec<_>>().join(", ");
        Err(Error::Empty { name: self.path.display().to_string(), rows: facts.rows, why })
    }
}

/// The settings that an index depends on, as a text.
fn settings(config: &SourceConfig) -> String {
    let rest = SourceConfig { weight: None, count: None, ..config.clone() };
    serde_json::to_string(&rest).unwrap_or_default()
}

fn beside(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// The index of the files, and whether they were read for it. It also depends on the file `more` and on
/// `settings`.
fn index(
    files: &[Published],
    more: Option<&Published>,
    reader: &Reader,
    rules: &Rules,
    indices: Option<&Path>,
    settings: &str,
) -> Result<(Index, bool)> {
    let all: Vec<&Published> = files.iter().chain(more).collect();
    let settings = format!("{settings} {}", reader.version);
    let stored = indices.and_then(|folder| Stored::new(folder, &all, files.len(), &settings));
    if let Some(index) = stored.as_ref().and_then(Stored::load) {
        return Ok((index, false));
    }
    let index = Index::build(files, reader, rules)?;
    if let Some(stored) = stored {
        stored.save(&index);
    }
    Ok((index, true))
}

fn inputs(files: &[Published], reader: &Reader, index: &Index, fresh: bool) -> Vec<Input> {
    let prints = index.facts.prints.iter().map(|print| fresh.then_some(*print));
    let named = files.iter().zip(reader.tables).zip(prints);
    let input = |((file, table), print): ((&Published, &super::reader::Table), _)| {
        Some(Input { key: table.key, path: file.path.clone()?, print })
    };
    named.filter_map(input).collect()
}

fn open_lines(path: &Path, rules: Rules, indices: Option<&Path>, settings: &str) -> Result<Source> {
    let is_zip = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("zip"));
    let folder = || path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let (store, file) = match () {
        () if is_zip => {
            let store = Store::open(path)?;
            let bytes = store.read_manifest(MANIFEST, |reader| {
                let taken = pheye_files::take(reader, 0, LINES_LIMIT);
                taken.map_err(|source| store.io(MANIFEST, source))
            })?;
            let file = Published::in_memory(store.name(MANIFEST), bytes);
            (store, file)
        }
        () if path.is_dir() => (Store::open(path)?, Published::open(&path.join(MANIFEST), LINES_LIMIT)?),
        () => (Store::Folder(folder()), Published::open(path, LINES_LIMIT)?),
    };
    let files = vec![file];
    let reader = &lines::READER;
    let (index, fresh) = index(&files, None, reader, &rules, indices, settings)?;
    let print = index.facts.prints.first().copied().filter(|_| fresh);
    let read = files[0].path.clone().unwrap_or_else(|| path.into());
    let inputs = vec![Input { key: "path", path: read, print }];
    let (path, format, share) = (path.into(), Format::Lines, Share::Weight(1.0));
    Ok(Source {
        path,
        format,
        store,
        share,
        whole: true,
        rules,
        rows: Rows::Indexed { files, index },
        inputs,
    })
}
