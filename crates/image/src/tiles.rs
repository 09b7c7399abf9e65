//! Converts an image to the input of the vision transformer: a global image and, at higher resolution, L×L
//! local tiles.

use std::path::Path;

use rayon::prelude::*;

use crate::{Augment, DecodeOptions, Error, PassOrder, Rgb8, open, resize_bicubic_in};

/// CLIP's per-channel mean, for values in 0..1.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's per-channel standard deviation, for values in 0..1.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// How images are preprocessed for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Image size s of the vision transformer, the side of every tile in pixels.
    pub size: usize,
    /// Resolution level L: 1 means the global image only; L > 1 adds L² tiles of the image resized to L·s.
    pub level: usize,
    /// Per-channel mean, for values in 0..1.
    pub mean: [f32; 3],
    /// Per-channel standard deviation, for values in 0..1.
    pub std: [f32; 3],
    /// The order of the resize passes.
    pub order: PassOrder,
}

/// The normalized pixels of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiles {
    /// Side s of every tile in pixels.
    pub size: usize,
    /// Number of local tiles: L², or 0 at level 1.
    pub count: usize,
    /// The global image, `[3, s, s]`.
    pub global: Vec<f32>,
    /// The tiles, `[count, 3, s, s]`, column by column, top to bottom within a column.
    pub local: Vec<f32>,
}

impl Preprocess {
    /// CLIP's mean and deviation, and rows resized first, as for the released models.
    pub const fn new(size: usize, level: usize) -> Self {
        Self { size, level, mean: CLIP_MEAN, std: CLIP_STD, order: PassOrder::RowsFirst }
    }

    /// The 8-bit views before normalization, each s×s: the global image, then the local tiles.
    ///
    /// The aspect ratio is not preserved, and both resolutions are resized from the original image.
    pub fn views(&self, image: &Rgb8) -> Vec<Rgb8> {
        let (s, l) = (self.size, self.level);
        let resize = |side| resize_bicubic_in(image, side, side, self.order);
        let mut views = vec![resize(s)];
        if l > 1 {
            let big = resize(l * s);
            views.extend((0..l * l).map(|i| big.crop(i / l * s, i % l * s, s, s)));
        }
        views
    }

    /// The input of the model: (value / 255 − mean) / std in f32, bit-identical to PyTorch's.
    pub fn pixels(&self, image: &Rgb8) -> Tiles {
        let views = self.views(image);
        let area = 3 * self.size * self.size;
        let mut all = vec![0.0; views.len() * area];
        for (view, out) in views.iter().zip(all.chunks_exact_mut(area.max(1))) {
            self.normalise(view, out);
        }
        let local = all.split_off(area);
        Tiles { size: self.size, count: views.len() - 1, global: all, local }
    }

    /// [`Preprocess::pixels`] of several files, in parallel on rayon's threads. Each thread has only one
    /// decoded image in memory at a time.
    ///
    /// # Errors
    /// Returns the error of the first file that cannot be decoded.
    pub fn open_all<P: AsRef<Path> + Sync>(
        &self,
        files: &[P],
        options: &DecodeOptions,
    ) -> Result<Vec<Tiles>, Error> {
        let tiles: Vec<_> = files.par_iter().map(|file| Ok(self.pixels(&open(file, options)?))).collect();
        tiles.into_iter().collect()
    }

    /// [`Preprocess::pixels`] of the augmented image, for training.
    pub fn augmented(&self, image: &Rgb8, augment: &Augment) -> Tiles {
        self.pixels(&augment.apply(image))
    }

    /// Normalizes `[h, w, 3]` bytes to `[3, h, w]` floats.
    fn normalise(&self, view: &Rgb8, out: &mut [f32]) {
        let area = view.width * view.height;
        for (c, plane) in out.chunks_exact_mut(area.max(1)).enumerate() {
            let table: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - self.mean[c]) / self.std[c]);
            for (out, pixel) in plane.iter_mut().zip(view.pixels.as_chunks::<3>().0) {
                *out = table[usize::from(pixel[c])];
            }
        }
    }
}
