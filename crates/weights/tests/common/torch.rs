//! A torch zip written by hand: a state dict of contiguous tensors in the layout of `torch.save`.
#![allow(dead_code)]

use std::io::{Seek, Write};

use pheye_tensor::Tensor;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A tensor to write: its name, dimensions, torch storage class, and the bytes of its elements.
pub(crate) struct Stored<'a> {
    pub name: String,
    pub dims: Vec<usize>,
    pub class: &'static str,
    pub bytes: &'a [u8],
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.push(b'X');
    out.extend((s.len() as u32).to_le_bytes());
    out.extend(s.as_bytes());
}

/// Pushes an integer of up to four bytes.
fn int(out: &mut Vec<u8>, n: usize) {
    out.push(b'J');
    out.extend((n as u32).to_le_bytes());
}

fn tuple(out: &mut Vec<u8>, numbers: &[usize]) {
    out.push(b'(');
    numbers.iter().for_each(|&n| int(out, n));
    out.push(b't');
}

/// Writes f32 `tensors` as a state dict.
pub(crate) fn save_f32(out: impl Write + Seek, tensors: &[(String, Tensor)]) {
    let all: Vec<_> = tensors
        .iter()
        .map(|(name, t)| Stored {
            name: name.clone(),
            dims: t.shape().dims().to_vec(),
            class: "FloatStorage",
            bytes: t.host_bytes().unwrap(),
        })
        .collect();
    save(out, &all);
}

/// Writes `tensors` as a state dict.
pub(crate) fn save(out: impl Write + Seek, tensors: &[Stored]) {
    let mut p = b"\x80\x02}".to_vec();
    for (key, t) in tensors.iter().enumerate() {
        let elements = t.dims.iter().product();
        let strides: Vec<usize> = (0..t.dims.len()).map(|i| t.dims[i + 1..].iter().product()).collect();
        text(&mut p, &t.name);
        p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut p, "storage");
        p.extend(format!("ctorch\n{}\n", t.class).bytes());
        text(&mut p, &key.to_string());
        text(&mut p, "cpu");
        int(&mut p, elements);
        p.extend(b"tQ");
        int(&mut p, 0);
        tuple(&mut p, &t.dims);
        tuple(&mut p, &strides);
        p.extend(b"\x89}tRs");
    }
    p.push(b'.');
    let mut zip = ZipWriter::new(out);
    // Torch aligns every record to 64 bytes.
    let stored =
        SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(64);
    zip.start_file("m/data.pkl", stored).unwrap();
    zip.write_all(&p).unwrap();
    for (key, t) in tensors.iter().enumerate() {
        zip.start_file(format!("m/data/{key}"), stored).unwrap();
        zip.write_all(t.bytes).unwrap();
    }
    zip.finish().unwrap();
}
