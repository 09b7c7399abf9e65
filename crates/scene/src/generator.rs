//! From options to scenes.

use crate::background::Backgrounds;
use crate::caption::caption;
use crate::effects;
use crate::font::Font;
use crate::layout::{Layout, Piece};
use crate::lexicon::{Lexicon, Text};
use crate::paint::{Look, paint, paint_plain};
use crate::questions::{Asking, ask};
use crate::random::Rng;
use crate::scene::{Scene, Sign, Word};
use crate::{Error, Options, Result};

/// Makes scenes; see [`Options`] for what can be chosen.
pub struct Generator {
    seed: u64,
    layout: Layout,
    backgrounds: Backgrounds,
}

impl Generator {
    /// Reads fonts, backgrounds and words.
    ///
    /// # Errors
    /// Returns [`Error::Option`] for an option out of range or a size in which no word fits, and the other
    /// errors for files that cannot be used; each names the option or the file.
    pub fn new(options: &Options) -> Result<Generator> {
        let heights = options.heights()?;
        let lexicon = Lexicon::open(options.words.as_deref())?;
        let fonts = Font::open_all(options.fonts.as_deref(), &lexicon.characters())?;
        let layout = Layout {
            fonts,
            lexicon,
            size: options.size,
            heights,
            max_words: options.max_words,
            plain: options.plain,
        };
        if let Err((font, word)) = layout.fits() {
            let (size, name) = (options.size, &layout.fonts[font].name);
            let message = format!(
                "{} pixels: in the font {} no word fits into {size} pixels, not even `{word}`",
                heights.1,
                pheye_files::quoted(name)
            );
            return Err(Error::Option { option: "max-height", message });
        }
        let backgrounds = Backgrounds::open(options.backgrounds.as_deref())?;
        Ok(Generator { seed: options.seed, layout, backgrounds })
    }

    /// Scene `i`, a function of the options and `i` alone.
    pub fn scene(&self, i: u64) -> Scene {
        let mut rng = Rng::new(self.seed, i);
        let pieces = self.layout.draw(&mut rng);
        let (image, looks) = if self.layout.plain {
            paint_plain(self.layout.size, &pieces)
        } else {
            let mut image = self.backgrounds.draw(self.layout.size, &mut rng);
            let looks = paint(&mut image, &pieces, &mut rng);
            let smallest = pieces.iter().map(|piece| piece.height).fold(f32::MAX, f32::min);
            effects::apply_all(&mut image, smallest, &mut rng);
            (image, looks)
        };
        let words: Vec<Word> =
            pieces.iter().zip(&looks).map(|(piece, look)| self.word(piece, look)).collect();
        let texts: Vec<Text> = pieces.into_iter().map(|piece| piece.text).collect();
        let size = self.layout.size;
        let asking = Asking {
            words: &words,
            texts: &texts,
            size,
            lexicon: &self.layout.lexicon,
            plain: self.layout.plain,
        };
        let qa = ask(&asking, &mut rng);
        let caption = caption(&words, &texts, size, &mut rng);
        Scene { image, qa, caption, words }
    }

    fn word(&self, piece: &Piece, look: &Look) -> Word {
        let sign = piece.board.as_ref().zip(look.board);
        Word {
            text: piece.text.drawn.clone(),
            bbox: piece.text_box(),
            height: piece.height,
            capitals: piece.capitals,
            angle: piece.angle,
            font: self.layout.fonts[piece.font].name.clone(),
            color: look.color.name,
            decorated: look.decorated,
            board: sign.map(|(board, color)| Sign {
                color: color.name,
                shape: board.shape,
                bbox: piece.outer_box(),
            }),
        }
    }
}
