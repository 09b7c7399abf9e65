//! Fonts: the outlines of the letters that scenes need, read once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ab_glyph::{Font as _, FontVec, GlyphId, Outline, OutlineCurve};
use pheye_files::{Kind, caught, quoted};

use crate::{Error, Result};

/// The built-in fonts, whether all-capital words are readable in them, and their files.
const BUILT_IN: [(&str, bool, &[u8]); 13] = [
    ("BebasNeue-Bold", true, include_bytes!("../fonts/BebasNeue-Bold.otf")),
    ("Cabin-Bold", true, include_bytes!("../fonts/Cabin-Bold.otf")),
    ("CabinSketch-Bold", true, include_bytes!("../fonts/CabinSketch-Bold.ttf")),
    ("Cantarell-Bold", true, include_bytes!("../fonts/Cantarell-Bold.otf")),
    ("CourierPrime-Bold", true, include_bytes!("../fonts/CourierPrime-Bold.otf")),
    ("DancingScript-Bold", false, include_bytes!("../fonts/DancingScript-Bold.otf")),
    ("Dosis-Bold", true, include_bytes!("../fonts/Dosis-Bold.otf")),
    ("Junction", true, include_bytes!("../fonts/Junction.otf")),
    ("LeagueSpartan-SemiBold", true, include_bytes!("../fonts/LeagueSpartan-SemiBold.otf")),
    ("Lobster", false, include_bytes!("../fonts/Lobster.otf")),
    ("Prociono", true, include_bytes!("../fonts/Prociono.otf")),
    ("Quicksand-Bold", true, include_bytes!("../fonts/Quicksand-Bold.ttf")),
    ("RobotoSlab-Regular", true, include_bytes!("../fonts/RobotoSlab-Regular.otf")),
];

/// The largest font file in bytes, and the largest number of fonts.
const LIMITS: (u64, usize) = (32 << 20, 256);

/// Upper bound of a glyph's extents in em, so that no font needs much memory.
const LARGEST: f32 = 4.0;

/// A glyph in units of the em, with y upwards.
struct Glyph {
    id: GlyphId,
    advance: f32,
    curves: Vec<OutlineCurve>,
}

/// A font with the outlines of a set of characters.
pub(crate) struct Font {
    pub(crate) name: String,
    /// Whether words in capitals are readable. A script whose capitals are ornaments has none.
    pub(crate) capitals: bool,
    /// Heights of `x` and `H` above the baseline, in em.
    pub(crate) x_height: f32,
    pub(crate) cap_height: f32,
    file: FontVec,
    em: f32,
    glyphs: HashMap<char, Glyph>,
}

impl Font {
    /// The fonts of a folder in the order of their names, or the built-in ones, each with all of `characters`.
    pub(crate) fn open_all(folder: Option<&Path>, characters: &[char]) -> Result<Vec<Font>> {
        let Some(folder) = folder else {
            let built_in = BUILT_IN.iter();
            return built_in
                .map(|(name, caps, file)| Font::new(name, *caps, file.to_vec(), characters))
                .collect();
        };
        let files = listed(folder, &["ttf", "otf"])?;
        if files.is_empty() || files.len() > LIMITS.1 {
            let message = format!("{} fonts (.ttf or .otf); 1 to {} are needed", files.len(), LIMITS.1);
            return Err(Error::Folder { path: folder.to_owned(), message });
        }
        let open = |path: &PathBuf| {
            let bytes = pheye_files::read(path, Kind::Regular, LIMITS.0);
            let bytes = bytes.map_err(|source| Error::Io { path: path.clone(), source })?;
            Font::new(&path.display().to_string(), true, bytes, characters)
        };
        files.iter().map(open).collect()
    }

    fn new(name: &str, capitals: bool, file: Vec<u8>, characters: &[char]) -> Result<Font> {
        let fault = |message| Error::Font { font: name.to_owned(), message };
        let read = caught(|| read(file, characters)).and_then(|read| read).map_err(fault)?;
        let (file, em, glyphs) = read;
        let height = |c| glyphs.get(&c).map_or(0.0, |glyph: &Glyph| top(glyph));
        let (x_height, cap_height) = (height('x'), height('H'));
        // Fonts of symbols have other proportions; the texts would be far larger or smaller than asked for.
        if !(0.2..2.0).contains(&x_height) || !(0.2..2.0).contains(&cap_height) {
            return Err(fault(format!(
                "`x` is {x_height} em high and `H` {cap_height}: not a font of letters"
            )));
        }
        let name =
            Path::new(name).file_stem().map_or(name.into(), |stem| stem.to_string_lossy()).into_owned();
        Ok(Font { name, capitals, x_height, cap_height, file, em, glyphs })
    }

    /// Height of the glyph bodies of `text` in em: of `x` if there are lower-case letters, otherwise of `H`.
    pub(crate) fn body(&self, text: &str) -> f32 {
        if text.chars().any(char::is_lowercase) { self.x_height } else { self.cap_height }
    }

    /// Width of `text` in em, without kerning.
    pub(crate) fn width(&self, text: &str) -> f32 {
        text.chars().filter_map(|c| self.glyphs.get(&c)).map(|glyph| glyph.advance).sum()
    }

    /// The outlines of `text` on one line with kerning, each with the x of its origin, in em.
    pub(crate) fn line<'a>(&'a self, text: &str) -> Vec<(f32, &'a [OutlineCurve])> {
        let (mut x, mut before, mut line) = (0.0, None, Vec::new());
        for glyph in text.chars().filter_map(|c| self.glyphs.get(&c)) {
            x += before.map_or(0.0, |before| self.file.kern_unscaled(before, glyph.id) / self.em);
            line.push((x, &glyph.curves[..]));
            (x, before) = (x + glyph.advance, Some(glyph.id));
        }
        line
    }
}

/// The parsed font, its units per em, and the glyphs of `characters`.
#[allow(clippy::type_complexity)] // used once, and its parts have names at the call
fn read(file: Vec<u8>, characters: &[char]) -> Result<(FontVec, f32, HashMap<char, Glyph>), String> {
    let font = FontVec::try_from_vec(file).map_err(|_| "not a TrueType or OpenType font".to_owned())?;
    let em = font.units_per_em().filter(|em| *em >= 1.0).ok_or("it has no units per em")?;
    let lacking = |c: &&char| font.glyph_id(**c).0 == 0;
    let missing: Vec<String> =
        characters.iter().filter(lacking).take(8).map(|c| quoted(&c.to_string())).collect();
    if !missing.is_empty() {
        return Err(format!("it has no glyph for {}", missing.join(" ")));
    }
    let mut glyphs = HashMap::new();
    for &c in characters {
        let id = font.glyph_id(c);
        let outline =
            font.outline(id).ok_or_else(|| format!("its glyph for {} is empty", quoted(&c.to_string())))?;
        let advance = font.h_advance_unscaled(id) / em;
        let curves = scaled(outline, em);
        if !(0.0..LARGEST).contains(&advance)
            || curves.iter().flat_map(points).any(|p| (p.x.abs() + p.y.abs()).max(0.0) >= LARGEST)
        {
            return Err(format!("its glyph for {} is larger than {LARGEST} em", quoted(&c.to_string())));
        }
        glyphs.insert(c, Glyph { id, advance, curves });
    }
    Ok((font, em, glyphs))
}

fn scaled(outline: Outline, em: f32) -> Vec<OutlineCurve> {
    let s = |p: ab_glyph::Point| ab_glyph::point(p.x / em, p.y / em);
    let curve = |curve| match curve {
        OutlineCurve::Line(a, b) => OutlineCurve::Line(s(a), s(b)),
        OutlineCurve::Quad(a, b, c) => OutlineCurve::Quad(s(a), s(b), s(c)),
        OutlineCurve::Cubic(a, b, c, d) => OutlineCurve::Cubic(s(a), s(b), s(c), s(d)),
    };
    outline.curves.into_iter().map(curve).collect()
}

/// The control points of a curve; the first is repeated where there are fewer than four.
pub(crate) fn points(curve: &OutlineCurve) -> [ab_glyph::Point; 4] {
    match *curve {
        OutlineCurve::Line(a, b) => [a, a, a, b],
        OutlineCurve::Quad(a, b, c) => [a, a, b, c],
        OutlineCurve::Cubic(a, b, c, d) => [a, b, c, d],
    }
}

/// The highest end point of the outline; control points may be higher than the curve.
fn top(glyph: &Glyph) -> f32 {
    let ends = glyph.curves.iter().flat_map(|curve| [points(curve)[0].y, points(curve)[3].y]);
    ends.fold(0.0, f32::max)
}

/// The files of `folder` whose names end in one of `endings`, in the order of their names.
pub(crate) fn listed(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let fault = |source| Error::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if endings.contains(&ending.as_str()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
