//! Reads what a file says about itself, before any decoder allocates for it.
//!
//! Three things the decoders do not tell: the claimed size of a file too broken or too large to open, whether the file
//! goes on to its end (a JPEG decoder fills a missing rest with grey), and whether a PNG is 16-bit grey, which Pillow
//! converts by a rule of its own.

use image::ImageFormat;

/// What a file's headers and markers say.
#[derive(Default)]
pub(crate) struct Facts<'a> {
    /// Width and height in pixels, if the header got that far.
    pub size: Option<(u32, u32)>,
    /// The end of the picture is present: IEND, EOI, or all bytes that the RIFF header promises.
    pub complete: bool,
    /// A PNG of colour type 0 with 16 bits, Pillow's mode "I;16".
    pub grey16: bool,
    /// EXIF block, starting at its TIFF header.
    pub exif: Option<&'a [u8]>,
}

/// Facts of a file known to start with the signature of `format`.
pub(crate) fn inspect(format: ImageFormat, bytes: &[u8]) -> Facts<'_> {
    match format {
        ImageFormat::Png => png(bytes),
        ImageFormat::Jpeg => jpeg(bytes),
        _ => webp(bytes),
    }
}

fn png(bytes: &[u8]) -> Facts<'_> {
    let mut facts = Facts::default();
    let mut at = 8;
    // Length, type, data, CRC.
    while let (Some(length), Some(kind)) = (be(bytes, at, 4), bytes.get(at + 4..at + 8)) {
        let data = bytes.get(at + 8..).unwrap_or_default();
        if kind == b"IHDR" && facts.size.is_none() {
            facts.size = be(data, 0, 4).zip(be(data, 4, 4));
            facts.grey16 = data.get(8..10) == Some(&[16, 0]);
        }
        let Some(after) = at.checked_add(12 + length as usize).filter(|&end| end <= bytes.len()) else {
            break;
        };
        match kind {
            b"eXIf" => facts.exif = Some(tiff(&data[..length as usize])),
            b"IEND" => facts.complete = true,
            _ => {}
        }
        at = after;
    }
    facts
}

fn jpeg(bytes: &[u8]) -> Facts<'_> {
    let mut facts = Facts::default();
    let mut at = 2;
    // A marker is 0xFF and a byte that is no stuffed zero, no fill and no restart. Looking for it steps over
    // entropy-coded data too.
    while let Some(step) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) {
        at += step + 1;
        let Some(&marker) = bytes.get(at) else { break };
        if matches!(marker, 0 | 0xFF | 0x01 | 0xD0..=0xD8) {
            at += usize::from(marker != 0xFF);
            continue;
        }
        if marker == 0xD9 {
            facts.complete = true;
            break;
        }
        let Some(length) = be(bytes, at + 1, 2) else { break };
        let segment = bytes.get(at + 3..).unwrap_or_default();
        let is_frame = matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
        if is_frame && facts.size.is_none() {
            facts.size = be(segment, 3, 2).zip(be(segment, 1, 2));
        }
        let segment = &segment[..segment.len().min((length as usize).saturating_sub(2))];
        if marker == 0xE1 && segment.starts_with(b"Exif\0\0") && facts.exif.is_none() {
            facts.exif = Some(tiff(segment));
        }
        at += 1 + (length as usize).max(2);
    }
    facts
}

fn webp(bytes: &[u8]) -> Facts<'_> {
    let complete = le(bytes, 4, 4).is_some_and(|size| bytes.len() >= 8 + size as usize);
    let mut facts = Facts { complete, ..Facts::default() };
    let mut at = 12;
    while let (Some(kind), Some(length)) = (bytes.get(at..at + 4), le(bytes, at + 4, 4)) {
        let data = bytes.get(at + 8..).unwrap_or_default();
        let size = match kind {
            b"VP8X" => le(data, 4, 3).zip(le(data, 7, 3)).map(|(w, h)| (w + 1, h + 1)),
            b"VP8L" => le(data, 1, 4).map(|bits| ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)),
            b"VP8 " => le(data, 6, 2).zip(le(data, 8, 2)).map(|(w, h)| (w & 0x3FFF, h & 0x3FFF)),
            _ => None,
        };
        facts.size = facts.size.or(size);
        if kind == b"EXIF" {
            facts.exif = data.get(..length as usize).map(tiff);
        }
        at = at.saturating_add(8 + length as usize + (length & 1) as usize);
    }
    facts
}

/// Some writers put JPEG's EXIF prefix before the TIFF header in PNG and WebP too.
fn tiff(exif: &[u8]) -> &[u8] {
    exif.strip_prefix(b"Exif\0\0").unwrap_or(exif)
}

fn be(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    Some(bytes.get(at..at.checked_add(count)?)?.iter().fold(0, |n, &b| n << 8 | u32::from(b)))
}

fn le(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    Some(bytes.get(at..at.checked_add(count)?)?.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b)))
}
