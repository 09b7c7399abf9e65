//! Fingerprints of images, to detect whether a resumed run still has the same images.
//!
//! Reading every image completely would take as long as an epoch. The fingerprint of an image in an archive
//! is of its size and the CRC-32 in the archive's directory; of an image in a folder, of its size and its
//! first and last 4 KiB; in a mixture of more than 50,000 items, of its size alone. A replacement of the same
//! size in a folder is therefore detected in small sets if it differs near one end, as compressed images do,
//! and not in large sets.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};

use rayon::prelude::*;

use crate::{Mixture, Result, Store};

/// Maximum number of items for which the contents of files in folders are read.
const LOOK_INTO: usize = 50_000;
/// Bytes read at each end of a file.
const END: u64 = 4096;

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
    match (facts.crc, store) {
        (Some(known), _) => crc.update(&known.to_le_bytes()),
        (None, Store::Folder(folder)) if deep => {
            match ends(&folder.join(name), facts.len) {
                Ok(bytes) => crc.update(&bytes),
                // An image that must not be read has a fingerprint of its size alone; using it reports the
                // error.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
                Err(e) => return Err(store.io(name, e)),
            }
        }
        _ => {}
    }
    // 0 is reserved for images that do not exist.
    Ok(crc.finalize().max(1))
}

/// The first and last [`END`] bytes of a file.
fn ends(path: &std::path::Path, len: u64) -> std::io::Result<Vec<u8>> {
    let (mut file, mut bytes): (File, _) = (File::open(path)?, Vec::new());
    file.by_ref().take(END).read_to_end(&mut bytes)?;
    if len > END {
        file.seek(SeekFrom::Start(len.saturating_sub(END).max(END)))?;
        file.take(END).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
