//! Shows answered images: in the terminal, and as one SVG sheet.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pheye::image::Rgb8;
use pheye_files::quoted;

use crate::out::{self, tell};

/// An image with a question and its answer.
pub(crate) struct Shown {
    /// The decoded image.
    pub image: Rgb8,
    /// The bytes of the image file, and its media type.
    pub file: (Vec<u8>, &'static str),
    /// The question.
    pub question: String,
    /// The model's answer.
    pub answer: String,
    /// The correct answer.
    pub expected: String,
}

impl Shown {
    fn right(&self) -> bool {
        self.answer == self.expected
    }
}

/// The image as lines of `cols` coloured half-block characters, each of which shows two pixels.
pub(crate) fn blocks(image: &Rgb8, cols: usize) -> Vec<String> {
    let rows = (cols * image.height / image.width.max(1)).max(2) & !1;
    let small = pheye::image::resize_bicubic(image, cols, rows);
    let pixel = |x: usize, y: usize| &small.pixels[3 * (y * cols + x)..][..3];
    let line = |y: usize| {
        let mut line = String::new();
        for x in 0..cols {
            let (top, bottom) = (pixel(x, y), pixel(x, y + 1));
            let [r, g, b] = [top[0], top[1], top[2]];
            let [u, v, w] = [bottom[0], bottom[1], bottom[2]];
            let _ = write!(line, "\x1b[38;2;{r};{g};{b};48;2;{u};{v};{w}m▀");
        }
        line + "\x1b[0m"
    };
    (0..rows).step_by(2).map(line).collect()
}

/// Prints each question with its answer and, if `colour`, with its image.
pub(crate) fn print(shown: &[Shown], colour: bool) {
    for s in shown {
        let mark = if s.right() { "right".to_owned() } else { format!("wrong, it is {}", s.expected) };
        let text = [quoted(&s.question), format!("→ {} ({})", quoted(&s.answer), quoted(&mark))];
        if !colour {
            tell!("{} {}", text[0], text[1]);
            continue;
        }
        for (i, line) in blocks(&s.image, 16).iter().enumerate() {
            let beside = i.checked_sub(3).and_then(|i| text.get(i)).map_or("", String::as_str);
            out::paint(&format!("  {line}  {beside}"));
        }
        tell!("");
    }
}

const CARD: (usize, usize) = (250, 230);
const ACROSS: usize = 4;

/// All images with their questions and answers as one SVG sheet.
pub(crate) fn svg(shown: &[Shown]) -> String {
    let (w, h) = CARD;
    let down = shown.len().div_ceil(ACROSS);
    let (width, height) = (w * shown.len().min(ACROSS), h * down);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" text-anchor=\"middle\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (i, s) in shown.iter().enumerate() {
        let (x, y) = (i % ACROSS * w, i / ACROSS * h);
        let (bytes, kind) = &s.file;
        let data = BASE64_STANDARD.encode(bytes);
        let colour = if s.right() { "#1a7f37" } else { "#cf222e" };
        let answer = if s.right() { s.answer.clone() } else { format!("{} ({})", s.answer, s.expected) };
        let middle = x + w / 2;
        let _ = writeln!(
            out,
            "<image x=\"{}\" y=\"{}\" width=\"160\" height=\"160\" style=\"image-rendering:pixelated\" \
             href=\"data:{kind};base64,{data}\"/>\n\
             <text x=\"{middle}\" y=\"{}\" fill=\"#1f2328\">{}</text>\n\
             <text x=\"{middle}\" y=\"{}\" fill=\"{colour}\" font-weight=\"bold\">{}</text>",
            x + (w - 160) / 2,
            y + 12,
            y + 192,
            escape(&s.question),
            y + 212,
            escape(&answer),
        );
    }
    out + "</svg>\n"
}

/// Escapes `text` for XML 1.0. Characters that XML 1.0 does not allow, even escaped (§2.2), are replaced by
/// U+FFFD.
pub(crate) fn escape(text: &str) -> String {
    let allowed =
        |c: char| matches!(c, '\t' | '\n' | '\r') || !(c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}'));
    let text: String =
        text.chars().map(|c| if allowed(c) { c } else { char::REPLACEMENT_CHARACTER }).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn xml_holds_no_control_characters() {
        let escaped = super::escape("a<b>&\u{1}\u{1b}[31m\u{fffe}\nö😀");
        assert_eq!(escaped, "a&lt;b&gt;&amp;\u{fffd}\u{fffd}[31m\u{fffd}\nö😀");
    }
}
