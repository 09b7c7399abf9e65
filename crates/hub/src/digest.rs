//! Checksums of downloads: SHA-256 for large files, git's SHA-1 for small ones.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// An incremental checksum, whose kind is determined by the form of the ETag.
pub(crate) enum Sum {
    /// For large files: SHA-256 of the contents.
    Sha256(Sha256),
    /// For small files: git's blob id, which is SHA-1 of "blob SIZE\0" followed by the contents.
    Git(Sha1),
    /// The ETag is not a checksum, as on some mirrors, so nothing is compared.
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

    /// The name of the checksum in messages and its value in hexadecimal; `None` if nothing is compared.
    pub(crate) fn finish(self) -> Option<(&'static str, String)> {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        match self {
            Sum::Sha256(s) => Some(("its SHA-256", hex(&s.finalize()))),
            Sum::Git(s) => Some(("its SHA-1", hex(&s.finalize()))),
            Sum::Unknown => None,
        }
    }
}
