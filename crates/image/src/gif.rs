//! Decodes the first frame of a GIF as Pillow does: on the screen of the file, or a larger one if the frame
//! needs it, where pixels outside the frame have the transparent colour, or the first one of the palette.
//!
//! Transparency is dropped: a transparent pixel gets its colour of the palette.

use crate::{Error, Rgb8};
use gif::{ColorOutput, DecodingError, MemoryLimit};
use std::num::NonZeroU64;

/// Memory for the tables and metadata of the decoder, in bytes.
const DECODER_MEMORY: u64 = 64 << 20;

/// Whether the file ends before its first frame.
fn is_cut(error: &DecodingError) -> bool {
    match error {
        DecodingError::UnexpectedEof => true,
        DecodingError::Io(e) => e.kind() == std::io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

/// Decodes a GIF. `size` is the size of the result, which has been checked against the limits.
///
/// # Errors
/// Returns `None` if the file ends too early, and otherwise [`Error::Decode`].
pub(crate) fn read(bytes: &[u8], size: (u32, u32), name: &str) -> Result<Rgb8, Option<Error>> {
    let fault = |e: DecodingError| (!is_cut(&e)).then(|| Error::decode(name, "GIF", e));
    let (width, height) = (size.0 as usize, size.1 as usize);
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let memory = (width as u64 * height as u64).saturating_add(DECODER_MEMORY);
    options.set_memory_limit(NonZeroU64::new(memory).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
    let mut decoder = options.read_info(bytes).map_err(fault)?;
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let Some(frame) = decoder.read_next_frame().map_err(fault)? else { return Err(None) };
    let palette = frame.palette.as_deref().or(global.as_deref()).unwrap_or_default();
    // Indices beyond the palette are black.
    let colour = |index: u8| palette.as_chunks::<3>().0.get(usize::from(index)).copied().unwrap_or_default();

    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
    let whole = columns.checked_mul(rows) == Some(frame.buffer.len()) && columns > 0 && rows > 0;
    if !whole || left + columns > width || top + rows > height {
        return Err(Some(Error::decode(
            name,
            "GIF",
            "the frame does not have the size that the header states",
        )));
    }
    let around = colour(frame.transparent.unwrap_or(0));
    let mut pixels = Vec::with_capacity(3 * width * height);
    (0..width * height).for_each(|_| pixels.extend(around));
    for (y, row) in frame.buffer.chunks_exact(columns).enumerate() {
        let out = &mut pixels[3 * ((top + y) * width + left)..][..3 * columns];
        out.as_chunks_mut::<3>().0.iter_mut().zip(row).for_each(|(out, index)| *out = colour(*index));
    }
    Ok(Rgb8 { width, height, pixels })
}
