//! Colors with names, and how well one can be told from another.

use crate::random::Rng;

/// The colors that questions and captions name, with their typical sRGB values. They are far enough apart that
/// [`Color::shade`] leaves no doubt about a name.
const NAMED: [(&str, [u8; 3]); 11] = [
    ("black", [18, 18, 20]),
    ("white", [244, 244, 242]),
    ("gray", [132, 134, 136]),
    ("red", [206, 26, 34]),
    ("orange", [246, 132, 16]),
    ("yellow", [250, 222, 40]),
    ("green", [24, 138, 58]),
    ("blue", [28, 70, 200]),
    ("purple", [128, 40, 160]),
    ("brown", [112, 66, 30]),
    ("pink", [248, 150, 190]),
];

/// Largest change of a channel within one name.
const SHADE: i32 = 12;

/// A color and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Color {
    pub(crate) name: &'static str,
    pub(crate) rgb: [u8; 3],
}

impl Color {
    /// Black and white, for plain scenes.
    pub(crate) const BLACK: Color = Color { name: "black", rgb: [0; 3] };
    pub(crate) const WHITE: Color = Color { name: "white", rgb: [255; 3] };

    /// A random shade of each named color, in random order.
    pub(crate) fn shades(rng: &mut Rng) -> Vec<Color> {
        let mut all: Vec<_> = NAMED.iter().map(|&(name, rgb)| Color { name, rgb }.shade(rng)).collect();
        rng.shuffle(&mut all);
        all
    }

    fn shade(self, rng: &mut Rng) -> Color {
        let rgb = self.rgb.map(|c| (i32::from(c) + rng.integer(-SHADE, SHADE)).clamp(0, 255) as u8);
        Color { rgb, ..self }
    }

    pub(crate) fn luminance(self) -> f32 {
        luminance(self.rgb)
    }
}

/// Relative luminance of an sRGB color, 0 to 1 (WCAG 2.1), with the transfer function approximated by a cubic
/// polynomial that needs no logarithm: its error is below 0.005.
pub(crate) fn luminance(rgb: [u8; 3]) -> f32 {
    let linear = |c: u8| {
        let c = f32::from(c) / 255.0;
        c * (c * (c * 0.305_306 + 0.682_171) + 0.012_523)
    };
    0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2])
}

/// Contrast of two luminances, 1 to 21 (WCAG 2.1).
pub(crate) fn contrast(a: f32, b: f32) -> f32 {
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// The sum of the differences of the channels.
pub(crate) fn distance(a: [u8; 3], b: [u8; 3]) -> u32 {
    (0..3).map(|c| u32::from(a[c].abs_diff(b[c]))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_that_of_the_guideline() {
        assert!((contrast(luminance([0; 3]), luminance([255; 3])) - 21.0).abs() < 0.01);
        // #777777 on white is the well-known 4.48.
        assert!((contrast(luminance([0x77; 3]), luminance([255; 3])) - 4.48).abs() < 0.1);
    }

    #[test]
    fn no_shade_of_one_name_is_that_of_another() {
        for (i, (_, a)) in NAMED.iter().enumerate() {
            for (_, b) in &NAMED[..i] {
                let apart = (0..3).map(|c| i32::from(a[c].abs_diff(b[c]))).max().unwrap_or(0);
                assert!(apart > 3 * SHADE, "{a:?} {b:?}");
            }
        }
    }
}
