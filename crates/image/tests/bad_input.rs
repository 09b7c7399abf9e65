//! Broken files end in errors that say which file and why.

use pheye_image::{DecodeOptions, Error, decode, open};
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
        r#"bad.file: not a picture this program reads (PNG, JPEG or WebP): it starts with "a note\n\x01""#
    );
    assert!(error(b"GIF89a......").to_string().ends_with("it is Gif"));
    assert!(matches!(error(b"RIFF\x10\0\0\0WAVEfmt "), Error::Unsupported { .. }));
    let missing = open("no/such.png", &DecodeOptions::default()).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }) && missing.to_string().starts_with("no/such.png: "));
    assert!(open(env!("CARGO_MANIFEST_DIR"), &DecodeOptions::default()).is_err());
    assert!(matches!(
        open(file!(), &DecodeOptions::default()),
        Err(Error::Io { .. } | Error::Unsupported { .. })
    ));
}

#[test]
fn every_proper_prefix_is_an_error() {
    let files = [
        "rgb8.png",
        "palette4_trns.png",
        "interlaced.png",
        "animated.png",
        "rgb420.jpg",
        "progressive.jpg",
        "restart.jpg",
        "cmyk.jpg",
        "lossless.webp",
        "lossy.webp",
        "lossy_alpha.webp",
        "animated.webp",
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

/// A cut after an embedded thumbnail's own end marker is still a cut.
#[test]
fn a_thumbnail_does_not_hide_truncation() {
    let bytes = std::fs::read(path("rgb444.jpg")).unwrap();
    let thumbnail = [&b"Exif\0\0"[..], &bytes[..200], b"\xFF\xD9"].concat();
    let length = (thumbnail.len() as u16 + 2).to_be_bytes();
    let whole = [&bytes[..2], b"\xFF\xE1", &length, &thumbnail, &bytes[2..]].concat();
    assert!(decode(&whole, "whole", &DecodeOptions::default()).is_ok());
    assert!(matches!(error(&whole[..whole.len() - 100]), Error::Truncated { .. }));
}

/// Bytes after the end are harmless, as in Pillow.
#[test]
fn padding_is_ignored() {
    for name in ["rgb8.png", "rgb444.jpg", "lossless.webp"] {
        let mut bytes = std::fs::read(path(name)).unwrap();
        let plain = decode(&bytes, name, &DecodeOptions::default()).unwrap();
        bytes.extend([0; 99]);
        assert_eq!(decode(&bytes, name, &DecodeOptions::default()).unwrap(), plain, "{name}");
    }
}

/// Damage in the middle is an error or a wrong picture of the right size, never a panic.
#[test]
fn flipped_bytes_do_not_panic() {
    for name in [
        "rgb8.png",
        "grey16.png",
        "palette4_trns.png",
        "rgb420.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "lossless_alpha.webp",
        "lossy_alpha.webp",
        "animated.webp",
    ] {
        let bytes = std::fs::read(path(name)).unwrap();
        let options = DecodeOptions { max_pixels: 1 << 20, ..DecodeOptions::default() };
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            if let Ok(picture) = decode(&damaged, name, &options) {
                assert_eq!(picture.pixels.len(), 3 * picture.width * picture.height);
            }
        }
    }
}

fn claims(width: u32, height: u32) -> [Vec<u8>; 3] {
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
    [png.concat(), frame.concat(), webp.concat()]
}

#[test]
fn huge_claims_are_refused_by_the_header() {
    for bytes in claims(50_000, 50_000) {
        assert_eq!(
            error(&bytes).to_string(),
            "bad.file: 50000x50000 pixels are more than the limit of 178956970 (max_pixels)"
        );
    }
    for bytes in claims(100, 100) {
        assert!(matches!(error(&bytes), Error::Truncated { .. } | Error::Decode { .. }));
    }
}

#[test]
fn the_limit_is_the_callers() {
    let limit = |max_pixels| DecodeOptions { max_pixels, ..DecodeOptions::default() };
    for name in ["rgb8.png", "rgb444.jpg", "lossless.webp", "lossy.webp", "lossless_alpha.webp"] {
        let picture = open(path(name), &DecodeOptions::default()).unwrap();
        let area = (picture.width * picture.height) as u64;
        assert!(open(path(name), &limit(area)).is_ok(), "{name}");
        assert!(matches!(open(path(name), &limit(area - 1)), Err(Error::TooLarge { .. })), "{name}");
    }
}
