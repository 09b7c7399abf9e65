//! Checkpoints to damage: a parsed safetensors file, and a torch zip archive with any pickle.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value};

/// The header and data of a safetensors file.
pub(crate) struct Safetensors {
    pub header: Map<String, Value>,
    pub data: Vec<u8>,
}

impl Safetensors {
    pub(crate) fn read(path: &Path) -> Safetensors {
        let bytes = fs::read(path).unwrap();
        let (len, rest) = bytes.split_at(8);
        let (header, data) = rest.split_at(u64::from_le_bytes(len.try_into().unwrap()) as usize);
        Safetensors { header: serde_json::from_slice(header).unwrap(), data: data.to_vec() }
    }

    pub(crate) fn write(&self, path: &Path) {
        let mut header = serde_json::to_vec(&self.header).unwrap();
        header.resize(header.len().next_multiple_of(8), b' ');
        let len = (header.len() as u64).to_le_bytes();
        fs::write(path, [&len[..], &header, &self.data].concat()).unwrap();
    }

    /// The first tensor whose name contains all of `parts`.
    pub(crate) fn find(&self, parts: &[&str]) -> String {
        let found = self.header.keys().find(|name| parts.iter().all(|part| name.contains(part)));
        found.unwrap_or_else(|| panic!("no tensor like {parts:?} in {:#?}", self.header.keys())).clone()
    }

    /// The bytes of a tensor.
    pub(crate) fn bytes(&mut self, name: &str) -> &mut [u8] {
        let range = &self.header[name]["data_offsets"];
        let at = |i: usize| range[i].as_u64().unwrap() as usize;
        &mut self.data[at(0)..at(1)]
    }

    /// Replaces each value of an f32 tensor.
    pub(crate) fn map(&mut self, name: &str, mut f: impl FnMut(usize, f32) -> f32) {
        assert_eq!(self.header[name]["dtype"], "F32");
        for (i, four) in self.bytes(name).chunks_exact_mut(4).enumerate() {
            let value = f32::from_le_bytes((&*four).try_into().unwrap());
            four.copy_from_slice(&f(i, value).to_le_bytes());
        }
    }

    /// The index of the value with the largest magnitude among the first 64 of an f32 tensor.
    pub(crate) fn largest(&mut self, name: &str) -> usize {
        let mut best = (0, 0.0);
        self.map(name, |i, v| {
            best = if i < 64 && v.abs() > best.1 { (i, v.abs()) } else { best };
            v
        });
        best.0
    }

    /// Renames a tensor; its data stays.
    pub(crate) fn rename(&mut self, name: &str, to: &str) {
        let entry = self.header.remove(name).unwrap();
        self.header.insert(to.to_owned(), entry);
    }

    pub(crate) fn set(&mut self, name: &str, key: &str, value: Value) {
        self.header[name][key] = value;
    }
}

/// Writes a torch zip archive with the pickle `pickle`.
pub(crate) fn torch_zip(path: &Path, pickle: &[u8]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("data.pkl", pickle), ("byteorder", b"little"), ("version", b"3\n")] {
        zip.start_file(format!("checkpoint/{name}"), stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

/// A pickle that runs a shell command when Python loads it.
pub(crate) fn evil_pickle(module: &str, function: &str, command: &str) -> Vec<u8> {
    let len = (command.len() as u32).to_le_bytes();
    let global = format!("c{module}\n{function}\n");
    [b"\x80\x02", global.as_bytes(), b"X", &len, command.as_bytes(), b"\x85R."].concat()
}

/// A PNG whose header has this size and that has no pixels.
pub(crate) fn huge_png(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let data = [0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01];
    for (kind, body) in [(b"IHDR", &header[..]), (b"IDAT", &data), (b"IEND", &[])] {
        png.extend((body.len() as u32).to_be_bytes());
        let chunk = [&kind[..], body].concat();
        png.extend(&chunk);
        png.extend(crc32fast::hash(&chunk).to_be_bytes());
    }
    png
}
