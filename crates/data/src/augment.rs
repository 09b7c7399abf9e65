//! Random augmentations of images during training.

use std::num::IntErrorKind;

use pheye_image::Augment;

use crate::random::{Purpose, below, draw};
use crate::{Error, Result};

/// The augmentations that are applied at random to an image each time it is seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Augmentation {
    hflip: bool,
    vflip: bool,
    rot90: bool,
    shift: u16,
}

impl Augmentation {
    /// Parses the names of augmentations: `hflip` and `vflip` (flips with probability ½), `rot90` (rotation
    /// by 0, 90, 180 or 270 degrees), `shift:N` (shift by up to N pixels in each direction, before resizing).
    ///
    /// # Errors
    /// Returns [`Error::Augmentation`] for an unknown name, and [`Error::Shift`] if N exceeds 65535.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Augmentation> {
        let mut out = Augmentation::default();
        for name in names.iter().map(S::as_ref) {
            match (name, name.strip_prefix("shift:").map(str::parse::<u16>)) {
                ("hflip", _) => out.hflip = true,
                ("vflip", _) => out.vflip = true,
                ("rot90", _) => out.rot90 = true,
                (_, Some(Ok(n))) => out.shift = n,
                (_, Some(Err(e))) if *e.kind() == IntErrorKind::PosOverflow => {
                    return Err(Error::Shift(name.into()));
                }
                _ => return Err(Error::Augmentation(name.into())),
            }
        }
        Ok(out)
    }

    /// The random augmentation of item `id` in pass `pass`.
    pub(crate) fn draw(&self, seed: u64, id: u32, pass: u64) -> Augment {
        let [bits, dx, dy, _] = draw(seed, Purpose::Augment, id, pass);
        let n = u32::from(self.shift);
        let by = |word| below(word, 2 * n + 1) as isize - n as isize;
        Augment {
            flip_horizontal: self.hflip && bits & 1 == 1,
            flip_vertical: self.vflip && bits >> 1 & 1 == 1,
            turns: if self.rot90 { (bits >> 2 & 3) as u8 } else { 0 },
            dx: by(dx),
            dy: by(dy),
        }
    }
}
