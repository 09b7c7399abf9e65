//! The reader of torch checkpoints: a whole zip, or, where the input is none, a pickle in a sound zip around it.
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use zip::write::SimpleFileOptions;

fuzz_target!(|data: &[u8]| {
    if data.starts_with(b"PK") {
        return pheye_fuzz::read_checkpoint(data);
    }
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let storage = [7; 64];
    for (name, body) in [
        ("archive/data.pkl", data),
        ("archive/data/0", &storage),
        ("archive/data/1", &storage),
        ("archive/version", b"3\n"),
    ] {
        zip.start_file(name, stored).expect("a zip in memory");
        zip.write_all(body).expect("a zip in memory");
    }
    pheye_fuzz::read_checkpoint(zip.finish().expect("a zip in memory").get_ref());
});
