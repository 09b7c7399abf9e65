//! Equality with Pillow, on files written by `make_golden.py`.

use pheye_image::{
    DecodeOptions, PassOrder, Preprocess, Rgb8, decode, open, resize_bicubic, resize_bicubic_in,
};
use std::path::{Path, PathBuf};

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

fn read(path: &Path) -> Rgb8 {
    open(path, &DecodeOptions::default()).unwrap()
}

/// The sorted names of the files in a folder of test data.
fn names(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(data(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn largest_difference(name: &str, ours: &Rgb8, pillow: &Rgb8) -> u8 {
    assert_eq!((ours.width, ours.height), (pillow.width, pillow.height), "{name}");
    ours.pixels.iter().zip(&pillow.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn resize_is_bit_exact() {
    let (mut compared, mut differing) = (0, 0);
    for name in names("resize") {
        let [source, size, "png"] = name.split('.').collect::<Vec<_>>()[..] else { continue };
        let (w, h) = size.split_once('x').unwrap();
        let (w, h) = (w.parse().unwrap(), h.parse().unwrap());
        let image = read(&data("resize").join(format!("{source}.png")));
        let pillow = read(&data("resize").join(&name));
        assert_eq!(largest_difference(&name, &resize_bicubic(&image, w, h), &pillow), 0, "{name}");
        let newer = data("resize").join(format!("{source}.{size}.13.png"));
        let pillow13 = if newer.exists() { read(&newer) } else { pillow };
        let ours = resize_bicubic_in(&image, w, h, PassOrder::Pillow13);
        assert_eq!(largest_difference(&name, &ours, &pillow13), 0, "{name} as of Pillow 13");
        compared += 1;
        differing += usize::from(newer.exists());
    }
    assert_eq!((compared, differing), (23, 3));
}

#[test]
fn resize_to_the_same_size_is_a_copy() {
    let image = read(&data("resize").join("noise37x53.png"));
    assert_eq!(resize_bicubic(&image, 37, 53), image);
}

#[test]
fn decoding_is_exact_but_for_jpeg() {
    let mut compared = 0;
    for expected in names("decode") {
        let Some(name) = expected.strip_suffix(".rgb.png") else { continue };
        let ours = read(&data("decode").join(name));
        let difference = largest_difference(name, &ours, &read(&data("decode").join(&expected)));
        let allowed = if name.ends_with(".jpg") { 5 } else { 0 };
        assert!(difference <= allowed, "{name}: {difference} levels from Pillow, {allowed} allowed");
        compared += 1;
    }
    assert_eq!(compared, 94);
}

/// The other expected images are PNGs that this crate decodes; this one is compared with bytes given here.
#[test]
fn plain_rgb_png_holds_its_bytes() {
    let image = read(&data("decode").join("palette_short.png.rgb.png"));
    assert_eq!(image.pixels, [10, 20, 30, 40, 50, 60, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn orientations_are_found_where_pillow_finds_them() {
    let mut compared = 0;
    for expected in names("orient") {
        let Some(name) = expected.strip_suffix(".rgb.png") else { continue };
        let ours = read(&data("orient").join(name));
        let difference = largest_difference(name, &ours, &read(&data("orient").join(&expected)));
        assert!(difference <= if name.ends_with(".jpg") { 5 } else { 0 }, "{name}: {difference}");
        compared += 1;
    }
    assert_eq!(compared, 78);
}

#[test]
fn orientation_can_be_ignored() {
    let stored = DecodeOptions { apply_orientation: false, ..DecodeOptions::default() };
    let upright = open(data("orient").join("o1.jpg"), &stored).unwrap();
    for orientation in 2..=8 {
        let bytes = std::fs::read(data("orient").join(format!("o{orientation}.jpg"))).unwrap();
        assert_eq!(decode(&bytes, "o.jpg", &stored).unwrap(), upright, "orientation {orientation}");
    }
}

#[test]
fn several_files_are_as_each_alone() {
    let preprocess = Preprocess::new(16, 2);
    let mut files: Vec<PathBuf> =
        names("decode").iter().filter(|n| !n.ends_with(".rgb.png")).map(|n| data("decode").join(n)).collect();
    let options = DecodeOptions::default();
    let together = preprocess.open_all(&files, &options).unwrap();
    let alone: Vec<_> = files.iter().map(|file| preprocess.pixels(&read(file))).collect();
    assert_eq!(together, alone);
    files.insert(3, "no/such.png".into());
    files.insert(9, "nor/this.png".into());
    assert!(preprocess.open_all(&files, &options).unwrap_err().to_string().starts_with("no/such.png"));
}
