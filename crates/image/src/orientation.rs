//! The orientation of an image, from the same sources as Pillow's `ImageOps.exif_transpose`.
//!
//! The orientation tag is read from an EXIF block, or else from an EXIF block that ImageMagick stored in a
//! PNG as hexadecimal text. If the block does not have the tag, XMP is used. A tag with an invalid value
//! still overrides XMP.

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;
use std::borrow::Cow;
use std::io::{ErrorKind, Read};

/// Maximum size of a decompressed text in bytes: Pillow's `MAX_TEXT_CHUNK`, above which Pillow rejects the
/// image.
const TEXT_LIMIT: u64 = 1 << 20;
const ORIENTATION: u16 = 0x0112;

/// Where the orientation may be stored in a file.
#[derive(Default)]
pub(crate) struct Sources<'a> {
    /// EXIF data, with or without JPEG's prefix before its TIFF header.
    pub exif: Option<Cow<'a, [u8]>>,
    /// The text "Raw profile type exif" of a PNG.
    pub profile: Option<Text<'a>>,
    /// An XMP packet.
    pub xmp: Option<Text<'a>>,
}

/// A text of a PNG, or other bytes.
#[derive(Clone, Copy)]
pub(crate) enum Text<'a> {
    Plain(&'a [u8]),
    /// A zlib stream.
    Packed(&'a [u8]),
}

impl Sources<'_> {
    pub(crate) fn orientation(&self) -> Orientation {
        let profile = || self.profile.and_then(|text| hexadecimal(&text.bytes()));
        let exif = self.exif.clone().or_else(|| profile().map(Cow::Owned));
        let value = match exif.and_then(|block| from_exif(&block)) {
            Some(value) => value,
            None => self.xmp.map_or(0, |text| from_xmp(&text.bytes())),
        };
        Orientation::from_exif(value).unwrap_or(Orientation::NoTransforms)
    }
}

impl<'a> Text<'a> {
    fn bytes(self) -> Cow<'a, [u8]> {
        match self {
            Self::Plain(bytes) => Cow::Borrowed(bytes),
            Self::Packed(bytes) => {
                let mut text = Vec::new();
                match ZlibDecoder::new(bytes).take(TEXT_LIMIT + 1).read_to_end(&mut text) {
                    Ok(_) if text.len() as u64 > TEXT_LIMIT => text.clear(),
                    Err(e) if e.kind() != ErrorKind::UnexpectedEof => text.clear(),
                    _ => {}
                }
                Cow::Owned(text)
            }
        }
    }
}

/// Decodes a raw profile of ImageMagick: an empty line, a name, a length, then the bytes as hexadecimal
/// digits.
fn hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|&b| b == b'\n').skip(3).flatten();
    let digits: Vec<_> = lines.filter(|b| !b.is_ascii_whitespace()).collect();
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|&[&a, &b]| Some(digit(a)? << 4 | digit(b)?)).collect()
}

/// The digit after the first `tiff:Orientation="` or `tiff:Orientation>`; 0 if there is none.
fn from_xmp(packet: &[u8]) -> u8 {
    const NAME: &[u8] = b"tiff:Orientation";
    let after = |at: usize| match &packet[at..].strip_prefix(NAME)? {
        [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] => Some(digit - b'0'),
        _ => None,
    };
    (0..packet.len()).find_map(after).unwrap_or(0)
}

/// The value of the tag in the first directory of an EXIF block: 0 for an invalid value, `None` if there is
/// no such tag.
fn from_exif(mut block: &[u8]) -> Option<u8> {
    while let Some(rest) = block.strip_prefix(b"Exif\0\0") {
        block = rest;
    }
    let tiff = match block.get(..4)? {
        b"II*\0" | b"II\0*" => Tiff { block, little: true },
        b"MM\0*" | b"MM*\0" => Tiff { block, little: false },
        _ => return None,
    };
    let directory = tiff.long(4)? as usize;
    let count = usize::from(tiff.short(directory)?);
    let mut found = None;
    // The last of several tags wins. The list may be longer than the block.
    for entry in (0..count).map(|i| directory + 2 + 12 * i) {
        if entry + 12 > block.len() {
            break;
        }
        if tiff.short(entry) == Some(ORIENTATION) {
            found = tiff.value(entry).or(found);
        }
    }
    found
}

struct Tiff<'a> {
    block: &'a [u8],
    little: bool,
}

impl Tiff<'_> {
    fn unsigned(&self, at: usize, bytes: usize) -> Option<u64> {
        let bytes = self.block.get(at..at.checked_add(bytes)?)?;
        let add = |n: u64, &b: &u8| n << 8 | u64::from(b);
        Some(if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }

    fn short(&self, at: usize) -> Option<u16> {
        self.unsigned(at, 2).map(|n| n as u16)
    }

    fn long(&self, at: usize) -> Option<u32> {
        self.unsigned(at, 4).map(|n| n as u32)
    }

    /// The first value of the entry at `entry` as an orientation: 0 if it is invalid, `None` if the value
    /// cannot be read.
    fn value(&self, entry: usize) -> Option<u8> {
        let kind = self.short(entry + 2)?;
        let bytes = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 => 8,
            _ => return None,
        };
        let all = bytes * self.long(entry + 4)? as usize;
        let at = if all > 4 { self.long(entry + 8)? as usize } else { entry + 8 };
        if all == 0 || self.block.len() < at.checked_add(all)? {
            return None;
        }
        let value = self.unsigned(at, bytes)?;
        let number = match kind {
            // Pillow reads these types as bytes or text, not as numbers.
            1 | 2 | 7 => 0.0,
            5 => f64::from(self.long(at)?) / f64::from(self.long(at + 4)?),
            10 => f64::from(self.long(at)? as i32) / f64::from(self.long(at + 4)? as i32),
            11 => f64::from(f32::from_bits(value as u32)),
            12 => f64::from_bits(value),
            _ => value as f64,
        };
        Some(if (1.0..=8.0).contains(&number) && number.fract() == 0.0 { number as u8 } else { 0 })
    }
}
