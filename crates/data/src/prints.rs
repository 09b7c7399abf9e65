//! Fingerprints of images, to detect whether a resumed run still has the same images.
//!
//! Reading every image completely would take as long as an epoch. The fingerprint of an image in a zip archive
//! is of its size and the CRC-32 in the archive's directory; in a JSON object of base64, of the CRC-32 of its
//! text; in Parquet, of the file's footer and the row; in a folder or a tar archive, of its size and its first
//! and last 4 KiB, and in a mixture of more than 50,000 items, of its size alone. A replacement of the same
//! size in a folder is therefore detected in small sets if it differs near one end, as compressed images do,
//! and not in large sets.

use std::io::ErrorKind;

use rayon::prelude::*;

use crate::{Mixture, Result, Store};

/// Maximum number of items for which the contents of files without a checksum are read.
const LOOK_INTO: usize = 50_000;

impl Mixture {
    /// The fingerprint of each item's image, in the order of the item numbers; 0 if the image does not exist
    /// or the item has none.
    ///
    /// # Errors
    /// Returns [`crate::Error::Io`] if an existing image cannot be read for a reason other than its
    /// permissions, such as too many open files.
    pub fn prints(&self) -> Result<Vec<u32>> {
        let deep = self.len() <= LOOK_INTO;
        let print = |number| {
            let (source, i) = self.numbered(number);
            print(source.store(), source.item(i)?.image.as_deref(), deep)
        };
        (0..self.len()).into_par_iter().map(print).collect()
    }

    /// For each item, in the order of the item numbers, whether it is among the first `samples` samples.
    pub fn drawn(&self, samples: u64) -> Vec<bool> {
        let mut drawn = vec![false; self.len()];
        let mut left = drawn.len();
        for position in 0..samples {
            let seen = &mut drawn[self.draw(position).id as usize];
            left -= usize::from(!*seen);
            *seen = true;
            if left == 0 {
                break;
            }
        }
        drawn
    }

    /// The line or row and the image of item `number`, for messages.
    pub fn place(&self, number: usize) -> String {
        let (source, i) = self.numbered(number);
        source.place(i)
    }
}

fn print(store: &Store, image: Option<&str>, deep: bool) -> Result<u32> {
    let Some((name, facts)) = image.and_then(|name| Some((name, store.facts(name)?))) else { return Ok(0) };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&facts.len.to_le_bytes());
    match facts.check {
        Some(known) => crc.update(&known.to_le_bytes()),
        None if deep => match store.ends(name) {
            Ok(bytes) => crc.update(&bytes),
            // An image that must not be read has a fingerprint of its size alone; using it reports the error.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
            Err(e) => return Err(store.io(name, e)),
        },
        None => {}
    }
    // 0 is reserved for images that do not exist.
    Ok(crc.finalize().max(1))
}
