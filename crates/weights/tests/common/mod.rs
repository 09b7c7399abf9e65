//! Helpers shared by the tests: paths of fixtures, and hand-made hostile files.
#![allow(dead_code)]

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use pheye_weights::{Checkpoint, Error};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A zip in torch's layout, with this pickle and these storages.
pub(crate) fn torch_zip(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = vec![("any/data.pkl".to_owned(), pickle)];
    all.extend(storages.iter().map(|(key, bytes)| (format!("any/data/{key}"), *bytes)));
    zip_of(&all, CompressionMethod::Stored)
}

pub(crate) fn zip_of(files: &[(String, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name.as_str(), SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The pickle of `{"w": tensor}` over the f32 storage "0" with `elements` elements. All arguments are
/// pickled: `dims` and `strides` are tuples.
pub(crate) fn one_tensor(elements: &[u8], offset: &[u8], dims: &[u8], strides: &[u8]) -> Vec<u8> {
    let mut p =
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage".to_vec();
    p.extend(b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu");
    p.extend(elements);
    p.extend(b"tQ");
    p.extend(offset);
    p.extend(dims);
    p.extend(strides);
    p.extend(b"\x89}tRs.");
    p
}

/// A safetensors file with this header and `data` zero bytes of data.
pub(crate) fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// Opens `bytes` as a checkpoint.
pub(crate) fn open(bytes: &[u8]) -> Result<Checkpoint, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Checkpoint::open(file.path())
}

/// Opens the checkpoint and reads all of it, which must neither panic nor use much memory for any file.
pub(crate) fn read_all(path: &Path) -> Result<(), Error> {
    let checkpoint = Checkpoint::open(path)?;
    for name in checkpoint.names() {
        checkpoint.tensor(name, pheye_tensor::DType::F32)?;
    }
    Ok(())
}
