//! Published rows in every format; the first byte of the input chooses it.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use pheye_data::{Content, Format, Mixture, Source, SourceConfig, Turns};
use pheye_files::chain;

/// By letter, from `a`.
const FORMATS: [Format; 14] = [
    Format::Lines,
    Format::Conversation,
    Format::Mix665k,
    Format::Llavar,
    Format::Lrv,
    Format::MimicIt,
    Format::StVqa,
    Format::TextVqa,
    Format::AOkvqa,
    Format::OkVqa,
    Format::Gqa,
    Format::OcrVqa,
    Format::VqaV2,
    Format::TextCaps,
];

fuzz_target!(|data: &[u8]| {
    let [letter, rows @ ..] = data else { return };
    let format = FORMATS[usize::from(letter.wrapping_sub(b'a')) % FORMATS.len()];
    let folder = pheye_fuzz::folder();
    let path = folder.join("rows.json");
    fs::write(&path, rows).expect("the input is written");
    let annotations = matches!(format, Format::OkVqa | Format::VqaV2).then(|| path.clone());
    let turns = [None, Some(Turns::All)][rows.len() % 2];
    let config = SourceConfig { annotations, turns, ..SourceConfig::new(format, &path) };
    let source = match Source::open(&config, None) {
        Ok(source) => source,
        Err(error) => return assert!(chain(&error).contains("rows.json")),
    };
    let content = [Content::Questions, Content::Captions, Content::Text][rows.len() % 3];
    if let Ok(mixture) = Mixture::new(vec![source], None, content, 1) {
        for position in 0..mixture.epoch_len().min(64) {
            mixture.item(&mixture.draw(position)).expect("rows that were indexed can be read");
        }
    }
});
