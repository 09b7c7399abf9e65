//! Decodes PNG to RGB row by row, so that only the result and one row are in memory, whatever the bit depth.
//!
//! Alpha is dropped, not composited. 16-bit colour is reduced to its high byte, but 16-bit grey is clipped at
//! 255, because Pillow opens it in mode "I;16". The decoder expands palettes and low bit depths to 8 bits.
//!
//! As in Pillow, an image is decoded if all its pixels are present; data after them may be missing, but not
//! damaged.

use crate::Rgb8;
use png::{BitDepth, ColorType, Decoder, DecodingError, InterlaceInfo, Limits, Transformations};
use std::io::{Cursor, ErrorKind};

/// Limit for the tables and rows of the decoder, in bytes.
const DECODER_MEMORY: usize = 64 << 20;

/// Whether the file ends before its last pixel.
pub(crate) fn is_cut(error: &DecodingError) -> bool {
    matches!(error, DecodingError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof)
}

/// Decodes a PNG. `size` is the size stated by the header, which has been checked against the limits.
pub(crate) fn read(bytes: &[u8], size: (u32, u32)) -> Result<Rgb8, DecodingError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: DECODER_MEMORY });
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info()?;
    let row_bytes = reader.output_line_size(size.0).filter(|_| reader.info().size() == size);
    let mut row = vec![0; row_bytes.ok_or(DecodingError::LimitsExceeded)?];
    let info = reader.info();
    if info.palette.as_ref().is_some_and(|palette| palette.len() % 3 != 0) {
        let fault = std::io::Error::new(ErrorKind::InvalidData, "the palette's bytes are no whole colours");
        return Err(DecodingError::IoError(fault));
    }
    let rows = if info.interlaced { interlaced_rows(size) } else { u64::from(size.1) };
    let (colour, depth) = reader.output_color_type();
    let kind =
        Kind { colour, wide: depth == BitDepth::Sixteen, grey: info.color_type == ColorType::Grayscale };
    let ready = !info.interlaced && (colour, depth) == (ColorType::Rgb, BitDepth::Eight);

    let (width, height) = (size.0 as usize, size.1 as usize);
    let stride = 3 * width;
    let mut pixels = vec![0; stride * height];
    let mut rgb = vec![0; stride];
    for done in 0.. {
        let at = stride * done as usize;
        let into = if ready && done < rows { &mut pixels[at..][..stride] } else { &mut row[..] };
        match reader.read_row(into) {
            Ok(Some(InterlaceInfo::Null(_))) if ready => {}
            Ok(Some(InterlaceInfo::Null(_))) => kind.to_rgb(&row, &mut pixels[at..][..stride]),
            Ok(Some(InterlaceInfo::Adam7(pass))) => {
                kind.to_rgb(&row, &mut rgb);
                png::expand_interlaced_row(&mut pixels, stride, &rgb, &pass, 24);
            }
            Ok(None) => break,
            Err(error) if done == rows && is_cut(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Rgb8 { width, height, pixels })
}

/// Number of rows in all seven passes of an Adam7-interlaced image (PNG specification, section 8.2).
fn interlaced_rows((width, height): (u32, u32)) -> u64 {
    // First column, first row and row spacing of each pass.
    let passes = [(0, 0, 8), (4, 0, 8), (0, 4, 8), (2, 0, 4), (0, 2, 4), (1, 0, 2), (0, 1, 2)];
    let present = passes.iter().filter(|&&(x, ..)| x < width);
    present.map(|&(_, y, step)| u64::from(height.saturating_sub(y).div_ceil(step))).sum()
}

/// The type of the decoded rows.
struct Kind {
    colour: ColorType,
    /// Whether samples have 16 bits, big-endian.
    wide: bool,
    /// Whether the file is grey without alpha. The decoder may still add an alpha channel for its tRNS chunk.
    grey: bool,
}

impl Kind {
    /// Converts a decoded row to RGB. A row of an interlaced pass is shorter than `out`.
    fn to_rgb(&self, row: &[u8], out: &mut [u8]) {
        let grey = self.grey;
        let narrow = |high: u8, low: u8| match (grey, high) {
            (false, _) => high,
            (true, 0) => low,
            (true, _) => 255,
        };
        let out = out.as_chunks_mut::<3>().0;
        match (self.colour, self.wide) {
            (ColorType::Grayscale, false) => gather(row, 1, out, |c| [c[0]; 3]),
            (ColorType::GrayscaleAlpha, false) => gather(row, 2, out, |c| [c[0]; 3]),
            (ColorType::Rgb | ColorType::Indexed, false) => gather(row, 3, out, |c| [c[0], c[1], c[2]]),
            (ColorType::Rgba, false) => gather(row, 4, out, |c| [c[0], c[1], c[2]]),
            (ColorType::Grayscale, true) => gather(row, 2, out, |c| [narrow(c[0], c[1]); 3]),
            (ColorType::GrayscaleAlpha, true) => gather(row, 4, out, |c| [narrow(c[0], c[1]); 3]),
            (ColorType::Rgb | ColorType::Indexed, true) => gather(row, 6, out, |c| [c[0], c[2], c[4]]),
            (ColorType::Rgba, true) => gather(row, 8, out, |c| [c[0], c[2], c[4]]),
        }
    }
}

fn gather(row: &[u8], bytes: usize, out: &mut [[u8; 3]], rgb: impl Fn(&[u8]) -> [u8; 3]) {
    out.iter_mut().zip(row.chunks_exact(bytes)).for_each(|(out, pixel)| *out = rgb(pixel));
}
