//! Whether images are the ones that a run began with.
//!
//! Reading every image would take as long as an epoch, so an image is known by less: in an archive by its size and by
//! the checksum that the directory has; in a folder by its size and by its first and last 4 KiB, and by its size alone
//! when there are more than 50,000. So images in a folder that were replaced by others of the same size are noticed
//! in small sets when they differ near either end, as compressed images do, and not in large ones.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};

use rayon::prelude::*;

use crate::{Item, Manifest, Mixture, Result, Store};

/// Up to this many images are looked into.
const LOOK_INTO: usize = 50_000;
/// Bytes looked at on both ends.
const END: u64 = 4096;

impl Mixture {
    /// A fingerprint of each item's image, in the order of the items' numbers: 0 for one that is not there, and for an
    /// item without one.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the system cannot read an image for a reason that is not the image's, such as too many
    /// open files.
    pub fn prints(&self) -> Result<Vec<u32>> {
        let items: Vec<(&Manifest, &Item)> = self.items().collect();
        let deep = items.len() <= LOOK_INTO;
        items.par_iter().map(|(manifest, item)| print(&manifest.store, item.image.as_deref(), deep)).collect()
    }

    /// Whether the first `samples` positions of the order have each item in them, in the order of the items' numbers.
    pub fn drawn(&self, samples: u64) -> Vec<bool> {
        let mut drawn = vec![false; self.items().count()];
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

    /// Item `number` as errors call it, with its line.
    pub fn place(&self, number: usize) -> String {
        let item = self.items().nth(number);
        item.map_or_else(String::new, |(manifest, item)| manifest.place(item))
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
                // One that may not be read is known by its size; what is wrong is told when it is needed.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
                Err(e) => return Err(store.io(name, e)),
            }
        }
        _ => {}
    }
    // 0 says that there is none.
    Ok(crc.finalize().max(1))
}

/// The first and last bytes of a file.
fn ends(path: &std::path::Path, len: u64) -> std::io::Result<Vec<u8>> {
    let (mut file, mut bytes): (File, _) = (File::open(path)?, Vec::new());
    file.by_ref().take(END).read_to_end(&mut bytes)?;
    if len > END {
        file.seek(SeekFrom::Start(len.saturating_sub(END).max(END)))?;
        file.take(END).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
