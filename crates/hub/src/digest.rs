//! Checksums of downloads: SHA-256 of large files, git's SHA-1 of small ones.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The checksum of contents that grow: what kind it is follows from the form of the ETag.
pub(crate) enum Sum {
    /// Large files: SHA-256 of the contents.
    Sha256(Sha256),
    /// Small files: git's name of a blob, SHA-1 of "blob SIZE\0" and the contents.
    Git(Sha1),
    /// An ETag of some other kind, as mirrors may give: nothing to compare.
    Unknown,
}

impl Sum {
    pub(crate) fn new(etag: &str, size: Option<u64>) -> Sum {
        let hex = etag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match (etag.len(), size) {
            (64, _) if hex => Sum::Sha256(Sha256::new()),
            (40, Some(size)) if hex => Sum::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
            _ => Sum::Unknown,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Sum::Sha256(s) => s.update(bytes),
            Sum::Git(s) => s.update(bytes),
            Sum::Unknown => {}
        }
    }

    /// Its name and value; `None` where there is nothing to compare.
    pub(crate) fn finish(self) -> Option<(&'static str, String)> {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        match self {
            Sum::Sha256(s) => Some(("its SHA-256", hex(&s.finalize()))),
            Sum::Git(s) => Some(("its SHA-1", hex(&s.finalize()))),
            Sum::Unknown => None,
        }
    }
}
