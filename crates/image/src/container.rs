//! Reads the headers of a file before any decoder allocates memory for it.
//!
//! The decoders do not report these facts: the size stated by a file that is damaged or too large to decode,
//! whether a JPEG or WebP is complete (a JPEG decoder fills missing rows with grey), how a JPEG is coded, and
//! every place where the orientation can be stored.

use crate::jpeg_header::Header;
use crate::orientation::{Sources, Text};
use image::ImageFormat;
use std::borrow::Cow;

/// Facts from the headers and markers of a file.
#[derive(Default)]
pub(crate) struct Facts<'a> {
    /// Width and height in pixels, if the header is complete enough.
    pub size: Option<(u32, u32)>,
    /// Whether the file is complete: a JPEG up to its EOI marker, a WebP up to its stated size. Always set
    /// for PNG, GIF and BMP, whose decoders detect missing data.
    pub complete: bool,
    /// How a JPEG is coded.
    pub jpeg: Header<'a>,
    /// Where the orientation may be stored.
    pub orientation: Sources<'a>,
}

/// The facts of a file that starts with the signature of `format`.
pub(crate) fn inspect(format: ImageFormat, bytes: &[u8]) -> Facts<'_> {
    match format {
        ImageFormat::Png => png(bytes),
        ImageFormat::Jpeg => jpeg(bytes),
        ImageFormat::Gif => gif(bytes),
        ImageFormat::Bmp => bmp(bytes),
        _ => webp(bytes),
    }
}

fn png(bytes: &[u8]) -> Facts<'_> {
    let mut facts = Facts { complete: true, ..Facts::default() };
    let mut at = 8;
    // A chunk consists of length, type, data and CRC.
    while let (Some(length), Some(kind)) = (be(bytes, at, 4), bytes.get(at + 4..at + 8)) {
        let data = bytes.get(at + 8..).unwrap_or_default();
        if kind == b"IHDR" && facts.size.is_none() {
            facts.size = be(data, 0, 4).zip(be(data, 4, 4));
        }
        let Some(data) = data.get(..length as usize).filter(|_| kind != b"IEND") else { break };
        match kind {
            b"eXIf" => facts.orientation.exif = Some(data.into()),
            b"tEXt" | b"zTXt" | b"iTXt" => text(kind, data, &mut facts.orientation),
            _ => {}
        }
        at += 12 + length as usize;
    }
    facts
}

/// Reads a text chunk of a PNG that may contain EXIF or XMP. As in Pillow, the last of several with the same
/// keyword wins.
fn text<'a>(kind: &[u8], data: &'a [u8], sources: &mut Sources<'a>) {
    let Some((keyword, rest)) = split(data) else { return };
    let text = match (kind, rest) {
        (b"tEXt", text) => Text::Plain(text),
        (b"zTXt", [0, packed @ ..]) => Text::Packed(packed),
        // Compression flag, compression method, language tag, translated keyword.
        (b"iTXt", [flag, method, rest @ ..]) => {
            match (flag, method, split(rest).and_then(|(_, rest)| split(rest))) {
                (0, _, Some((_, text))) => Text::Plain(text),
                (_, 0, Some((_, packed))) => Text::Packed(packed),
                _ => return,
            }
        }
        _ => return,
    };
    match (keyword, text) {
        (b"Raw profile type exif", _) => sources.profile = Some(text),
        (b"XML:com.adobe.xmp", _) => sources.xmp = Some(text),
        (b"exif", Text::Plain(block)) if kind == b"tEXt" => sources.exif = Some(block.into()),
        _ => {}
    }
}

/// The data before and after the first zero byte.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|&b| b == 0)?;
    Some((&data[..end], &data[end + 1..]))
}

fn jpeg(bytes: &[u8]) -> Facts<'_> {
    let mut facts = Facts::default();
    let mut at = 2;
    // A marker is 0xFF and a byte other than a stuffed zero, a fill byte or a restart marker. This search
    // also skips entropy-coded data.
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
        let segment = &segment[..segment.len().min((length as usize).saturating_sub(2))];
        facts.jpeg.add(marker, segment);
        if marker == 0xE1 && facts.jpeg.scans.is_empty() {
            app1(segment, &mut facts.orientation);
        }
        at += 1 + (length as usize).max(2);
    }
    facts.size = facts.jpeg.sof.and_then(|(_, frame)| be(frame, 3, 2).zip(be(frame, 1, 2)));
    facts
}

/// As in Pillow, the EXIF of all segments is concatenated, and the last XMP packet wins.
fn app1<'a>(segment: &'a [u8], sources: &mut Sources<'a>) {
    if let Some(packet) = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
        sources.xmp = Some(Text::Plain(packet));
    } else if let Some(block) = segment.strip_prefix(b"Exif\0\0") {
        match &mut sources.exif {
            Some(exif) => exif.to_mut().extend(block),
            none => *none = Some(Cow::Borrowed(block)),
        }
    }
}

fn webp(bytes: &[u8]) -> Facts<'_> {
    let complete = le(bytes, 4, 4).is_some_and(|size| bytes.len() as u64 >= 8 + u64::from(size));
    let mut facts = Facts { complete, ..Facts::default() };
    let (mut at, mut flags) = (12, 0);
    while let (Some(kind), Some(length)) = (bytes.get(at..at + 4), le(bytes, at + 4, 4)) {
        let data = bytes.get(at + 8..).unwrap_or_default();
        let size = match kind {
            b"VP8X" => le(data, 4, 3).zip(le(data, 7, 3)).map(|(w, h)| (w + 1, h + 1)),
            b"VP8L" => le(data, 1, 4).map(|bits| ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)),
            b"VP8 " => le(data, 6, 2).zip(le(data, 8, 2)).map(|(w, h)| (w & 0x3FFF, h & 0x3FFF)),
            _ => None,
        };
        facts.size = facts.size.or(size);
        let chunk = data.get(..length as usize);
        let sources = &mut facts.orientation;
        // libwebp uses the first chunk of each kind, and only the kinds announced by the flags of VP8X.
        match kind {
            b"VP8X" if at == 12 => flags = data.first().copied().unwrap_or(0),
            b"EXIF" if flags & 8 != 0 && sources.exif.is_none() => sources.exif = chunk.map(Cow::Borrowed),
            b"XMP " if flags & 4 != 0 && sources.xmp.is_none() => sources.xmp = chunk.map(Text::Plain),
            _ => {}
        }
        at = at.saturating_add(8 + length as usize + (length & 1) as usize);
    }
    facts
}

/// The size is that of the screen, or larger if the first frame needs it. Neither format has an orientation
/// that Pillow reads.
fn gif(bytes: &[u8]) -> Facts<'_> {
    let mut facts = Facts { complete: true, ..Facts::default() };
    let (Some(width), Some(height), Some(&flags)) = (le(bytes, 6, 2), le(bytes, 8, 2), bytes.get(10)) else {
        return facts;
    };
    let colours = |flags: u8| if flags & 0x80 != 0 { 3usize << ((flags & 7) + 1) } else { 0 };
    let mut at = 13 + colours(flags);
    // An extension is 0x21, a label and sub-blocks, each with its length, up to one of length 0.
    while bytes.get(at) == Some(&0x21) {
        at += 2;
        while let Some(&length @ 1..) = bytes.get(at) {
            at += 1 + usize::from(length);
        }
        at += 1;
    }
    if bytes.get(at) == Some(&0x2C) {
        let number = |offset| le(bytes, at + offset, 2);
        if let (Some(x), Some(y), Some(w), Some(h)) = (number(1), number(3), number(5), number(7)) {
            facts.size = Some((width.max(x + w), height.max(y + h)));
        }
    }
    facts
}

fn bmp(bytes: &[u8]) -> Facts<'_> {
    let size = match le(bytes, 14, 4) {
        // The header of OS/2 1.x has sides of 16 bits.
        Some(12) => le(bytes, 18, 2).zip(le(bytes, 20, 2)),
        // Rows are stored from top to bottom if the height is negative.
        _ => le(bytes, 18, 4).zip(le(bytes, 22, 4).map(|height| height.cast_signed().unsigned_abs())),
    };
    Facts { complete: true, size, ..Facts::default() }
}

fn be(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    Some(bytes.get(at..at.checked_add(count)?)?.iter().fold(0, |n, &b| n << 8 | u32::from(b)))
}

fn le(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    Some(bytes.get(at..at.checked_add(count)?)?.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b)))
}
