//! Colors that can be read, and the painting of boards and texts with them.

use pheye_image::Rgb8;

use crate::background::fade;
use crate::color::{Color, contrast, distance, luminance};
use crate::layout::{Piece, SMALL};
use crate::mask::{Box4, Mask};
use crate::random::Rng;

/// Least contrast of a text with the lightest and the darkest tenth of what is behind it, for small letters,
/// whose strokes are thinner than a pixel, and for others.
const CONTRAST: (f32, f32) = (4.5, 3.5);

/// The colors of a piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) color: Color,
    pub(crate) board: Option<Color>,
    /// Whether the text has an outline or a shadow, in a color without a name.
    pub(crate) decorated: bool,
}

/// Paints the boards and texts of `pieces`, and returns their colors.
pub(crate) fn paint(image: &mut Rgb8, pieces: &[Piece], rng: &mut Rng) -> Vec<Look> {
    let palettes: Vec<Vec<Color>> = pieces.iter().map(|_| Color::shades(rng)).collect();
    let readable = |image: &Rgb8, (piece, palette): (&Piece, &Vec<Color>)| {
        piece.board.is_some() || Ground::of(image, piece.text_box()).readable(palette, piece).is_some()
    };
    let dark = rng.chance(0.5);
    // Once is enough for any image, since black or white can then be read on all of it.
    if !pieces.iter().zip(&palettes).all(|pair| readable(image, pair)) {
        fade(image, dark);
    }
    pieces.iter().zip(&palettes).map(|(piece, palette)| paint_piece(image, piece, palette, rng)).collect()
}

/// An image of `size` by `size` pixels with the texts of `pieces` in black over white, and their colors.
pub(crate) fn paint_plain(size: usize, pieces: &[Piece]) -> (Rgb8, Vec<Look>) {
    let mut image = Rgb8 { width: size, height: size, pixels: Color::WHITE.rgb.repeat(size * size) };
    for piece in pieces {
        let [x, y, ..] = piece.text_box();
        blend(&mut image, &piece.mask, [x, y], Color::BLACK.rgb, 255);
    }
    let look = Look { color: Color::BLACK, board: None, decorated: false };
    (image, vec![look; pieces.len()])
}

fn paint_piece(image: &mut Rgb8, piece: &Piece, palette: &[Color], rng: &mut Rng) -> Look {
    let Some(board) = &piece.board else {
        let ground = Ground::of(image, piece.text_box());
        let color = ground.readable(palette, piece).unwrap_or(palette[0]);
        let decorated = write(image, piece, color, &ground, rng);
        return Look { color, board: None, decorated };
    };
    let behind = Ground::of(image, piece.outer_box()).mean;
    let (color, plain) = pair(palette, &Color::shades(rng), behind, needed(piece));
    let edges = Color::shades(rng);
    let edge = edges.iter().find(|edge| contrast(edge.luminance(), plain.luminance()) > 1.8);
    let outside = if board.inner.is_some() { *edge.unwrap_or(&plain) } else { plain };
    let [x, y, ..] = piece.outer_box();
    blend(image, &board.outer, [x, y], outside.rgb, 255);
    if let Some(inner) = &board.inner {
        let [x, y, ..] = inner.place(piece.center[0], piece.center[1]);
        blend(image, inner, [x, y], plain.rgb, 255);
    }
    let decorated = write(image, piece, color, &Ground::plain(plain.rgb), rng);
    Look { color, board: Some(plain), decorated }
}

/// The first color of `texts` with the first of `boards` on which it can be read, if possible one that differs
/// from what is behind the board. The text is chosen first, so that all colors are about equally frequent.
fn pair(texts: &[Color], boards: &[Color], behind: [u8; 3], needed: f32) -> (Color, Color) {
    let apart = |board: &Color| distance(board.rgb, behind) > 100;
    let (differing, others): (Vec<Color>, Vec<Color>) = boards.iter().partition(|board| apart(board));
    for text in texts {
        let shows = |board: &&Color| contrast(board.luminance(), text.luminance()) >= needed;
        if let Some(board) = differing.iter().chain(&others).find(shows) {
            return (*text, *board);
        }
    }
    (texts[0], boards[0])
}

fn needed(piece: &Piece) -> f32 {
    if piece.height < SMALL { CONTRAST.0 } else { CONTRAST.1 }
}

/// Paints a text, perhaps with an outline or a shadow; returns whether it has one.
fn write(image: &mut Rgb8, piece: &Piece, color: Color, ground: &Ground, rng: &mut Rng) -> bool {
    let decorated = piece.height >= SMALL && decorate(image, piece, color, ground, rng);
    let [x, y, ..] = piece.text_box();
    blend(image, &piece.mask, [x, y], color.rgb, 255);
    decorated
}

/// Paints an outline or a shadow for some texts; returns whether it did. Both are darker or lighter than the
/// text and on the side of the ground, so that they only add contrast.
fn decorate(image: &mut Rgb8, piece: &Piece, color: Color, ground: &Ground, rng: &mut Rng) -> bool {
    let light = color.luminance() > ground.dark;
    let shade = if light { [10; 3] } else { [250; 3] };
    if contrast(luminance(shade), color.luminance()) < CONTRAST.1 {
        return false;
    }
    let [x, y, ..] = piece.text_box();
    match rng.unit() {
        p if p < 0.12 => blend(image, &piece.mask.grown(), [x - 1, y - 1], shade, 230),
        p if p < 0.30 && light => {
            let shift = 1 + i32::from(piece.height > 18.0);
            blend(image, &piece.mask, [x + shift, y + shift], shade, 170);
        }
        _ => return false,
    }
    true
}

/// What is behind a text: the luminances that a tenth of the pixels are below and above, and the mean color.
struct Ground {
    dark: f32,
    light: f32,
    mean: [u8; 3],
}

impl Ground {
    fn of(image: &Rgb8, [x, y, width, height]: Box4) -> Ground {
        let (x, y, width, height) = (x as usize, y as usize, width as usize, height as usize);
        let rows = (y..y + height).map(|y| &image.pixels[3 * (y * image.width + x)..][..3 * width]);
        let (mut lights, mut sum) = (Vec::with_capacity(width * height), [0u32; 3]);
        for pixel in rows.flat_map(|row| row.chunks_exact(3)) {
            (0..3).for_each(|c| sum[c] += u32::from(pixel[c]));
            lights.push(luminance([pixel[0], pixel[1], pixel[2]]));
        }
        let count = lights.len() as u32;
        let mut tenth = |at: usize| *lights.select_nth_unstable_by(at, f32::total_cmp).1;
        let last = count as usize - 1;
        Ground {
            dark: tenth(last / 10),
            light: tenth(last - last / 10),
            mean: sum.map(|s| (s / count) as u8),
        }
    }

    fn plain(rgb: [u8; 3]) -> Ground {
        Ground { dark: luminance(rgb), light: luminance(rgb), mean: rgb }
    }

    /// The first color of `palette` in which a text can be read.
    fn readable(&self, palette: &[Color], piece: &Piece) -> Option<Color> {
        palette.iter().copied().find(|color| self.shows(*color, piece))
    }

    /// Whether a text of the color can be read.
    fn shows(&self, color: Color, piece: &Piece) -> bool {
        let needed = needed(piece);
        let own = color.luminance();
        let outside = own < self.dark || own > self.light;
        outside && contrast(own, self.dark).min(contrast(own, self.light)) >= needed
    }
}

/// Paints `color` through a mask at `x`, `y` with the opacity `opacity` of 255; outside of the image nothing is
/// painted.
fn blend(image: &mut Rgb8, mask: &Mask, [x, y]: [i32; 2], color: [u8; 3], opacity: u32) {
    for row in 0..mask.height {
        for column in 0..mask.width {
            let (at_x, at_y) = (x + column as i32, y + row as i32);
            let coverage = u32::from(mask.coverage[row * mask.width + column]);
            let inside = |at: i32, side: usize| (0..side as i32).contains(&at);
            if coverage == 0 || !inside(at_x, image.width) || !inside(at_y, image.height) {
                continue;
            }
            let alpha = coverage * opacity / 255;
            let at = 3 * (at_y as usize * image.width + at_x as usize);
            for (pixel, color) in image.pixels[at..at + 3].iter_mut().zip(color) {
                let mixed = u32::from(*pixel) * (255 - alpha) + u32::from(color) * alpha;
                *pixel = ((mixed + 127) / 255) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Black or white can be read on every pixel of a faded image, and every text has a board.
    #[test]
    fn there_is_always_a_readable_color() {
        for dark in [true, false] {
            let mut image = Rgb8 { width: 2, height: 1, pixels: vec![0, 0, 0, 255, 255, 255] };
            fade(&mut image, dark);
            let ground =
                [0, 3].map(|at| luminance([image.pixels[at], image.pixels[at + 1], image.pixels[at + 2]]));
            let shades = (0..50).flat_map(|i| Color::shades(&mut Rng::new(0, i)));
            let text = shades.filter(|color| color.name == if dark { "white" } else { "black" });
            for text in text.map(Color::luminance) {
                assert!(
                    ground.iter().all(|ground| contrast(text, *ground) >= CONTRAST.0),
                    "{ground:?} {text}"
                );
            }
        }
        for i in 0..500 {
            let mut rng = Rng::new(1, i);
            let (texts, boards) = (Color::shades(&mut rng), Color::shades(&mut rng));
            for needed in [CONTRAST.0, CONTRAST.1] {
                let (text, board) = pair(&texts, &boards, [128; 3], needed);
                assert!(contrast(text.luminance(), board.luminance()) >= needed, "{text:?} {board:?}");
            }
        }
    }
}
