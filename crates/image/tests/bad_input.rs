//! Damaged files give errors that name the file and the reason.

use flate2::read::ZlibDecoder;
use pheye_image::{DecodeOptions, Error, decode, open, open_regular};
use std::error::Error as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/decode").join(name)
}

fn error(bytes: &[u8]) -> Error {
    decode(bytes, "bad.file", &DecodeOptions::default()).unwrap_err()
}

#[test]
fn empty_missing_and_foreign_files() {
    assert_eq!(error(b"").to_string(), "bad.file: the file is empty (0 bytes)");
    assert_eq!(
        error(b"a note\n\x01").to_string(),
        r#"bad.file: not an image this program reads (PNG, JPEG, WebP, GIF or BMP): it starts with "a note\n\x01""#
    );
    assert!(error(b"II*\0........").to_string().ends_with("it is Tiff"));
    assert!(matches!(error(b"RIFF\x10\0\0\0WAVEfmt "), Error::Unsupported { .. }));
    let missing = open("no/such\n.png", &DecodeOptions::default()).unwrap_err();
    assert_eq!(missing.to_string(), "no/such\\n.png: cannot be read");
    assert!(missing.source().is_some());
    let folder = open(env!("CARGO_MANIFEST_DIR"), &DecodeOptions::default()).unwrap_err();
    assert!(folder.source().unwrap().to_string().starts_with("it is a directory"));
    assert!(matches!(
        open(file!(), &DecodeOptions::default()),
        Err(Error::Io { .. } | Error::Unsupported { .. })
    ));
}

#[test]
fn every_proper_prefix_is_an_error() {
    let files = [
        "rgb420.jpg",
        "progressive.jpg",
        "restart.jpg",
        "cmyk.jpg",
        "apart.jpg",
        "lossless.webp",
        "lossy.webp",
        "lossy_alpha.webp",
        "animated.webp",
        "rgba.bmp",
        "bits1.bmp",
        "os2_bits8.bmp",
        "bits565.bmp",
    ];
    for name in files {
        let bytes = std::fs::read(path(name)).unwrap();
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end], name, &DecodeOptions::default()).is_err(), "{name} cut to {end}");
        }
        let half = error(&bytes[..bytes.len() / 2]);
        assert!(matches!(half, Error::Truncated { .. }), "{name}: {half}");
        assert!(half.to_string().starts_with("bad.file: truncated "));
    }
}

/// The number of bytes of a PNG's decompressed rows that are present.
fn rows(png: &[u8]) -> usize {
    let (mut at, mut packed) = (8, Vec::new());
    while let Some(head) = png.get(at..at + 8) {
        let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        let data = &png[at + 8..png.len().min(at + 8 + length)];
        if &head[4..] == b"IDAT" {
            packed.extend(data);
        }
        at = png.len().min(at + 12 + length);
    }
    let mut unpacked = Vec::new();
    let _ = ZlibDecoder::new(&packed[..]).read_to_end(&mut unpacked);
    unpacked.len()
}

/// Everything after the last pixel may be missing: the rest of the zlib stream, its checksums, IEND.
#[test]
fn a_prefix_of_a_png_is_read_if_all_pixels_are_there() {
    for name in
        ["rgb8.png", "rgba16.png", "palette4_trns.png", "interlaced.png", "interlaced2.png", "animated.png"]
    {
        let bytes = std::fs::read(path(name)).unwrap();
        let whole = decode(&bytes, name, &DecodeOptions::default()).unwrap();
        for end in 0..bytes.len() {
            let there = rows(&bytes[..end]) == rows(&bytes);
            match decode(&bytes[..end], name, &DecodeOptions::default()) {
                Ok(image) => assert!(there && image == whole, "{name} cut to {end}"),
                Err(Error::Truncated { .. } | Error::Empty { .. }) => assert!(!there, "{name} cut to {end}"),
                Err(other) => assert!(end < 8, "{name} cut to {end}: {other}"),
            }
        }
        assert!(
            decode(&bytes[..bytes.len() - 12], name, &DecodeOptions::default()).is_ok(),
            "{name}: no IEND"
        );
    }
}

/// A damaged checksum is an error, although a missing one is not.
#[test]
fn a_wrong_checksum_of_the_pixels_is_an_error() {
    let mut bytes = std::fs::read(path("rgb8.png")).unwrap();
    let crc = bytes.len() - 13;
    bytes[crc] ^= 1;
    assert!(matches!(error(&bytes), Error::Decode { .. }));
}

/// A file that ends after the end marker of an embedded thumbnail is truncated.
#[test]
fn a_thumbnail_does_not_hide_truncation() {
    let bytes = std::fs::read(path("rgb444.jpg")).unwrap();
    let thumbnail = [&b"Exif\0\0"[..], &bytes[..200], b"\xFF\xD9"].concat();
    let length = (thumbnail.len() as u16 + 2).to_be_bytes();
    let whole = [&bytes[..2], b"\xFF\xE1", &length, &thumbnail, &bytes[2..]].concat();
    assert!(decode(&whole, "whole", &DecodeOptions::default()).is_ok());
    assert!(matches!(error(&whole[..whole.len() - 100]), Error::Truncated { .. }));
}

/// Bytes after the end are ignored, as in Pillow.
#[test]
fn padding_is_ignored() {
    for name in ["rgb8.png", "rgb444.jpg", "lossless.webp"] {
        let mut bytes = std::fs::read(path(name)).unwrap();
        let plain = decode(&bytes, name, &DecodeOptions::default()).unwrap();
        bytes.extend([0; 99]);
        assert_eq!(decode(&bytes, name, &DecodeOptions::default()).unwrap(), plain, "{name}");
    }
}

/// Damage in the middle gives an error or a wrong image of the right size, never a panic.
#[test]
fn flipped_bytes_do_not_panic() {
    for name in [
        "rgb8.png",
        "grey16.png",
        "palette4_trns.png",
        "rgb420.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "apart_restart.jpg",
        "refined.jpg",
        "coarse_luma.jpg",
        "lossless_alpha.webp",
        "lossy_alpha.webp",
        "animated.webp",
    ] {
        let bytes = std::fs::read(path(name)).unwrap();
        let options = DecodeOptions { max_pixels: 1 << 20, ..DecodeOptions::default() };
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            if let Ok(image) = decode(&damaged, name, &options) {
                assert_eq!(image.pixels.len(), 3 * image.width * image.height);
            }
        }
    }
}

/// A JPEG with one byte of its frame header changed; `at` counts from the second byte of the marker.
fn frame_with(name: &str, at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = std::fs::read(path(name)).unwrap();
    let frame = bytes.windows(2).position(|m| matches!(m, [0xFF, 0xC0..=0xC2])).unwrap();
    bytes[frame + 1 + at] = byte;
    bytes
}

#[test]
fn jpegs_that_would_come_out_wrong_are_refused_by_name() {
    let cases = [
        ("rgb444.jpg", 0, 0xC9, "arithmetic coding"),
        ("progressive.jpg", 0, 0xCA, "arithmetic coding"),
        ("grey.jpg", 0, 0xC3, "lossless coding"),
        ("rgb444.jpg", 0, 0xC5, "hierarchical coding"),
        ("rgb444.jpg", 3, 12, "samples of 12 bits"),
        ("rgb444.jpg", 8, 2, "2 colour components"),
        // 3×1 luma with 2×1 chroma, and a sampling factor of 0.
        ("four_across.jpg", 10, 0x31, "sampling factors that do not divide one another"),
        ("rgb444.jpg", 10, 0x00, "sampling factors that do not divide one another"),
        ("apart.jpg", 13, 0x21, "several sampling factors in separate scans"),
        ("apart.jpg", 0, 0xC2, "scans that do not add up to one whole image"),
    ];
    for (name, at, byte, what) in cases {
        // The case of the first chroma component needs luma of 4×2.
        let mut bytes = frame_with(name, at, byte);
        if at == 13 {
            let luma = bytes.windows(2).position(|m| m == [0xFF, 0xC0]).unwrap() + 11;
            bytes[luma] = 0x42;
        }
        let refused = error(&bytes);
        assert!(matches!(refused, Error::UnreadJpeg { .. }), "{name}: {refused}");
        let start = format!("bad.file: a JPEG with {what}, which this program does not read; save it again");
        assert!(refused.to_string().starts_with(&start), "{refused}");
    }
}

/// A file that lacks only what follows the last pixel is decoded, and no other prefix is.
#[test]
fn prefixes_of_a_gif_and_of_packed_rows() {
    for name in
        ["plain.gif", "two.gif", "interlaced.gif", "inside_transparent.gif", "animated.gif", "rle8.bmp"]
    {
        let bytes = std::fs::read(path(name)).unwrap();
        let whole = decode(&bytes, name, &DecodeOptions::default()).unwrap();
        let mut enough = None;
        for end in 1..bytes.len() {
            match decode(&bytes[..end], name, &DecodeOptions::default()) {
                Ok(image) => {
                    assert_eq!(image, whole, "{name} cut to {end} of {}", bytes.len());
                    enough = enough.or(Some(end));
                }
                Err(error) => {
                    assert!(enough.is_none() && error.to_string().contains(name), "{name}: {error}")
                }
            }
        }
        let needed = enough.unwrap_or(bytes.len());
        assert!(name == "animated.gif" || bytes.len() - needed < 5, "{name}: {needed} of {}", bytes.len());
        let half = error(&bytes[..needed / 2]);
        assert!(matches!(half, Error::Truncated { .. }), "{name}: {half}");
    }
}

/// Every byte of a small file replaced: an image or an error that names the file, and never a panic.
#[test]
fn gif_and_bmp_with_one_wrong_byte() {
    let options = DecodeOptions { max_pixels: 1 << 16, ..DecodeOptions::default() };
    for name in ["inside_transparent.gif", "interlaced_short.gif", "bits4.bmp", "rle4.bmp", "bits565_v5.bmp"]
    {
        let bytes = std::fs::read(path(name)).unwrap();
        for (at, value) in (0..bytes.len()).flat_map(|at| [0, 1, 0x7F, 0x80, 0xFF].map(|value| (at, value))) {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            match decode(&bytes, name, &options) {
                Ok(image) => assert_eq!(image.pixels.len(), 3 * image.width * image.height),
                Err(error) => assert!(error.to_string().contains(name), "{name}, byte {at}: {error}"),
            }
        }
    }
}

/// libjpeg ignores the coefficient range in the scan headers of a sequential file; some encoders write 0 as
/// its end.
#[test]
fn a_last_coefficient_of_zero_means_all() {
    for name in ["rgb444.jpg", "apart.jpg", "coarse_luma.jpg"] {
        let bytes = std::fs::read(path(name)).unwrap();
        let mut slipped = bytes.clone();
        for at in (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&[0xFF, 0xDA])) {
            slipped[at + usize::from(bytes[at + 3])] = 0;
        }
        assert_ne!(slipped, bytes);
        let read = |bytes| decode(bytes, name, &DecodeOptions::default()).unwrap();
        assert_eq!(read(&slipped), read(&bytes), "{name}");
    }
}

/// A missing or repeated scan: libjpeg would fill in grey, or mix the scans.
#[test]
fn scans_must_add_up() {
    let bytes = std::fs::read(path("apart.jpg")).unwrap();
    let scans: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&[0xFF, 0xDA])).collect();
    let (before, last) = (&bytes[..scans[2]], &bytes[scans[2]..]);
    let missing = [before, &[0xFF, 0xD9]].concat();
    let twice = [before, &bytes[scans[1]..scans[2]], last].concat();
    for bytes in [missing, twice] {
        assert!(error(&bytes).to_string().contains("scans that do not add up to one whole image"));
    }
    let many = [before, &bytes[scans[1]..scans[2]].repeat(500), last].concat();
    assert!(error(&many).to_string().contains("more than 500 scans"));
}

fn claims(width: u32, height: u32) -> [Vec<u8>; 5] {
    let png = [
        &b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..],
        &width.to_be_bytes(),
        &height.to_be_bytes(),
        &[8, 2, 0, 0, 0, 0, 0, 0, 0],
    ];
    let frame = [
        &b"\xFF\xD8\xFF\xC0\0\x11\x08"[..],
        &(height as u16).to_be_bytes(),
        &(width as u16).to_be_bytes(),
        &[3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0],
    ];
    let (w, h) = ((width - 1).to_le_bytes(), (height - 1).to_le_bytes());
    let webp = [&b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0"[..], &w[..3], &h[..3]];
    let [w, h] = [(width as u16).to_le_bytes(), (height as u16).to_le_bytes()];
    let gif = [&b"GIF89a\x05\0\x05\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0"[..], &w, &h, &[0, 2, 2]];
    let [w, h] = [width.to_le_bytes(), height.to_le_bytes()];
    let bmp = [&b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0"[..], &w, &h, &[1, 0, 24, 0], &[0; 24]];
    [png.concat(), frame.concat(), webp.concat(), gif.concat(), bmp.concat()]
}

#[test]
fn huge_claims_are_refused_by_the_header() {
    for bytes in claims(50_000, 50_000) {
        assert_eq!(
            error(&bytes).to_string(),
            "bad.file: 50000x50000 pixels are more than the limit of 178.95697 megapixels"
        );
    }
    for bytes in claims(100, 100) {
        assert!(matches!(error(&bytes), Error::Truncated { .. } | Error::Decode { .. }));
    }
}

#[test]
fn long_sides_are_refused_by_the_header() {
    let [tall, ..] = claims(1, 20_000_000);
    let want = "bad.file: 1x20000000 pixels: a side is longer than the limit of 100000 (max_side)";
    assert_eq!(error(&tall).to_string(), want);
    let [wide, ..] = claims(178_956_970, 1);
    assert!(matches!(error(&wide), Error::TooLong { .. }));
}

/// A sparse file of 5 GB with a PNG at its start is rejected without reading it.
#[test]
fn large_files_are_refused_before_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sparse.png");
    let png = std::fs::read(path("rgb8.png")).unwrap();
    std::fs::File::create(&file).and_then(|mut f| f.write_all(&png).and(f.set_len(5 << 30))).unwrap();
    let refused = open(&file, &DecodeOptions::default()).unwrap_err();
    assert!(
        refused.to_string().ends_with("is larger than the limit of 536870912 bytes (max_bytes)"),
        "{refused}"
    );
    let limit = |max_bytes| DecodeOptions { max_bytes, ..DecodeOptions::default() };
    assert!(open(path("rgb8.png"), &limit(png.len() as u64)).is_ok());
    let refused = open(path("rgb8.png"), &limit(png.len() as u64 - 1)).unwrap_err();
    assert!(matches!(refused, Error::TooManyBytes { .. }));
}

/// A name typed by the user may be a pipe; a name from a file may not, because nobody might ever write to the
/// pipe.
#[cfg(unix)]
#[test]
fn pipes_are_read_only_for_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = open_regular(&pipe, &DecodeOptions::default()).unwrap_err();
    assert!(refused.source().unwrap().to_string().contains("FIFO"));
    let bytes = std::fs::read(path("rgb8.png")).unwrap();
    let plain = decode(&bytes, "rgb8.png", &DecodeOptions::default()).unwrap();
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, bytes).unwrap()
    });
    assert_eq!(open(&pipe, &DecodeOptions::default()).unwrap(), plain);
    writer.join().unwrap();
    assert_eq!(open_regular(path("rgb8.png"), &DecodeOptions::default()).unwrap(), plain);
    let endless = open("/dev/zero", &DecodeOptions::default());
    assert!(matches!(endless, Err(Error::Unsupported { .. })));
}

#[test]
fn the_limit_is_the_callers() {
    let limit = |max_pixels| DecodeOptions { max_pixels, ..DecodeOptions::default() };
    for name in [
        "rgb8.png",
        "rgb444.jpg",
        "lossless.webp",
        "lossy.webp",
        "lossless_alpha.webp",
        "outside.gif",
        "top_down.bmp",
    ] {
        let image = open(path(name), &DecodeOptions::default()).unwrap();
        let area = (image.width * image.height) as u64;
        assert!(open(path(name), &limit(area)).is_ok(), "{name}");
        assert!(matches!(open(path(name), &limit(area - 1)), Err(Error::TooLarge { .. })), "{name}");
    }
}

/// A palette of sixteen colours and one more byte, on which the PNG decoder panics.
#[test]
fn a_palette_of_no_whole_colours_is_refused() {
    let bytes = std::fs::read(path("../bad/palette_of_49_bytes.png")).unwrap();
    let damaged = error(&bytes);
    assert!(matches!(damaged, Error::Decode { .. }), "{damaged}");
    assert!(pheye_files::chain(&damaged).contains("palette"), "{}", pheye_files::chain(&damaged));
}
