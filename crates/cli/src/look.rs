//! Draws where the model looked for each token of an answer, as an SVG. Tiles with less attention are darker.

use std::fmt::Write;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pheye::Look;
use pheye::image::{Rgb8, resize_bicubic};

use crate::show::escape;

/// Side of an image on the sheet, in pixels.
const SIDE: usize = 200;
/// Size of an image's card, with the margins above and below the image.
const CARD: (usize, usize) = (SIDE + 20, SIDE + 60);
/// Cards in a row.
const ACROSS: usize = 5;

/// One card per token: the square image as the model sees it, the token, and the attention on the global
/// image. Each of the `level`² tiles is darkened by how much less attention it received than the tile with
/// the most attention.
///
/// # Errors
/// Returns an error if the image cannot be encoded as PNG.
pub(crate) fn svg(image: &Rgb8, question: &str, looks: &[Look], level: usize) -> anyhow::Result<String> {
    let data = BASE64_STANDARD.encode(pheye::png(&resize_bicubic(image, 2 * SIDE, 2 * SIDE))?);
    let (w, h) = CARD;
    let top = 40;
    let (width, height) = (w * looks.len().clamp(2, ACROSS), top + h * looks.len().div_ceil(ACROSS).max(1));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"14\">\n\
         <defs><image id=\"p\" width=\"{SIDE}\" height=\"{SIDE}\" href=\"data:image/png;base64,{data}\"/></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"26\" fill=\"#1f2328\">{}</text>\n",
        escape(question)
    );
    for (i, look) in looks.iter().enumerate() {
        let (x, y) = (i % ACROSS * w + 10, top + i / ACROSS * h);
        let (whole, tiles) = look.views.split_first().context("a token without views")?;
        let most = tiles.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let _ = writeln!(out, "<use href=\"#p\" x=\"{x}\" y=\"{y}\"/>");
        for (tile, share) in tiles.iter().enumerate() {
            // Tiles are numbered column by column.
            let (at, side) = ([tile / level, tile % level], SIDE as f32 / level as f32);
            let [left, up] = at.map(|i| i as f32 * side);
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" fill=\"#000000\" \
                 fill-opacity=\"{:.2}\" stroke=\"#ffffff\" stroke-width=\"0.5\"><title>{:.1} %</title></rect>",
                x as f32 + left,
                y as f32 + up,
                0.8 * (1.0 - share / most),
                100.0 * share,
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{}\" fill=\"#1f2328\" font-weight=\"bold\">{}</text>\n\
             <text x=\"{x}\" y=\"{}\" fill=\"#59636e\" font-size=\"12\">tiles {:.0} %, global image {:.0} %</text>",
            y + SIDE + 18,
            escape(look.text.trim()),
            y + SIDE + 36,
            100.0 * tiles.iter().sum::<f32>(),
            100.0 * whole,
        );
    }
    Ok(out + "</svg>\n")
}
