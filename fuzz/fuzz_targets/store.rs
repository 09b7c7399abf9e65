//! Containers of images: tar archives, Parquet files, zip archives and JSON objects of base64.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use pheye_data::{Format, Source, SourceConfig, Store};

fuzz_target!(|data: &[u8]| {
    let folder = pheye_fuzz::folder();
    let name = match data {
        [b'P', b'A', b'R', b'1', ..] => "input.parquet",
        [b'P', b'K', ..] => "input.zip",
        [b'{', ..] => "input.json",
        _ => "input.tar",
    };
    let path = folder.join(name);
    fs::write(&path, data).expect("the input is written");
    match Store::open(&path) {
        Ok(store) => {
            for name in store.names().expect("a container has a list").iter().take(64) {
                if let Err(error) = store.read(name) {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        Err(error) => assert!(error.to_string().contains("input")),
    }
    if name.ends_with("parquet") {
        // Rows of MIMIC-IT, whose instructions are published in this form too.
        let _ = Source::open(&SourceConfig::new(Format::MimicIt, &path), None);
    }
    fs::remove_file(&path).expect("the input is removed");
});
