//! Draws where the model looked for each token of an answer: a heat map over the image, and a page of all of them.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pheye::Look;
use pheye::image::{Rgb8, resize_bicubic};
use serde_json::{Value, json};

/// Least side of a heat map in pixels.
const SIDE: usize = 448;
/// The page, with `LOOKS` in the place of its data.
const PAGE: &str = include_str!("look.html");

/// The looks of one answer.
pub(crate) struct Answered<'a> {
    pub(crate) image: &'a Rgb8,
    pub(crate) question: &'a str,
    pub(crate) looks: Vec<Look>,
}

/// Writes a PNG file for each token, `look-A-T.png` for token T of answer A, and `look.html`, which has all of them.
/// Returns the names of the files.
///
/// # Errors
/// Returns an error if an image cannot be encoded or a file cannot be written.
pub(crate) fn write(dir: &Path, answers: &[Answered]) -> anyhow::Result<Vec<String>> {
    let (mut sections, mut names) = (Vec::new(), Vec::new());
    for (a, Answered { image, question, looks }) in answers.iter().enumerate() {
        let mut tokens = Vec::new();
        for (t, look) in looks.iter().enumerate() {
            let png = pheye::png(&heat_map(image, look))?;
            let name = format!("look-{}-{}.png", a + 1, t + 1);
            pheye::weights::atomic_write(dir.join(&name), |out| out.write_all(&png))?;
            let image = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&png));
            let tiles: f32 = look.views.iter().skip(1).sum();
            let global = look.views.first().copied().unwrap_or_default();
            tokens.push(json!({"text": look.text, "image": image, "global": global, "tiles": tiles}));
            names.push(name);
        }
        sections.push(json!({"question": question, "tokens": tokens}));
    }
    // `<` would end the element that holds the data.
    let data = Value::Array(sections).to_string().replace('<', "\\u003c");
    let page = PAGE.replacen("LOOKS", &data, 1);
    pheye::weights::atomic_write(dir.join("look.html"), |out| out.write_all(page.as_bytes()))?;
    names.push("look.html".to_owned());
    Ok(names)
}

/// The mean of the looks of an answer's tokens.
pub(crate) fn mean(looks: &[Look]) -> Look {
    let mut mean = Look { text: String::new(), ..looks.first().cloned().unwrap_or_default() };
    for look in looks.iter().skip(1) {
        mean.patches.iter_mut().zip(&look.patches).for_each(|(to, share)| *to += share);
        mean.views.iter_mut().zip(&look.views).for_each(|(to, share)| *to += share);
    }
    mean.patches.iter_mut().chain(&mut mean.views).for_each(|share| *share /= looks.len().max(1) as f32);
    mean
}

/// The image as the model sees it, a square, in which patches are the brighter the more attention they received; those
/// with the most keep their colors.
pub(crate) fn heat_map(image: &Rgb8, look: &Look) -> Rgb8 {
    if look.across == 0 {
        return resize_bicubic(image, SIDE, SIDE);
    }
    let patch = SIDE.div_ceil(look.across);
    let side = patch * look.across;
    let mut image = resize_bicubic(image, side, side);
    // A fiftieth of the patches is as bright as can be: the one with the most attention often has far more than others.
    let mut sorted = look.patches.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let most = sorted[sorted.len() / 50].max(f32::MIN_POSITIVE);
    for (i, pixel) in image.pixels.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % side / patch, i / side / patch);
        // The root shows small shares too.
        let share = (look.patches[y * look.across + x] / most).clamp(0.0, 1.0).sqrt();
        let gray = 0.3 * f32::from(pixel[0]) + 0.6 * f32::from(pixel[1]) + 0.1 * f32::from(pixel[2]);
        for channel in pixel {
            let mixed = share * f32::from(*channel) + (1.0 - share) * (20.0 + 0.3 * gray);
            *channel = (mixed + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brightest_patch_keeps_its_colors() {
        let image = Rgb8 { width: 2, height: 2, pixels: [200, 100, 0].repeat(4) };
        let patches = vec![0.1, 0.4, 0.0, 0.1];
        let look = Look { text: "x".into(), views: vec![1.0], patches, across: 2 };
        let map = heat_map(&image, &look);
        assert_eq!((map.width, map.height), (SIDE, SIDE));
        let pixel = |x: usize, y: usize| &map.pixels[3 * (y * SIDE + x)..][..3];
        assert_eq!(pixel(SIDE - 1, 0), [200, 100, 0]);
        assert_eq!(pixel(0, SIDE - 1), [56, 56, 56]);
        assert!(pixel(0, 0)[0] > 56 && pixel(0, 0)[0] < 200);
    }
}
