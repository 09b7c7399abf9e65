//! One image to the ViT's input: a global view, and at higher resolution L×L local tiles.

use std::path::Path;

use rayon::prelude::*;

use crate::{Augment, DecodeOptions, Error, PassOrder, Rgb8, open, resize_bicubic_in};

/// CLIP's per-channel mean, of values in 0..1.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's per-channel standard deviation, of values in 0..1.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// How images become pixels for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// The ViT's image size s, the side of every tile.
    pub size: usize,
    /// Resolution level L: 1 has the global view only, L > 1 adds L² tiles of the image at L·s.
    pub level: usize,
    /// Per-channel mean, of values in 0..1.
    pub mean: [f32; 3],
    /// Per-channel standard deviation, of values in 0..1.
    pub std: [f32; 3],
    /// Which Pillow's resize to follow.
    pub order: PassOrder,
}

/// The normalised pixels of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiles {
    /// Side of every tile, s.
    pub size: usize,
    /// Number of local tiles: L², or 0 at level 1.
    pub count: usize,
    /// The whole image, `[3, s, s]`.
    pub global: Vec<f32>,
    /// `[count, 3, s, s]`, column by column, top to bottom within a column.
    pub local: Vec<f32>,
}

impl Preprocess {
    /// With CLIP's mean and deviation, and rows resized first: the released models' pixels.
    pub const fn new(size: usize, level: usize) -> Self {
        Self { size, level, mean: CLIP_MEAN, std: CLIP_STD, order: PassOrder::RowsFirst }
    }

    /// The 8-bit views before normalisation, each s×s: the global one, then the local tiles.
    ///
    /// Aspect ratio is not kept, and both resolutions are resized from the original.
    pub fn views(&self, picture: &Rgb8) -> Vec<Rgb8> {
        let (s, l) = (self.size, self.level);
        let resize = |side| resize_bicubic_in(picture, side, side, self.order);
        let mut views = vec![resize(s)];
        if l > 1 {
            let big = resize(l * s);
            views.extend((0..l * l).map(|i| big.crop(i / l * s, i % l * s, s, s)));
        }
        views
    }

    /// The image as the model reads it: (value/255 - mean)/std in f32, equal to PyTorch's to the bit.
    pub fn pixels(&self, picture: &Rgb8) -> Tiles {
        let views = self.views(picture);
        let area = 3 * self.size * self.size;
        let mut all = vec![0.0; views.len() * area];
        for (view, out) in views.iter().zip(all.chunks_exact_mut(area.max(1))) {
            self.normalise(view, out);
        }
        let local = all.split_off(area);
        Tiles { size: self.size, count: views.len() - 1, global: all, local }
    }

    /// [`Preprocess::pixels`] of several files, side by side on rayon's threads. A decoded image lives only until its
    /// tiles are made, so each thread holds one.
    ///
    /// # Errors
    /// That of the first file that cannot be read.
    pub fn open_all<P: AsRef<Path> + Sync>(
        &self,
        files: &[P],
        options: &DecodeOptions,
    ) -> Result<Vec<Tiles>, Error> {
        let tiles: Vec<_> = files.par_iter().map(|file| Ok(self.pixels(&open(file, options)?))).collect();
        tiles.into_iter().collect()
    }

    /// [`Preprocess::pixels`] of the augmented image, for training.
    pub fn augmented(&self, picture: &Rgb8, augment: &Augment) -> Tiles {
        self.pixels(&augment.apply(picture))
    }

    /// `[h, w, 3]` bytes to `[3, h, w]` floats.
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
