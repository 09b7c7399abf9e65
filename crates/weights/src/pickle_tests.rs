//! Real pickles, truncated at every length or with changed bytes, must give an error or a value, never a
//! panic.

use std::io::Read;
use std::path::Path;

use super::read;

fn real(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let mut zip = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let name = zip.file_names().map(|n| n.unwrap().into_owned()).find(|n| n.ends_with("data.pkl")).unwrap();
    let mut bytes = Vec::new();
    zip.by_name(&name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// The step between tested positions: 1, or more under Miri, which is a thousand times slower.
const STEP: usize = if cfg!(miri) { 97 } else { 1 };

#[test]
fn a_cut_pickle_is_refused() {
    for file in ["kinds", "torch/protocol4", "torch/float8", "torch/parameter_with_attribute"] {
        let bytes = real(&format!("tests/data/{file}.pt"));
        assert!(read(&bytes, Path::new("p")).is_ok());
        for end in (0..bytes.len()).step_by(STEP) {
            assert!(read(&bytes[..end], Path::new("p")).is_err(), "{file} cut at {end}");
        }
    }
}

#[test]
fn a_changed_byte_is_survived() {
    for file in ["kinds", "torch/protocol4", "torch/float8", "torch/parameter_with_attribute"] {
        let mut bytes = real(&format!("tests/data/{file}.pt"));
        for at in (0..bytes.len()).step_by(STEP) {
            let was = bytes[at];
            for change in [1, 2, 0x10, 0x80, 0xff] {
                bytes[at] = was ^ change;
                let _ = read(&bytes, Path::new("p"));
            }
            bytes[at] = was;
        }
    }
    if cfg!(miri) {
        return; // Too slow under Miri.
    }
    let mut bytes = real("../../tests/golden/level1/checkpoint.pt");
    for at in (0..bytes.len()).step_by(61) {
        let was = bytes[at];
        for change in [1, 4, 0x20, 0xff] {
            bytes[at] = was ^ change;
            let _ = read(&bytes, Path::new("p"));
        }
        bytes[at] = was;
    }
}
