//! Benchmark of preparing a 22-megapixel photo for the model: decoding, rotation, resizing, and all steps
//! together for one or four files.
//!
//! Run it with `cargo bench -p pheye-image`. The photo is generated: smooth shapes with noise, whose JPEG at
//! quality 90 is about as large as a camera's.

use std::hint::black_box;
use std::io::Cursor;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use pheye_image::{DecodeOptions, Preprocess, Rgb8, decode, open, resize_bicubic, rotate};

const SIDES: (usize, usize) = (5632, 4000);

fn photo() -> Rgb8 {
    let (width, height) = SIDES;
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as f32
    };
    let wave = |at: usize, period: f32| (at as f32 / period).sin();
    let mut pixels = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let soft = 50.0 * wave(x + 97 * c, 173.0) + 40.0 * wave(y, 219.0 + 31.0 * c as f32);
                pixels.push((120.0 + soft + noise()) as u8);
            }
        }
    }
    Rgb8 { width, height, pixels }
}

fn jpeg(image: &Rgb8) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let encoder = JpegEncoder::new_with_quality(&mut out, 90);
    let (width, height) = (image.width as u32, image.height as u32);
    encoder.write_image(&image.pixels, width, height, ExtendedColorType::Rgb8).unwrap();
    out.into_inner()
}

fn png(image: &Rgb8) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let (width, height) = (image.width as u32, image.height as u32);
    let encoder = PngEncoder::new(&mut out);
    encoder.write_image(&image.pixels, width, height, ExtendedColorType::Rgb8).unwrap();
    out.into_inner()
}

fn benches(c: &mut Criterion) {
    let photo = photo();
    let (jpeg, png) = (jpeg(&photo), png(&photo));
    let options = DecodeOptions::default();
    let mut group = c.benchmark_group("22 MP");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.bench_function("decode JPEG", |b| b.iter(|| decode(black_box(&jpeg), "photo", &options).unwrap()));
    group.bench_function("decode PNG", |b| b.iter(|| decode(black_box(&png), "photo", &options).unwrap()));
    group.bench_function("turn by 90°", |b| b.iter(|| rotate(black_box(&photo), 1)));
    for side in [224, 448, 672] {
        let name = format!("resize to {side}");
        group.bench_function(name, |b| b.iter(|| resize_bicubic(black_box(&photo), side, side)));
    }
    let preprocess = Preprocess::new(224, 3);
    group.bench_function("JPEG to tiles, level 3", |b| {
        b.iter(|| preprocess.pixels(&decode(black_box(&jpeg), "photo", &options).unwrap()));
    });
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = (0..4).map(|i| folder.path().join(format!("{i}.jpg"))).collect();
    files.iter().for_each(|file| std::fs::write(file, &jpeg).unwrap());
    group.bench_function("four JPEGs to tiles, one after another", |b| {
        b.iter(|| files.iter().map(|f| preprocess.pixels(&open(f, &options).unwrap())).collect::<Vec<_>>());
    });
    group.bench_function("four JPEGs to tiles, side by side", |b| {
        b.iter(|| preprocess.open_all(black_box(&files), &options).unwrap());
    });
}

criterion_group!(image, benches);
criterion_main!(image);
