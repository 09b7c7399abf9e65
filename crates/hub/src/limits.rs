//! What a server may make this machine do: a mirror that says no size could fill the disk, one that sends a byte now and
//! then could keep a download going for ever.

use std::path::Path;
use std::time::Duration;

/// Names of files that hold weights end with one of these; all other files are small.
const WEIGHTS: [&str; 6] = ["safetensors", "pt", "pth", "bin", "ckpt", "gguf"];

/// Limits of downloads. The defaults are far from what a hub and its files need.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a file that holds no weights: 128 MiB.
    pub small: u64,
    /// Bytes of weights whose size no answer says: 256 GiB, and no more than the disk has without the reserve.
    pub unsized_weights: u64,
    /// Bytes of the disk that are left free by weights whose size no answer says: 2 GiB.
    pub reserve: u64,
    /// Bytes a second; a connection that gives fewer counts as cut: 1000.
    pub least_speed: u64,
    /// Time over which the speed is measured, and in which any byte must come: HF_HUB_DOWNLOAD_TIMEOUT in seconds, else
    /// a minute.
    pub patience: Duration,
    /// Bytes after which earlier cuts no longer count: 1 MiB.
    pub progress: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            small: 128 << 20,
            unsized_weights: 256 << 30,
            reserve: 2 << 30,
            least_speed: 1000,
            patience: Duration::from_secs(60),
            progress: 1 << 20,
        }
    }
}

/// Bytes of one file.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    /// If its size is known before it comes.
    pub(crate) sized: u64,
    /// If it is not.
    pub(crate) unsized_: u64,
}

impl Limits {
    /// The most bytes of `file`, which is written to `path`.
    pub(crate) fn bytes(&self, file: &str, path: &Path) -> Limit {
        let weights = Path::new(file).extension().is_some_and(|end| WEIGHTS.iter().any(|w| end == *w));
        if !weights {
            return Limit { sized: self.small, unsized_: self.small };
        }
        let there = std::fs::metadata(path).map_or(0, |meta| meta.len());
        let room = free(path).map_or(u64::MAX, |free| (free + there).saturating_sub(self.reserve));
        Limit { sized: u64::MAX, unsized_: self.unsized_weights.min(room) }
    }
}

/// Bytes that the disk of `path` has for this user, where the system says it.
#[cfg(unix)]
fn free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
