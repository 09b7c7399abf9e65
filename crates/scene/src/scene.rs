//! A scene: an image with words, and what is known about it.

use pheye_image::Rgb8;
use serde::{Serialize, Serializer};

use crate::mask::Box4;
use crate::{Error, Result};

/// An image with words, questions about it, and a caption.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The image.
    pub image: Rgb8,
    /// Questions with their answers.
    pub qa: Vec<Qa>,
    /// A sentence that transcribes all words.
    pub caption: String,
    /// The words.
    pub words: Vec<Word>,
}

/// A question about a scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qa {
    /// In lower case, with a question mark.
    pub question: String,
    /// In lower case.
    pub answer: String,
    /// What has to be done to answer it.
    pub kind: Kind,
    /// Where the answer is in the image (x, y, width, height in pixels); `None` if it is at no place.
    pub bbox: Option<Box4>,
}

/// Kinds of questions, by what has to be done to answer them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Read the only text.
    Read,
    /// Read all texts, from top to bottom.
    ReadAll,
    /// Read the text of a color, or on the sign of a color.
    ReadByColor,
    /// Read the text at the top, bottom, left or right.
    ReadByPlace,
    /// Read the smallest text.
    Smallest,
    /// Read the largest text.
    Largest,
    /// Name the color of a text or of the sign.
    ColorOf,
    /// Count the texts.
    Count,
    /// Say whether a text is there: yes or no.
    Present,
    /// Read the only number, price or code.
    Number,
}

/// A text in a scene.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Word {
    /// As it is drawn, with its letter case.
    pub text: String,
    /// The pixels that its ink touches: x, y, width, height.
    #[serde(rename = "box")]
    pub bbox: Box4,
    /// Height of its glyph bodies in pixels: of `x` if it has lower-case letters, otherwise of `H`.
    #[serde(serialize_with = "tenths")]
    pub height: f32,
    /// Height of `H` in its font and size, in pixels.
    #[serde(serialize_with = "tenths")]
    pub capitals: f32,
    /// Rotation in degrees, clockwise.
    pub angle: i32,
    /// Name of its font.
    pub font: String,
    /// Name of its color.
    pub color: &'static str,
    /// Whether it has an outline or a shadow in another color.
    pub decorated: bool,
    /// The sign that it is on, if any.
    #[serde(rename = "sign")]
    pub board: Option<Sign>,
}

/// A sign board in a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sign {
    /// Name of its color.
    pub color: &'static str,
    /// `square`, `rounded` or `oval`.
    pub shape: &'static str,
    /// The pixels that it touches: x, y, width, height.
    #[serde(rename = "box")]
    pub bbox: Box4,
}

/// A number with one decimal, which has one shortest form.
fn tenths<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((f64::from(*value) * 10.0).round() / 10.0)
}

/// A line of a manifest, with its keys in order.
#[derive(Serialize)]
struct Line<'a> {
    image: &'a str,
    qa: Vec<[&'a str; 2]>,
    caption: &'a str,
    kinds: Vec<Kind>,
    boxes: Vec<Option<Box4>>,
    words: &'a [Word],
}

impl Scene {
    /// The scene as a line of a manifest that names the image `image`, without a line break: the questions
    /// (`qa`), the `caption`, and in parallel to the questions their `kinds` and the `boxes` of the answers.
    pub fn line(&self, image: &str) -> String {
        let line = Line {
            image,
            qa: self.qa.iter().map(|qa| [qa.question.as_str(), qa.answer.as_str()]).collect(),
            caption: &self.caption,
            kinds: self.qa.iter().map(|qa| qa.kind).collect(),
            boxes: self.qa.iter().map(|qa| qa.bbox).collect(),
            words: &self.words,
        };
        // Strings, integers and finite numbers always serialize.
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// The image as a PNG file.
    ///
    /// # Errors
    /// Returns [`Error::Encode`] if the encoder fails.
    pub fn png(&self) -> Result<Vec<u8>> {
        let fault = |source: png::EncodingError| Error::Encode { format: "PNG", source: source.into() };
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.image.width as u32, self.image.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header().map_err(fault)?;
        writer.write_image_data(&self.image.pixels).map_err(fault)?;
        writer.finish().map_err(fault)?;
        Ok(bytes)
    }

    /// The image as a JPEG file of a quality from 1 to 100.
    ///
    /// # Errors
    /// Returns [`Error::Encode`] if the encoder fails.
    pub fn jpeg(&self, quality: u8) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
        let (width, height) = (self.image.width as u32, self.image.height as u32);
        encoder
            .encode(&self.image.pixels, width, height, image::ExtendedColorType::Rgb8)
            .map_err(|source| Error::Encode { format: "JPEG", source: source.into() })?;
        Ok(bytes)
    }
}
