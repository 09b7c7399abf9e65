//! What is written where: texts, fonts, sizes and angles, and places where no two overlap.

use crate::font::Font;
use crate::lexicon::{Case, Lexicon, Sort, Text};
use crate::mask::{Box4, Mask, Turn, touch};
use crate::random::Rng;

/// Distance in pixels between two words or boards, and between them and the edge of the image.
const GAP: i32 = 3;
const EDGE: i32 = 2;

/// The shapes of boards, by the names that captions use.
const SHAPES: [&str; 3] = ["square", "rounded", "oval"];

/// A board with its outer and, if it has a border, inner shape.
pub(crate) struct Board {
    pub(crate) shape: &'static str,
    pub(crate) outer: Mask,
    pub(crate) inner: Option<Mask>,
}

/// A text with its place.
pub(crate) struct Piece {
    pub(crate) text: Text,
    pub(crate) font: usize,
    /// Height of the glyph bodies in pixels.
    pub(crate) height: f32,
    /// Height of capitals in the same size, in pixels.
    pub(crate) capitals: f32,
    /// Degrees, clockwise.
    pub(crate) angle: i32,
    pub(crate) mask: Mask,
    pub(crate) board: Option<Board>,
    /// Where the center of the text and of the board is.
    pub(crate) center: [i32; 2],
}

impl Piece {
    /// The box of the text.
    pub(crate) fn text_box(&self) -> Box4 {
        self.mask.place(self.center[0], self.center[1])
    }

    /// The box of the board, or else of the text.
    pub(crate) fn outer_box(&self) -> Box4 {
        let outer = self.board.as_ref().map_or(&self.mask, |board| &board.outer);
        outer.place(self.center[0], self.center[1])
    }
}

/// What the layout of scenes depends on.
pub(crate) struct Layout {
    pub(crate) fonts: Vec<Font>,
    pub(crate) lexicon: Lexicon,
    pub(crate) size: usize,
    /// Smallest and largest height of glyph bodies in pixels.
    pub(crate) heights: (f32, f32),
    pub(crate) max_words: usize,
    /// Whether all texts are level words without boards.
    pub(crate) plain: bool,
}

/// How often the texts of a scene are drawn anew before one of them is left out, and how often a place is.
const ATTEMPTS: usize = 12;
const PLACES: usize = 40;
/// How often a text is drawn until it fits into the image.
const TEXTS: usize = 60;

impl Layout {
    /// The texts of a scene, at least one, at their places.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Vec<Piece> {
        let most = self.max_words;
        let wanted = [1, 1, 1, 1, 2, 2, 2, 3, 3][rng.below(9)].min(most);
        let mut heights: Vec<f32> =
            (0..wanted).map(|_| rng.log_between(self.heights.0, self.heights.1)).collect();
        // Heights are drawn once and kept, so that their distribution does not depend on what fits.
        while !heights.is_empty() {
            for attempt in 0..ATTEMPTS {
                if let Some(pieces) = self.attempt(&heights, self.plain || attempt > ATTEMPTS / 2, rng) {
                    return pieces;
                }
            }
            if let [only] = heights[..] {
                return self.shortest(only, rng).into_iter().collect();
            }
            heights.remove(rng.below(heights.len()));
        }
        Vec::new()
    }

    /// Texts of these heights at places where none overlap, or `None` if no places were found. `calm` texts are
    /// level and without boards, and need less space.
    fn attempt(&self, heights: &[f32], calm: bool, rng: &mut Rng) -> Option<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::new();
        for height in heights {
            let piece = self.piece(*height, calm, rng)?;
            let answer = piece.text.answer();
            if pieces.iter().any(|other| other.text.answer() == answer) {
                return None;
            }
            pieces.push(piece);
        }
        // The largest first, because it has the fewest places.
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.outer_box()[2] * piece.outer_box()[3]));
        for i in 0..pieces.len() {
            let (placed, rest) = pieces.split_at_mut(i);
            self.place(&mut rest[0], placed, rng)?;
        }
        rng.shuffle(&mut pieces);
        Some(pieces)
    }

    /// Finds a place for `piece` apart from `others`.
    fn place(&self, piece: &mut Piece, others: &[Piece], rng: &mut Rng) -> Option<()> {
        let size = self.size as i32;
        for _ in 0..PLACES {
            piece.center = [0, 0];
            let [x, y, w, h] = piece.outer_box();
            if w > size - 2 * EDGE || h > size - 2 * EDGE {
                return None;
            }
            piece.center = [rng.integer(EDGE, size - EDGE - w) - x, rng.integer(EDGE, size - EDGE - h) - y];
            let own = piece.outer_box();
            if !others.iter().any(|other| touch(own, other.outer_box(), GAP)) {
                return Some(());
            }
        }
        None
    }

    /// A text in a random font, at an angle, perhaps on a board; `None` if no text of this height fits.
    fn piece(&self, height: f32, calm: bool, rng: &mut Rng) -> Option<Piece> {
        let font = rng.below(self.fonts.len());
        let angle = angle(calm, rng);
        let board = rng.chance(if calm { 0.0 } else { 0.6 }).then(|| BoardPlan::draw(height, rng));
        let sort = if self.plain { Sort::Word } else { Lexicon::sort(rng) };
        let (sort, case) = (sort, *rng.pick(&[Case::Upper, Case::Title, Case::Lower]));
        let case = if self.fonts[font].capitals || case != Case::Upper { case } else { Case::Title };
        // Codes are capitals.
        let sort = if self.fonts[font].capitals || sort != Sort::Code { sort } else { Sort::Number };
        let room = (self.size as i32 - 2 * EDGE) as f32;
        for _ in 0..TEXTS {
            let text = self.lexicon.draw(sort, case, rng);
            let (width, tall) = self.estimate(font, &text.drawn, height);
            let [width, tall] = board.as_ref().map_or([width, tall], |board| board.around(width, tall));
            if Turn::degrees(angle).extent(width, tall).iter().all(|side| *side <= room) {
                return self.build(text, font, height, angle, board);
            }
        }
        None
    }

    /// About the width and height of a text in pixels, before it is rotated.
    fn estimate(&self, font: usize, text: &str, height: f32) -> (f32, f32) {
        let font = &self.fonts[font];
        let em = height / font.body(text);
        (font.width(text) * em, font.cap_height * em * 1.2)
    }

    fn build(
        &self,
        text: Text,
        font: usize,
        height: f32,
        angle: i32,
        plan: Option<BoardPlan>,
    ) -> Option<Piece> {
        let (turn, face) = (Turn::degrees(angle), &self.fonts[font]);
        let (mask, [width, tall]) = Mask::text(face, &text.drawn, height, turn)?;
        let mask = if height < THIN { mask.darkened() } else { mask };
        let board = match plan {
            Some(plan) => Some(plan.build(width, tall, turn)?),
            None => None,
        };
        let capitals = height / face.body(&text.drawn) * face.cap_height;
        Some(Piece { text, font, height, capitals, angle, mask, board, center: [0, 0] })
    }

    /// The narrowest word of a font, level and without a board, which fits by [`Layout::fits`].
    fn shortest(&self, height: f32, rng: &mut Rng) -> Option<Piece> {
        let font = rng.below(self.fonts.len());
        let (word, _) = self.narrowest(font);
        let text = Text { drawn: word, sort: Sort::Word };
        let mut piece = self.build(text, font, height, 0, None)?;
        self.place(&mut piece, &[], rng)?;
        Some(piece)
    }

    /// The word that is narrowest in lower case in a font, and its width in units of the glyph body.
    fn narrowest(&self, font: usize) -> (String, f32) {
        let font = &self.fonts[font];
        let width = |word: &String| font.width(word) / font.body(word);
        let words = self.lexicon.words().iter().map(|word| (word.clone(), width(word)));
        words.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
    }

    /// The first font in which no word of the largest height fits into the image, with its narrowest word.
    pub(crate) fn fits(&self) -> Result<(), (usize, String)> {
        let room = self.size as f32 - 2.0 * EDGE as f32 - 4.0;
        for font in 0..self.fonts.len() {
            let (word, width) = self.narrowest(font);
            let text = Text { drawn: word.clone(), sort: Sort::Word };
            // A font whose glyphs have no ink shows no word either.
            if width * self.heights.1 > room || self.build(text, font, self.heights.0, 0, None).is_none() {
                return Err((font, word));
            }
        }
        Ok(())
    }
}

/// Letters of fewer pixels are drawn with darker edges.
const THIN: f32 = 16.0;
/// Letters of fewer pixels need more contrast, and have no decoration.
pub(crate) const SMALL: f32 = 11.0;

/// Most angles are within ten degrees, some up to thirty.
fn angle(calm: bool, rng: &mut Rng) -> i32 {
    match rng.unit() {
        p if calm || p < 0.15 => 0,
        p if p < 0.85 => rng.integer(-10, 10),
        _ => rng.integer(-30, 30),
    }
}

/// A board before the size of its text is known.
struct BoardPlan {
    shape: &'static str,
    /// Space between text and edge in pixels.
    padding: f32,
    /// Width of the border in pixels; 0 if there is none.
    border: f32,
}

impl BoardPlan {
    fn draw(height: f32, rng: &mut Rng) -> BoardPlan {
        let padding = 2.0 + height * rng.between(0.25, 0.7);
        let border = if rng.chance(0.4) { 1.0 + height * rng.between(0.02, 0.12) } else { 0.0 };
        BoardPlan { shape: rng.choose(SHAPES), padding, border }
    }

    /// Width and height of the board around a text.
    fn around(&self, width: f32, height: f32) -> [f32; 2] {
        let more = if self.shape == "oval" { 1.3 } else { 1.0 };
        [width, height].map(|side| side * more + 2.0 * (self.padding + self.border))
    }

    fn build(&self, width: f32, height: f32, turn: Turn) -> Option<Board> {
        let [width, height] = self.around(width, height);
        let mask = |less: f32| {
            let (width, height) = (width - 2.0 * less, height - 2.0 * less);
            let corner = match self.shape {
                "oval" => [width, height],
                "rounded" => [0.3 * width.min(height); 2],
                _ => [0.0; 2],
            };
            Mask::board(width, height, corner, turn)
        };
        let inner = if self.border > 0.0 { Some(mask(self.border)?) } else { None };
        Some(Board { shape: self.shape, outer: mask(0.0)?, inner })
    }
}
