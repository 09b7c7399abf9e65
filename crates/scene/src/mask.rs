//! Coverage of shapes by pixels: words and sign boards, rotated about their centers.

use ab_glyph::OutlineCurve;
use ab_glyph_rasterizer::{Point, Rasterizer, point};

use crate::font::{Font, points};

/// A rectangle of pixels: x, y, width and height.
pub(crate) type Box4 = [i32; 4];

/// The share of each pixel that a shape covers, cropped to the pixels that it touches.
#[derive(Debug, Clone)]
pub(crate) struct Mask {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 0 to 255, in row-major order.
    pub(crate) coverage: Vec<u8>,
    /// Where the center of the rotation is, relative to the top left corner of the mask.
    pub(crate) center: [f32; 2],
}

/// A direction: cosine and sine of an angle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn(f32, f32);

impl Turn {
    /// A rotation by `degrees`, clockwise on the screen, where y points downwards.
    pub(crate) fn degrees(degrees: i32) -> Turn {
        let angle = degrees as f32 * (std::f32::consts::PI / 180.0);
        Turn(libm::cosf(angle), libm::sinf(angle))
    }

    fn apply(self, x: f32, y: f32) -> [f32; 2] {
        [x * self.0 - y * self.1, x * self.1 + y * self.0]
    }

    /// Width and height of a rotated rectangle.
    pub(crate) fn extent(self, width: f32, height: f32) -> [f32; 2] {
        let (c, s) = (self.0.abs(), self.1.abs());
        [width * c + height * s, width * s + height * c]
    }
}

/// Curves around a center, before they are rotated, with y downwards, in pixels.
struct Path(Vec<OutlineCurve>);

impl Path {
    fn push(&mut self, curve: &OutlineCurve, place: impl Fn(Point) -> Point) {
        self.0.push(match *curve {
            OutlineCurve::Line(a, b) => OutlineCurve::Line(place(a), place(b)),
            OutlineCurve::Quad(a, b, c) => OutlineCurve::Quad(place(a), place(b), place(c)),
            OutlineCurve::Cubic(a, b, c, d) => OutlineCurve::Cubic(place(a), place(b), place(c), place(d)),
        });
    }

    /// Smallest and largest x and y of the control points.
    fn bounds(&self) -> [f32; 4] {
        let all = self.0.iter().flat_map(points);
        let start = [f32::MAX, f32::MAX, f32::MIN, f32::MIN];
        all.fold(start, |b, p| [b[0].min(p.x), b[1].min(p.y), b[2].max(p.x), b[3].max(p.y)])
    }

    /// The mask of the path, rotated by `turn` about the origin; `None` if it covers no pixel.
    fn fill(&self, turn: Turn) -> Option<Mask> {
        let mut turned = Path(Vec::with_capacity(self.0.len()));
        for curve in &self.0 {
            turned.push(curve, |p| {
                let [x, y] = turn.apply(p.x, p.y);
                point(x, y)
            });
        }
        let [left, top, right, bottom] = turned.bounds();
        let origin = [left.floor() - 1.0, top.floor() - 1.0];
        let (width, height) =
            ((right - origin[0]).ceil() as usize + 1, (bottom - origin[1]).ceil() as usize + 1);
        let mut raster = Rasterizer::new(width, height);
        let place = |p: Point| point(p.x - origin[0], p.y - origin[1]);
        for curve in &turned.0 {
            match *curve {
                OutlineCurve::Line(a, b) => raster.draw_line(place(a), place(b)),
                OutlineCurve::Quad(a, b, c) => raster.draw_quad(place(a), place(b), place(c)),
                OutlineCurve::Cubic(a, b, c, d) => raster.draw_cubic(place(a), place(b), place(c), place(d)),
            }
        }
        let mut coverage = vec![0; width * height];
        raster.for_each_pixel(|i, c| coverage[i] = (c.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
        Mask { width, height, coverage, center: [-origin[0], -origin[1]] }.cropped()
    }
}

impl Mask {
    /// `text` with glyph bodies of `height` pixels, rotated about the center of its ink. Also returns the width
    /// and height of the ink before the rotation.
    pub(crate) fn text(font: &Font, text: &str, height: f32, turn: Turn) -> Option<(Mask, [f32; 2])> {
        let em = height / font.body(text);
        let mut path = Path(Vec::new());
        for (x, curves) in font.line(text) {
            curves.iter().for_each(|curve| path.push(curve, |p| point((p.x + x) * em, -p.y * em)));
        }
        let [left, top, right, bottom] = path.bounds();
        let middle = point((left + right) / 2.0, (top + bottom) / 2.0);
        let mut centered = Path(Vec::with_capacity(path.0.len()));
        path.0.iter().for_each(|curve| centered.push(curve, |p| p - middle));
        Some((centered.fill(turn)?, [right - left, bottom - top]))
    }

    /// A board of `width` by `height` pixels with elliptic corners of the radii `corner`.
    pub(crate) fn board(width: f32, height: f32, corner: [f32; 2], turn: Turn) -> Option<Mask> {
        // How far the control points of a quarter of a circle are from its ends, in radii.
        const ROUND: f32 = 0.552_285;
        let (w, h) = (width / 2.0, height / 2.0);
        let (rx, ry) = (corner[0].min(w), corner[1].min(h));
        let (kx, ky) = (rx * (1.0 - ROUND), ry * (1.0 - ROUND));
        let mut path = Path(Vec::with_capacity(8));
        // From the end of one straight side to the next, clockwise from the top right corner.
        let corners = [
            [(w - rx, -h), (w - kx, -h), (w, -h + ky), (w, -h + ry)],
            [(w, h - ry), (w, h - ky), (w - kx, h), (w - rx, h)],
            [(rx - w, h), (kx - w, h), (-w, h - ky), (-w, h - ry)],
            [(-w, ry - h), (-w, ky - h), (kx - w, -h), (rx - w, -h)],
        ];
        let at = |(x, y)| point(x, y);
        for (i, [a, b, c, d]) in corners.iter().enumerate() {
            path.0.push(OutlineCurve::Cubic(at(*a), at(*b), at(*c), at(*d)));
            path.0.push(OutlineCurve::Line(at(*d), at(corners[(i + 1) % 4][0])));
        }
        path.fill(turn)
    }

    /// The box of the mask if its center is at the pixel `x`, `y`.
    pub(crate) fn place(&self, x: i32, y: i32) -> Box4 {
        let at = |center: f32| (center + 0.5).floor() as i32;
        [x - at(self.center[0]), y - at(self.center[1]), self.width as i32, self.height as i32]
    }

    /// The mask with soft edges of letters made darker: thin strokes of small letters cover no pixel
    /// completely, and would be pale.
    pub(crate) fn darkened(mut self) -> Mask {
        for c in &mut self.coverage {
            let open = 255 - u32::from(*c);
            *c = (255 - open * open / 255) as u8;
        }
        self
    }

    /// The mask grown by one pixel in each direction.
    pub(crate) fn grown(&self) -> Mask {
        let (width, height) = (self.width + 2, self.height + 2);
        let mut coverage = vec![0; width * height];
        for y in 0..self.height {
            for x in 0..self.width {
                let c = self.coverage[y * self.width + x];
                for near in [(1, 0), (0, 1), (1, 1), (2, 1), (1, 2)].map(|(dx, dy)| (y + dy) * width + x + dx)
                {
                    coverage[near] = c.max(coverage[near]);
                }
            }
        }
        Mask { width, height, coverage, center: self.center.map(|c| c + 1.0) }
    }

    fn cropped(self) -> Option<Mask> {
        let row = |y: usize| &self.coverage[y * self.width..][..self.width];
        let inked = |y: &usize| row(*y).iter().any(|c| *c > 0);
        let (top, bottom) = ((0..self.height).find(inked)?, (0..self.height).rev().find(inked)?);
        let inked = |x: &usize| (top..=bottom).any(|y| row(y)[*x] > 0);
        let (left, right) = ((0..self.width).find(inked)?, (0..self.width).rev().find(inked)?);
        let coverage = (top..=bottom).flat_map(|y| row(y)[left..=right].to_vec()).collect();
        let center = [self.center[0] - left as f32, self.center[1] - top as f32];
        Some(Mask { width: right - left + 1, height: bottom - top + 1, coverage, center })
    }
}

/// Whether two boxes are less than `gap` pixels apart.
pub(crate) fn touch(a: Box4, b: Box4, gap: i32) -> bool {
    (0..2).all(|i| a[i] < b[i] + b[i + 2] + gap && b[i] < a[i] + a[i + 2] + gap)
}
