//! What a generator is built from, with the range of each value.

use std::path::PathBuf;

use crate::{Error, Result};

/// Options of a [`Generator`](crate::Generator). Equal options give equal scenes.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The seed: scene `i` is a function of it, of `i` and of the other options.
    pub seed: u64,
    /// Side of the square images in pixels, from 32 to 1024.
    pub size: usize,
    /// Smallest height of a glyph body in pixels: the height of `x` for words with lower-case letters, of `H`
    /// for others. At least 4.
    pub min_height: f32,
    /// Largest height of a glyph body in pixels, at most half of `size`. `None` is 28 pixels for images
    /// of 144 pixels, in proportion for others, and at least `min_height`.
    pub max_height: Option<f32>,
    /// Largest number of words in an image, 1 to 3.
    pub max_words: usize,
    /// Level words of the lexicon in black over white, with no more questions than what is written. These are the first lessons of a model that learns to read.
    pub plain: bool,
    /// A folder with `.ttf` and `.otf` files that replace the built-in fonts.
    pub fonts: Option<PathBuf>,
    /// A folder with PNG, JPEG and WebP files that replace the built-in photographs and textures.
    pub backgrounds: Option<PathBuf>,
    /// A text file of words, separated by white space, that replaces the built-in lexicon; lines that begin
    /// with `#` are comments.
    pub words: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 0,
            size: 144,
            min_height: 7.0,
            max_height: None,
            max_words: 3,
            plain: false,
            fonts: None,
            backgrounds: None,
            words: None,
        }
    }
}

/// The range of `size`.
const SIZES: std::ops::RangeInclusive<usize> = 32..=1024;
/// Lower bound of `min_height`: letters of fewer pixels cannot be read.
const READABLE: f32 = 4.0;
/// The largest glyph body as a part of the image's side, and its default.
const LARGEST: (f32, f32) = (0.5, 28.0 / 144.0);

impl Options {
    /// The heights of glyph bodies, smallest and largest, in pixels.
    ///
    /// # Errors
    /// Returns [`Error::Option`] for the first option that is out of range.
    pub(crate) fn heights(&self) -> Result<(f32, f32)> {
        let fault = |option, message| Err(Error::Option { option, message });
        let (size, min) = (self.size as f32, self.min_height);
        if !SIZES.contains(&self.size) {
            let (from, to) = (SIZES.start(), SIZES.end());
            return fault("size", format!("{} pixels; it must be from {from} to {to}", self.size));
        }
        if !(1..=3).contains(&self.max_words) {
            return fault("max-words", format!("{}; it must be 1, 2 or 3", self.max_words));
        }
        if min.is_nan() || min < READABLE {
            return fault("min-height", format!("{min} pixels; letters need at least {READABLE} to be read"));
        }
        let limit = size * LARGEST.0;
        if min > limit {
            let needed = (min / LARGEST.0).ceil();
            let why = format!(
                "{size} pixels are too small for text of --min-height {min}; at least {needed} are needed"
            );
            return fault("size", why);
        }
        let max = self.max_height.unwrap_or((size * LARGEST.1).max(min));
        if max.is_nan() || max < min {
            return fault("max-height", format!("{max} pixels are less than --min-height {min}"));
        }
        if max > limit {
            let why = format!(
                "{max} pixels are too many for an image of --size {size}, where letters have at most {limit}"
            );
            return fault("max-height", why);
        }
        Ok((min, max))
    }
}
